/**
 * Blocks on this host: managers as processes of their own, which outlive a crash of the endpoint and are found again.
 *
 * Scaling as the public strategies have it: `none` starts init_blocks; `simple` also follows the demand up to max_blocks, and
 * down to min_blocks after max_idletime without a task. Pools are one block that is started again when it ends.
 * @module
 */
import {
  identityOf,
  isAlive,
  type Logger,
  makePrivateDir,
  monoMs,
  type ProcessIdentity,
  readIfThere,
  selfCommand,
  shellQuote,
  signalGroup,
  sleep,
  writePrivate,
} from "../base/mod.ts";
import type { ManagerReport } from "../bus/mod.ts";

/** Options of {@linkcode LocalBlocks}. */
export interface LocalBlocksOptions {
  /** `<endpoint dir>/state`. */
  stateDir: string;
  /** Scripts and outputs. */
  scriptDir: string;
  managerConfigFile: string;
  initBlocks: number;
  minBlocks: number;
  maxBlocks: number;
  parallelism: number;
  strategy: "none" | "simple";
  maxIdletimeMs: number;
  workerInit: string;
  /** A block ended; its managers are gone. */
  onEnded(blockId: string, why: string): void;
  /** Blocks end before a manager reports, again and again; `null`: mended. */
  onBroken(reason: string | null): void;
  log: Logger;
}

interface Block {
  id: string;
  process: ProcessIdentity;
  errorFile: string;
  /** Whether a manager of it ever reported. */
  reported: boolean;
  idleSinceMs: number | null;
  ending: boolean;
}

/** Deaths in a row without a report after which no more blocks are started. */
const BREAK_AFTER = 3;

/** Starts and ends blocks on this host. */
export class LocalBlocks {
  readonly #options: LocalBlocksOptions;
  readonly #log: Logger;
  readonly #blocks = new Map<string, Block>();
  readonly #workers = new Map<string, number>();
  #demand = { waiting: 0, running: 0 };
  #failures = 0;
  #broken: string | null = null;
  #stopped = false;
  #counter = 0;
  #idleTimer?: number;

  constructor(options: LocalBlocksOptions) {
    this.#options = options;
    this.#log = options.log.child("blocks");
  }

