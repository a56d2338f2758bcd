/**
 * The endpoint's own nats-server: configuration, start, adoption after a crash of the endpoint, restart when it dies, stop.
 *
 * It runs in a session of its own and writes to a log file, so that it outlives a crash of the endpoint. An flock on
 * the store, held by the server process itself, keeps two servers off one store; `server.json` says who and where it is.
 * @module
 */
import {
  backoffMs,
  deadline,
  errorText,
  EX,
  identityOf,
  isAlive,
  type Logger,
  makePrivateDir,
  monoMs,
  NATS_MINIMUM,
  natsServerPath,
  type ProcessIdentity,
  readIfThere,
  run,
  sleep,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import { BUS_SERVER_NAME, type BusCredentials } from "./credentials.ts";
import { BusNames } from "./names.ts";
import type { BusAddress } from "./types.ts";

/** How the server is run. */
export interface ServerOptions {
  endpointId: string;
  /** `<endpoint dir>/state/bus`. */
  dir: string;
  /** Store elsewhere, for instance on node-local disk. */
  storeDir: string | null;
  credentials: BusCredentials;
  tls: boolean;
  /** Port asked for; `null`: the one of last time, else a free one. */
  port: number | null;
  /** Address to listen on: `127.0.0.1` if all managers run on this host, else `0.0.0.0` or `::`. */
  listen: string;
  /** Host names and addresses under which nodes may find it, best first. */
  addresses: string[];
  /** Bytes of the largest message. */
  maxPayload: number;
  /** Bytes the store may take on disk. */
  maxStoreBytes: number;
  log: Logger;
  /** Told when the server died; it is started again. */
  onDied?(): void;
}

/** Largest message of an endpoint's own bus: above the service's limit of 10 MB, packing and headers included. */
export const MAX_PAYLOAD = 32 * 1024 * 1024;

interface ServerRecord {
  process: ProcessIdentity;
  port: number;
}

/** Runs one nats-server. */
export class NatsServer {
  readonly #options: ServerOptions;
  readonly #log: Logger;
  readonly addressFile: string;
  readonly #recordFile: string;
  readonly #store: string;
  #record: ServerRecord | null = null;
  #stopped = false;
  #adopted = false;
  #watch?: AbortController;
  /** Resolves when the server ends, if it is our own child. */
  #exited: Promise<unknown> | null = null;

  constructor(options: ServerOptions) {
    this.#options = options;
    this.#log = options.log.child("bus");
    this.addressFile = `${options.dir}/address.json`;
    this.#recordFile = `${options.dir}/server.json`;
    this.#store = options.storeDir ?? `${options.dir}/store`;
  }

  /** Whether the running server was found, not started. */
  get adopted(): boolean {
    return this.#adopted;
  }

  /** Process id of the server, for `status` and memory figures. */
  get pid(): number | null {
    return this.#record?.process.pid ?? null;
  }

  /** Port it listens on. */
  get port(): number | null {
    return this.#record?.port ?? null;
  }

  /** Finds the running server or starts one; resolves when it accepts connections. @throws {UserError} */
  async start(): Promise<void> {
    makePrivateDir(this.#options.dir);
    makePrivateDir(this.#store);
    const old = this.#readRecord();
    if (old && isAlive(old.process)) {
      this.#record = old;
      this.#adopted = true;
      this.#log.info("Found the bus still running", { pid: old.process.pid, port: old.port });
      this.#writeAddress(old.port);
    } else {
      await this.#launch(old?.port ?? null);
    }
    void this.#keepAlive();
  }

  /** Ends the server (TERM, KILL after 10 s). */
  async stop(): Promise<void> {
    this.#stopped = true;
    this.#watch?.abort();
    const record = this.#record;
    if (!record || !isAlive(record.process)) return;
    kill(record.process.pid, "SIGTERM");
    for (const until = monoMs() + 10_000; monoMs() < until;) {
      if (!isAlive(record.process)) return;
      await sleep(20);
    }
    kill(record.process.pid, "SIGKILL");
  }

  /** Leaves the server running and stops caring. */
  release(): void {
    this.#stopped = true;
    this.#watch?.abort();
  }

  #readRecord(): ServerRecord | null {
    try {
      const text = readIfThere(this.#recordFile);
      return text === undefined ? null : JSON.parse(text) as ServerRecord;
    } catch {
      return null;
    }
  }

  async #launch(lastPort: number | null): Promise<void> {
    const binary = await natsServerPath(this.#options.dir);
    await requireVersion(binary);
    let port = this.#options.port ?? (lastPort && portIsFree(lastPort) ? lastPort : freePort());
    for (let attempt = 1;; attempt++) {
      const configFile = `${this.#options.dir}/server.conf`;
      writePrivate(configFile, this.#configText(port));
      const failure = await this.#spawn(binary, configFile, port);
      if (failure === null) return;
      if (attempt === 3 || this.#options.port !== null || !/address already in use/.test(failure)) {
        throw new UserError(`The bus (nats-server) did not start: ${failure}`, {
          exit: EX.unavailable,
          file: `${this.#options.dir}/server.log`,
        });
      }
      port = freePort();
    }
  }

  /** @returns `null` when it accepts connections, else why it does not */
  async #spawn(binary: string, configFile: string, port: number): Promise<string | null> {
    const logFile = `${this.#options.dir}/server.log`;
    const logStart = sizeOf(logFile);
    const lock = `${this.#store}/lock`;
    // flock passes its lock on to nats-server, whose life it then shares, on every host of a shared file system
    const child = new Deno.Command("flock", {
      args: ["--no-fork", "-n", "-E", "73", lock, binary, "-c", configFile],
      stdin: "null",
      stdout: "null",
      stderr: "null",
      detached: true,
      cwd: this.#options.dir,
      // a quarter less processor time for the same work where cores are few: Go's idle threads spin
      env: { GOMAXPROCS: String(Math.max(1, Math.floor(navigator.hardwareConcurrency / 2))) },
    }).spawn();
    child.unref();
    let ended: number | null = null;
    void child.status.then((status) => ended = status.code);
    for (const until = monoMs() + 60_000; monoMs() < until;) {
      if (ended !== null) {
        if (ended === 73) return this.#lockedMessage();
        return lastWords(logFile, logStart) ?? `it ended with exit code ${ended}`;
      }
      if (await accepts(port)) {
        const process = identityOf(child.pid);
        if (!process) continue;
        this.#record = { process, port };
        this.#adopted = false;
        this.#exited = child.status;
        writePrivate(this.#recordFile, JSON.stringify(this.#record));
        this.#writeAddress(port);
        this.#log.info("The bus is up", { pid: child.pid, port });
        return null;
      }
      await sleep(5);
    }
    kill(child.pid, "SIGKILL");
    return "it accepted no connection within 60 s";
  }

  #lockedMessage(): string {
    const holder = this.#readRecord()?.process;
    return holder
      ? `its store ${this.#store} is in use by nats-server (pid ${holder.pid}) on ${holder.host}; stop the endpoint there`
      : `its store ${this.#store} is in use by another nats-server`;
  }

  #writeAddress(port: number): void {
    const { addresses, tls, credentials } = this.#options;
    const address: BusAddress = {
      servers: addresses.map((host) =>
        host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
      ),
      tls,
      ca: tls ? credentials.ca : null,
      serverName: tls ? BUS_SERVER_NAME : null,
    };
    writePrivate(this.addressFile, JSON.stringify(address, null, 1));
  }

  /** Starts the server again when it ends. It is our child only if we started it, so the process table is asked. */
  async #keepAlive(): Promise<void> {
    this.#watch = new AbortController();
    const { signal } = this.#watch;
    for (let failures = 0; !this.#stopped;) {
      // an adopted server is not our child and cannot tell us: the process table is asked
      await (this.#exited ?? waitForExit(this.#record!.process, signal));
      if (this.#stopped) return;
      this.#log.error("The bus died; starting it again", { pid: this.#record!.process.pid });
      this.#options.onDied?.();
      try {
        await this.#launch(this.#record!.port);
        failures = 0;
      } catch (error) {
        failures++;
        this.#log.error("The bus cannot be started", { error: errorText(error) });
        await sleep(backoffMs(failures, { minMs: 500, maxMs: 30_000 }), { signal }).catch(() => {});
      }
    }
  }

  #configText(port: number): string {
    const { credentials, listen, tls, maxPayload, maxStoreBytes, dir } = this.#options;
    const names = new BusNames(this.#options.endpointId);
    const list = (items: string[]) => `[${items.map((item) => JSON.stringify(item)).join(", ")}]`;
    const manager = names.managerPermissions();
    const users = [
      ...credentials.publicKeys.endpoint.map((key) => `    { nkey: ${key} }`),
      ...credentials.publicKeys.manager.map((key) =>
        `    { nkey: ${key}, permissions: { publish: { allow: ${
          list(manager.publish)
        } }, subscribe: { allow: ${list(manager.subscribe)} } } }`
      ),
    ];
    return [
      `server_name: ${JSON.stringify(`endpoint-${this.#options.endpointId}`)}`,
      `host: ${JSON.stringify(listen)}`,
      `port: ${port}`,
      `log_file: ${JSON.stringify(`${dir}/server.log`)}`,
      "logfile_size_limit: 10MB",
      "logfile_max_num: 2",
      `max_payload: ${maxPayload}`,
      `max_pending: ${Math.max(256 * 1024 * 1024, 4 * maxPayload)}`,
      "max_connections: 100000",
      'write_deadline: "30s"',
      'ping_interval: "20s"',
      "ping_max: 3",
      "jetstream {",
      `  store_dir: ${JSON.stringify(this.#store)}`,
      // what is acknowledged to others has waited for two of these (invariant 10)
      '  sync_interval: "250ms"',
      "  max_memory_store: 16MB",
      `  max_file_store: ${maxStoreBytes}`,
      "}",
      ...(tls
        ? [
          "tls {",
          `  cert_file: ${JSON.stringify(credentials.certFile)}`,
          `  key_file: ${JSON.stringify(credentials.keyFile)}`,
          "  timeout: 10",
          "}",
        ]
        : []),
      "authorization {",
      "  timeout: 10",
      "  users: [",
      users.join(",\n"),
      "  ]",
      "}",
      "",
    ].join("\n");
  }
}

/** @throws {UserError} if the binary is older than {@linkcode NATS_MINIMUM} or cannot be run */
async function requireVersion(binary: string): Promise<void> {
  let version: string | undefined;
  try {
    const { stdout } = await run([binary, "--version"], { timeoutMs: 20_000 });
    version = /v(\d+\.\d+\.\d+)/.exec(stdout)?.[1];
  } catch (error) {
    throw new UserError(`Cannot run ${binary}`, {
      exit: EX.oserr,
      cause: error,
      hint: "If its file system is mounted noexec, set bus.store_dir to another, or EP_NATS_SERVER",
    });
  }
  if (!version || olderThan(version, NATS_MINIMUM)) throw tooOld(version ?? "unknown", binary);
}

/** The refusal of a NATS server that is older than our minimum. */
export function tooOld(version: string, where: string): UserError {
  return new UserError(
    `The NATS server ${where} is version ${version}, at least ${NATS_MINIMUM} is needed: older ones forget acknowledged work when they are killed`,
    { exit: EX.unavailable },
  );
}

/** Whether version `a` is older than `b`. */
export function olderThan(a: string, b: string): boolean {
  const parts = (v: string) => v.split(/[.-]/).slice(0, 3).map(Number);
  const [x, y] = [parts(a), parts(b)];
  for (let i = 0; i < 3; i++) if (x[i] !== y[i]) return (x[i] ?? 0) < (y[i] ?? 0);
  return false;
}

/** Resolves when the process is gone. */
async function waitForExit(process: ProcessIdentity, signal: AbortSignal): Promise<void> {
  while (isAlive(process) !== false && !signal.aborted) {
    await sleep(250, { signal }).catch(() => {});
  }
}

function kill(pid: number, signal: Deno.Signal): void {
  try {
    Deno.kill(pid, signal);
  } catch { /* gone */ }
}

function sizeOf(path: string): number {
  try {
    return Deno.statSync(path).size;
  } catch {
    return 0;
  }
}

/** The last error that nats-server wrote to its log since `from`. */
function lastWords(path: string, from: number): string | null {
  try {
    const text = new TextDecoder().decode(Deno.readFileSync(path).subarray(from));
    const lines = text.split("\n").filter((line) => /\[(FTL|ERR)\]/.test(line));
    return lines.at(-1)?.replace(/^.*\[(FTL|ERR)\]\s*/, "") ?? null;
  } catch {
    return null;
  }
}

async function accepts(port: number): Promise<boolean> {
  try {
    const connection = await deadline(
      Deno.connect({ hostname: "127.0.0.1", port }),
      1000,
      "the bus to accept a connection",
    );
    connection.close();
    return true;
  } catch {
    return false;
  }
}

function portIsFree(port: number): boolean {
  try {
    Deno.listen({ port, hostname: "0.0.0.0" }).close();
    return true;
  } catch {
    return false;
  }
}

function freePort(): number {
  const listener = Deno.listen({ port: 0, hostname: "0.0.0.0" });
  const { port } = listener.addr as Deno.NetAddr;
  listener.close();
  return port;
}
