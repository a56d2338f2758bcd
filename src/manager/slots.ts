/**
 * How many workers a node gets, and what each owns: cores, an accelerator, environment (protocol.md section 5).
 * @module
 */
import type { ManagerConfig } from "./manager_config.ts";

/** What a node has. */
export interface NodeResources {
  /** Cores this process may use. */
  cores: number[];
  memoryGb: number;
}

/** What one worker owns. */
export interface Slot {
  index: number;
  /** Cores it is bound to; `null`: all. */
  affinity: number[] | null;
  env: Record<string, string>;
}

/** Cores and memory of this node, `PARSL_CORES` and `PARSL_MEMORY_GB` first. */
export function nodeResources(): NodeResources {
  const allowed = coresAllowed();
  const wanted = Number(Deno.env.get("PARSL_CORES"));
  const cores = wanted > 0 && wanted < allowed.length ? allowed.slice(0, wanted) : allowed;
  const memory = Number(Deno.env.get("PARSL_MEMORY_GB"));
  const memoryGb = memory > 0 ? memory : Deno.systemMemoryInfo().total / 2 ** 30;
  return { cores, memoryGb };
}

function coresAllowed(): number[] {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    const list = /^Cpus_allowed_list:\s*(\S+)/m.exec(status)?.[1];
    if (list) return parseCores(list);
  } catch { /* no /proc */ }
  return Array.from({ length: navigator.hardwareConcurrency }, (_, core) => core);
}

/** Reads `0-3,8`. @throws {SyntaxError} */
export function parseCores(list: string): number[] {
  return list.split(",").flatMap((part) => {
    const match = /^(\d+)(?:-(\d+))?$/.exec(part.trim());
    if (!match) throw new SyntaxError(`Cannot read the list of cores "${list}"`);
    const first = Number(match[1]);
    const last = Number(match[2] ?? match[1]);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
}

/** Workers on this node: the least of what is configured, cores, memory and accelerators allow. */
export function workerCount(config: ManagerConfig, node: NodeResources): number {
  const limits = [config.maxWorkers ?? Infinity];
  // pools have as many workers as they are told, whatever the cores
  if (config.coresPerWorker > 0) limits.push(Math.floor(node.cores.length / config.coresPerWorker));
  if (config.memPerWorker) limits.push(Math.floor(node.memoryGb / config.memPerWorker));
  if (config.availableAccelerators.length > 0) limits.push(config.availableAccelerators.length);
  return Math.max(1, Math.min(...limits));
}

/** What each of `count` workers owns. */
export function makeSlots(
  config: ManagerConfig,
  options: { node: NodeResources; count: number; managerId: string; blockId: string },
): Slot[] {
  const { node, count, managerId, blockId } = options;
  return Array.from({ length: count }, (_, index) => {
    const affinity = coresOf(config.cpuAffinity, { cores: node.cores, index, count });
    const env: Record<string, string> = {
      PARSL_WORKER_RANK: String(index),
      PARSL_WORKER_COUNT: String(count),
      PARSL_WORKER_POOL_ID: managerId,
      PARSL_WORKER_BLOCK_ID: blockId,
    };
    const device = config.availableAccelerators[index];
    if (device !== undefined) {
      env.CUDA_VISIBLE_DEVICES = device;
      env.ROCR_VISIBLE_DEVICES = device;
      env.ZE_AFFINITY_MASK = device;
      env.ZE_ENABLE_PCI_ID_DEVICE_ORDER = "1";
    }
    if (affinity) {
      env.OMP_NUM_THREADS = String(affinity.length);
      env.GOMP_CPU_AFFINITY = affinity.join(" ");
      env.KMP_AFFINITY = `explicit,proclist=[${affinity.join(",")}]`;
    }
    return { index, affinity, env };
  });
}

function coresOf(
  mode: string,
  options: { cores: number[]; index: number; count: number },
): number[] | null {
  const { cores, index, count } = options;
  const share = Math.floor(cores.length / count);
  if (mode === "none" || mode === "") return null;
  if (mode.startsWith("list:")) {
    const entries = mode.slice(5).split(":");
    return parseCores(entries[index % entries.length]!);
  }
  if (share === 0) return null;
  if (mode === "alternating") return cores.filter((_, at) => at % count === index).slice(0, share);
  const at = mode === "block-reverse" ? cores.length - (index + 1) * share : index * share;
  return cores.slice(at, at + share);
}