  /** Blocks for `status`. */
  snapshot(): { id: string; pid: number; state: string }[] {
    return [...this.#blocks.values()].map(({ id, process, reported }) => ({
      id,
      pid: process.pid,
      state: reported ? "running" : "pending",
    }));
  }

  get broken(): string | null {
    return this.#broken;
  }

  /** Finds blocks of an earlier life, starts what is missing of init_blocks. */
  start(): void {
    makePrivateDir(this.#options.scriptDir);
    for (const block of this.#readRecords()) {
      this.#counter = Math.max(this.#counter, Number(block.id) + 1);
      if (!isAlive(block.process)) continue;
      this.#log.info("Found a block still running", { block: block.id, pid: block.process.pid });
      this.#blocks.set(block.id, { ...block, idleSinceMs: null, ending: false });
      void this.#watchAdopted(block);
    }
    while (this.#blocks.size < this.#options.initBlocks) this.#launch();
    this.#idleTimer = setInterval(() => this.#scaleIn(), 5000);
  }

  /** Numbers of waiting and running tasks changed. */
  setDemand(demand: { waiting: number; running: number }): void {
    this.#demand = demand;
    this.#scaleOut();
  }

  /** A manager reported. */
  reported(report: ManagerReport): void {
    const block = this.#blocks.get(report.blockId);
    if (!block) return;
    block.reported = true;
    this.#failures = 0;
    this.#workers.set(report.blockId, report.workers);
    block.idleSinceMs = report.idleMs > 0 ? monoMs() - report.idleMs : null;
  }

  /** Tries again after BROKEN. */
  resume(): void {
    this.#failures = 0;
    if (this.#broken === null) return;
    this.#broken = null;
    this.#options.onBroken(null);
    this.#scaleOut();
  }

  /** Ends all blocks: TERM, KILL after `graceMs`. */
  async cancelAll(graceMs = 8000): Promise<void> {
    this.#stop();
    const all = [...this.#blocks.values()];
    for (const block of all) signalGroup(block.process.pid, "SIGTERM");
    for (const until = monoMs() + graceMs; monoMs() < until;) {
      if (all.every((block) => !isAlive(block.process))) break;
      await sleep(25);
    }
    for (const block of all) signalGroup(block.process.pid, "SIGKILL");
    this.#blocks.clear();
    this.#writeRecords();
  }

  /** Stops scaling; blocks go on. */
  release(): void {
    this.#stop();
  }

  #stop(): void {
    this.#stopped = true;
    clearInterval(this.#idleTimer);
  }

  #scaleOut(): void {
    const { strategy, maxBlocks, minBlocks, parallelism } = this.#options;
    if (this.#stopped || this.#broken !== null) return;
    while (this.#blocks.size < minBlocks) this.#launch();
    const tasks = this.#demand.waiting + this.#demand.running;
    if (strategy === "none" || tasks === 0) return;
    if (this.#blocks.size === 0) return this.#launch();
    const slotsOfBlock = Math.max(1, ...this.#workers.values());
    const slots = this.#blocks.size * slotsOfBlock;
    const missing = Math.ceil((tasks * parallelism - slots) / slotsOfBlock);
    for (let i = 0; i < missing && this.#blocks.size < maxBlocks; i++) this.#launch();
  }

  #scaleIn(): void {
    const { strategy, maxIdletimeMs, minBlocks } = this.#options;
    if (strategy === "none" || this.#demand.waiting > 0) return;
    let left = [...this.#blocks.values()].filter((block) => !block.ending).length;
    for (const block of this.#blocks.values()) {
      const idle = block.idleSinceMs !== null && monoMs() - block.idleSinceMs > maxIdletimeMs;
      if (!idle || block.ending || left <= minBlocks || this.#demand.running > 0) continue;
      left--;
      block.ending = true;
      this.#log.info("Ending an idle block", { block: block.id });
      signalGroup(block.process.pid, "SIGTERM");
    }
  }

  #launch(): void {
    const id = String(this.#counter++);
    const { scriptDir, managerConfigFile, workerInit } = this.#options;
    const base = `${scriptDir}/block-${id}`;
    const command = selfCommand("manager", "--config", managerConfigFile, "--block", id);
    const script = [
      "#!/bin/bash",
      `exec > ${shellQuote(`${base}.stdout`)} 2> ${shellQuote(`${base}.stderr`)}`,
      `export JOBNAME=block-${id}`,
      workerInit,
      `exec ${command.map(shellQuote).join(" ")}`,
      "",
    ].join("\n");
    writePrivate(`${base}.sh`, script, { mode: 0o700 });
    const child = new Deno.Command("bash", {
      args: [`${base}.sh`],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true,
    }).spawn();
    child.unref();
    const process = identityOf(child.pid);
    const block: Block = {
      id,
      process: process ?? { host: "", bootId: "", pid: child.pid, startTime: "" },
      errorFile: `${base}.stderr`,
      reported: false,
      idleSinceMs: null,
      ending: false,
    };
    this.#blocks.set(id, block);
    this.#writeRecords();
    this.#log.info("Started a block", { block: id, pid: child.pid });
    void child.status.then(({ code, signal }) =>
      this.#onEnded(block, signal ? `killed by ${signal}` : `exit code ${code}`)
    );
  }

  /** An adopted block is not our child: only the process table tells of its end. */
  async #watchAdopted(block: Block): Promise<void> {
    while (isAlive(block.process) && !this.#stopped) await sleep(1000);
    if (!this.#stopped) this.#onEnded(block, "it ended");
  }

  #onEnded(block: Block, why: string): void {
    if (!this.#blocks.delete(block.id)) return;
    this.#workers.delete(block.id);
    this.#writeRecords();
    this.#options.onEnded(block.id, `its block ended (${why})`);
    if (this.#stopped) return;
    this.#log.info("A block ended", { block: block.id, why });
    if (!block.reported && !block.ending) {
      const limit = Math.max(BREAK_AFTER, this.#options.initBlocks);
      if (++this.#failures >= limit) return this.#break(block, why);
    }
    this.#scaleOut();
  }

  #break(block: Block, why: string): void {
    const tail = (readIfThere(block.errorFile) ?? "").trimEnd().split("\n").slice(-20).join("\n");
    this.#broken = `${this.#failures} blocks in a row ended before a manager reported (${why}). ` +
      `Script: ${block.errorFile.replace(/stderr$/, "sh")}. Last lines of its output:\n${tail}`;
    this.#log.error("No more blocks are started", { reason: this.#broken });
    this.#options.onBroken(this.#broken);
  }

  #readRecords(): Block[] {
    try {
      return JSON.parse(readIfThere(`${this.#options.stateDir}/blocks.json`) ?? "[]");
    } catch {
      return [];
    }
  }

  #writeRecords(): void {
    const records = [...this.#blocks.values()].map(({ id, process, errorFile, reported }) => ({
      id,
      process,
      errorFile,
      reported,
    }));
    writePrivate(`${this.#options.stateDir}/blocks.json`, JSON.stringify(records));
  }
}
