/**
 * What a set of processes uses: memory, processor time. The processes are told by a variable in their environment,
 * which survives new sessions and lost parents, and by descent, which survives programs that overwrite their
 * environment to set a title.
 * @module
 */

/** One process as the kernel shows it. */
export interface ProcessUse {
  pid: number;
  /** What it is: program and telling arguments, shortened. */
  name: string;
  /** Proportional share of memory, in bytes: shared pages divided among those that map them. */
  pss: number;
  /** Resident memory in bytes, shared pages in full. */
  rss: number;
  /** Processor time so far, in milliseconds. */
  cpuMs: number;
}

/** Numbers of all processes whose environment holds `NAME=value`, of `root`, and of all descendants of these. */
export function marked(mark: string, root?: number): number[] {
  const found = new Set<number>();
  const parents = new Map<number, number>();
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = Deno.readTextFileSync(`/proc/${name}/stat`);
      parents.set(Number(name), Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]));
      if (Deno.readTextFileSync(`/proc/${name}/environ`).split("\0").includes(mark)) {
        found.add(Number(name));
      }
    } catch { /* gone, or not ours */ }
  }
  if (root !== undefined && parents.has(root)) found.add(root);
  for (let size = -1; size !== found.size;) {
    size = found.size;
    for (const [pid, parent] of parents) if (found.has(parent)) found.add(pid);
  }
  return [...found];
}

/** What a process uses now, or `undefined` if it is gone. */
export function useOf(pid: number): ProcessUse | undefined {
  try {
    const memory = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
    const kib = (key: string) => Number(memory.match(new RegExp(`^${key}:\\s+(\\d+)`, "m"))![1]);
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return {
      pid,
      name: nameOf(Deno.readTextFileSync(`/proc/${pid}/cmdline`)),
      pss: kib("Pss") * 1024,
      rss: kib("Rss") * 1024,
      cpuMs: (Number(fields[11]) + Number(fields[12])) * 10,
    };
  } catch {
    return undefined;
  }
}

/** What all marked processes use now, largest first; processes without memory of their own are left out. */
export function usesOf(mark: string, root?: number): ProcessUse[] {
  return marked(mark, root).map(useOf).filter((use) => use !== undefined)
    .sort((a, b) => b.pss - a.pss);
}

/** Ends all marked processes at once; for what an orderly stop left behind. Gives how many there were. */
export async function endMarked(mark: string): Promise<number> {
  const left = marked(mark);
  for (let round = 0; round < 50; round++) {
    const pids = marked(mark);
    if (pids.length === 0) break;
    for (const pid of pids) {
      try {
        Deno.kill(pid, "SIGKILL");
      } catch { /* gone */ }
    }
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  return left.length;
}

function nameOf(cmdline: string): string {
  const words = cmdline.split("\0").filter(Boolean).map((word) => word.replace(/^.*\//, ""));
  return words.filter((word) => !/^[-{]/.test(word)).slice(0, 3).join(" ").slice(0, 48);
}
