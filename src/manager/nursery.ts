/**
 * The worker processes of a node: the fork server, the socket they connect to, how they end.
 * @module
 */
import {
  errorText,
  EX,
  extractWorker,
  type Logger,
  makePrivateDir,
  signalGroup,
  sleep,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import { encodeFrame, type Frame, readFrames, writeAll } from "./frames.ts";
import type { ManagerConfig } from "./manager_config.ts";
import type { Slot } from "./slots.ts";

/** How a worker ended. */
export interface WorkerEnd {
  slot: number;
  pid: number;
  code: number | null;
  signal: number | null;
  maxrssKb: number;
}

/** Told by {@linkcode Nursery}. */
export interface NurseryEvents {
  onReady(worker: Worker): void;
  onFrame(worker: Worker, frame: Frame): void;
  /** The worker's process is gone (or its connection; the process is then killed). */
  onEnd(end: WorkerEnd): void;
  /** The fork server itself ended; all workers died with it. */
  onNurseryEnd(why: string): void;
}

/** One worker process. */
export interface Worker {
  readonly slot: number;
  readonly pid: number;
  send(header: unknown, body: Uint8Array): Promise<void>;
}

/** What the interpreter says of itself. */
export interface PythonFacts {
  python: string;
  dill: string;
  os: string;
}

/** Runs the fork server. */
export class Nursery {
  readonly #config: ManagerConfig;
  readonly #events: NurseryEvents;
  readonly #log: Logger;
  readonly #dir: string;
  readonly #logDir: string;
  #child?: Deno.ChildProcess;
  #control?: WritableStreamDefaultWriter<Uint8Array>;
  #listener?: Deno.UnixListener;
  #facts: PythonFacts | null = null;
  #stopping = false;

  /** @param options `logDir`: where workers' outputs go */
  constructor(
    config: ManagerConfig,
    events: NurseryEvents,
    options: { logDir: string; log: Logger },
  ) {
    this.#config = config;
    this.#events = events;
    this.#log = options.log.child("nursery");
    this.#logDir = options.logDir;
    // a socket's path holds at most 108 bytes, whatever the endpoint's directory is called
    this.#dir = Deno.makeTempDirSync({ prefix: "ep-" });
    Deno.chmodSync(this.#dir, 0o700);
  }

  /** Facts of the interpreter, once it is up. */
  get facts(): PythonFacts | null {
    return this.#facts;
  }

  /** Starts the interpreter; resolves when it can fork. @throws {UserError} if it cannot serve */
  async start(): Promise<void> {
    const config = this.#config;
    const code = await extractWorker(this.#dir);
    const socket = `${this.#dir}/s`;
    makePrivateDir(this.#logDir);
    const settings = `${this.#dir}/settings.json`;
    writePrivate(
      settings,
      JSON.stringify({
        socket,
        working_dir: config.workingDir,
        run_in_sandbox: config.runInSandbox,
        allowed_serializers: config.allowedSerializers,
        result_limit: config.resultLimitBytes,
        log_dir: this.#logDir,
        thread_name_prefix: config.threadNamePrefix,
      }),
    );
    this.#listener ??= Deno.listen({ transport: "unix", path: socket });
    void this.#accept(this.#listener);
    try {
      this.#child = new Deno.Command(config.python, {
        args: [`${code}/nursery.py`, settings],
        stdin: "piped",
        stdout: "piped",
        stderr: "inherit",
        detached: true,
      }).spawn();
    } catch (error) {
      throw new UserError(`Cannot start the workers' interpreter "${config.python}"`, {
        exit: EX.config,
        cause: error,
        hint: "Load or activate it in worker_init, or name it with `python` in the engine",
      });
    }
    this.#control = this.#child.stdin.getWriter();
    const up = Promise.withResolvers<void>();
    void this.#listen(this.#child, up.resolve);
    const status = this.#child.status.then(({ code }) => code);
    void status.then((code) => {
      if (!this.#stopping) {
        this.#events.onNurseryEnd(`the fork server ended with exit code ${code}`);
      }
    });
    const ended = await Promise.race([up.promise, status]);
    if (typeof ended === "number") {
      throw new UserError(
        `The workers' interpreter "${config.python}" cannot serve (exit code ${ended})`,
        { exit: EX.config, hint: "Its own words are above" },
      );
    }
  }

  /** Asks for a worker; it reports through `onReady`. */
  async fork(slot: Slot, threads: number): Promise<void> {
    const command = {
      t: "fork",
      slot: slot.index,
      env: slot.env,
      affinity: slot.affinity,
      threads,
    };
    await this.#control?.write(new TextEncoder().encode(JSON.stringify(command) + "\n"));
  }

  /** Ends a worker's process group: TERM, and KILL two seconds later if `pid` is still in `alive`. */
  async end(pid: number, alive: () => boolean): Promise<void> {
    signalGroup(pid, "SIGTERM");
    await sleep(2000);
    if (alive()) signalGroup(pid, "SIGKILL");
  }

  /** Ends all workers and the fork server. */
  async stop(): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    try {
      await this.#control?.close();
    } catch { /* it ended before */ }
    const done = this.#child?.status;
    await Promise.race([done, sleep(3000)]);
    if (this.#child) signalGroup(this.#child.pid, "SIGKILL");
    this.#listener?.close();
    Deno.removeSync(this.#dir, { recursive: true });
  }

  async #listen(child: Deno.ChildProcess, up: () => void): Promise<void> {
    let rest = "";
    try {
      for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        for (const line of lines) this.#onControl(JSON.parse(line), up);
      }
    } catch (error) {
      if (!this.#stopping) this.#log.error("The fork server cannot be heard", { error });
    }
  }

  #onControl(message: Record<string, unknown>, up: () => void): void {
    if (message.t === "up") {
      const { python, dill, os } = message as unknown as PythonFacts;
      this.#facts = { python, dill, os };
      up();
    } else if (message.t === "reaped") {
      const { slot, pid, code, signal, maxrss_kb } = message as Record<string, number>;
      this.#events.onEnd({
        slot: slot!,
        pid: pid!,
        code: code ?? null,
        signal: signal ?? null,
        maxrssKb: maxrss_kb!,
      });
    } else if (message.t === "error") {
      this.#log.error(String(message.message));
    }
  }

  async #accept(listener: Deno.UnixListener): Promise<void> {
    try {
      for await (const connection of listener) void this.#serve(connection);
    } catch { /* closed */ }
  }

  async #serve(connection: Deno.Conn): Promise<void> {
    let worker: Worker | null = null;
    let sending: Promise<void> = Promise.resolve();
    try {
      for await (const frame of readFrames(connection)) {
        if (worker) {
          this.#events.onFrame(worker, frame);
          continue;
        }
        const { slot, pid } = frame.header as { slot: number; pid: number };
        worker = {
          slot,
          pid,
          // one frame after the other: in a pool of threads several may be due
          send: (header, body) =>
            sending = sending.then(() => writeAll(connection, encodeFrame(header, body))),
        };
        this.#events.onReady(worker);
      }
    } catch (error) {
      if (!this.#stopping) {
        this.#log.warn("A worker's connection broke", { error: errorText(error) });
      }
    } finally {
      try {
        connection.close();
      } catch { /* closed by the peer */ }
      // a worker without a connection is of no use: its end is reported by the fork server
      if (worker && !this.#stopping) signalGroup(worker.pid, "SIGKILL");
    }
  }
}
