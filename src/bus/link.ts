/**
 * One connection to the bus that comes back for ever: `connecting` -> `open` -> (lost) -> `connecting` ... -> `closed`.
 *
 * nats-core's own reconnecting is switched off: a lost connection is closed, everything that hung on it fails, and a new one
 * is made, at an address that is read anew (the bus may have moved to another login node).
 * @module
 */
import {
  type Authenticator,
  credsAuthenticator,
  type NatsConnection,
  nkeyAuthenticator,
} from "nats";
import { NatsConnectionImpl } from "nats/internal";
import { backoffMs, errorText, type Logger, sleep } from "../base/mod.ts";
import { type BusTls, useDenoTransport } from "./transport.ts";
import type { BusAddress } from "./types.ts";

export type { NatsConnection };

/** How a {@linkcode Link} is made. */
export interface LinkOptions {
  /** Shown by the server's own tools. */
  name: string;
  /** Read before each attempt. */
  address(): Promise<BusAddress> | BusAddress;
  /** Text of an nkey seed file or of a credentials file; read before each attempt. */
  credentials(): Promise<string> | string;
  /** Prefix of reply subjects; the role may subscribe only below it. */
  inboxPrefix: string;
  /** Everything that hangs on a connection is set up here; the link counts as open when it resolves. */
  onOpen(connection: NatsConnection, epoch: number): Promise<void> | void;
  /** The link is open now: what it is for may begin. */
  onReady(connection: NatsConnection, epoch: number): void;
  onLost?(reason: string): void;
  log: Logger;
  /** Limit of one probe of an address, in milliseconds. @default 5_000 */
  probeMs?: number;
  /** Longest wait between attempts, in milliseconds. @default 5_000 */
  maxWaitMs?: number;
}

/** A connection to the bus that comes back. */
export class Link {
  readonly #options: LinkOptions;
  readonly #log: Logger;
  readonly #end = new AbortController();
  #connection: NatsConnection | null = null;
  #epoch = 0;
  #opened = Promise.withResolvers<NatsConnection>();
  #loop?: Promise<void>;
  /** Why the last attempt failed, address by address; for `status` and errors. */
  lastFailure = "";

  constructor(options: LinkOptions) {
    this.#options = options;
    this.#log = options.log.child("bus");
    this.#opened.promise.catch(() => {});
    useDenoTransport();
  }

  /** The open connection, or `null`. */
  get connection(): NatsConnection | null {
    return this.#connection;
  }

  /** Counts connections, from 1. */
  get epoch(): number {
    return this.#epoch;
  }

  /** Begins to connect; call once. */
  start(): this {
    this.#loop ??= this.#run();
    return this;
  }

  /** Resolves with the open connection, now or when it is back. @throws once the link is closed */
  async opened(signal?: AbortSignal): Promise<NatsConnection> {
    if (this.#connection) return this.#connection;
    if (!signal) return await this.#opened.promise;
    const aborted = Promise.withResolvers<never>();
    const onAbort = () => aborted.reject(signal.reason);
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([this.#opened.promise, aborted.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /** Sends what is buffered, closes for good. */
  async close(): Promise<void> {
    if (this.#end.signal.aborted) return;
    const connection = this.#connection;
    const limit = new AbortController();
    try {
      await Promise.race([connection?.flush(), sleep(1000, { signal: limit.signal })]);
    } catch { /* it is gone already */ }
    limit.abort();
    this.#end.abort(new Error("The bus connection was closed"));
    this.#opened.reject(this.#end.signal.reason);
    await connection?.close();
    await this.#loop;
  }

  async #run(): Promise<void> {
    for (let attempt = 1; !this.#end.signal.aborted; attempt++) {
      try {
        const connection = await this.#connect();
        this.#epoch++;
        await this.#options.onOpen(connection, this.#epoch);
        attempt = 0;
        this.#connection = connection;
        this.#opened.resolve(connection);
        this.#options.onReady(connection, this.#epoch);
        const reason = await connection.closed();
        this.#lost(reason ? errorText(reason) : "the server closed the connection");
      } catch (error) {
        this.lastFailure = errorText(error);
        this.#log.debug("Cannot reach the bus yet", { attempt, error });
        if (attempt === 3) this.#log.warn("Cannot reach the bus, still trying", { error });
      }
      const waitMs = backoffMs(Math.max(1, attempt), {
        minMs: 50,
        maxMs: this.#options.maxWaitMs ?? 5000,
      });
      await sleep(waitMs, { signal: this.#end.signal }).catch(() => {});
    }
  }

  #lost(reason: string): void {
    this.#connection = null;
    if (this.#end.signal.aborted) return;
    this.#opened = Promise.withResolvers();
    this.#opened.promise.catch(() => {});
    this.#log.warn("The connection to the bus was lost", { reason });
    this.#options.onLost?.(reason);
  }

  async #connect(): Promise<NatsConnection> {
    const address = await this.#options.address();
    const server = await firstToAnswer(address.servers, this.#options.probeMs ?? 5000);
    const tls: BusTls = {};
    if (address.ca) tls.ca = address.ca;
    if (address.serverName) tls.serverName = address.serverName;
    const connection = await NatsConnectionImpl.connect({
      servers: server,
      name: this.#options.name,
      reconnect: false,
      tls: address.tls ? tls : undefined,
      authenticator: authenticatorFor(await this.#options.credentials()),
      inboxPrefix: this.#options.inboxPrefix,
      ignoreClusterUpdates: true,
      pingInterval: 10_000,
      maxPingOut: 2,
      timeout: 10_000,
      noAsyncTraces: true,
    });
    if (this.#end.signal.aborted) {
      await connection.close();
      throw this.#end.signal.reason;
    }
    void watchErrors(connection, this.#log);
    return connection;
  }
}

async function watchErrors(connection: NatsConnection, log: Logger): Promise<void> {
  for await (const status of connection.status()) {
    if (status.type === "error") log.warn("The bus refused something", { error: status.error });
  }
}

function authenticatorFor(text: string): Authenticator {
  const bytes = new TextEncoder().encode(text.trim());
  return text.includes("BEGIN NATS USER JWT")
    ? credsAuthenticator(new TextEncoder().encode(text))
    : nkeyAuthenticator(bytes);
}

/**
 * Tries all addresses at once and gives the first that accepts a TCP connection.
 * @throws an error that lists each address with its reason
 */
export async function firstToAnswer(servers: string[], limitMs: number): Promise<string> {
  if (servers.length === 1) return servers[0]!;
  const attempts = servers.map(async (server) => {
    const { hostname, port } = new URL(`tcp://${server}`);
    const connecting = Deno.connect({
      hostname: hostname.replace(/^\[|\]$/g, ""),
      port: Number(port),
    });
    const limit = Promise.withResolvers<never>();
    const timer = setTimeout(() => limit.reject(new Error("no answer (ETIMEDOUT)")), limitMs);
    try {
      const connection = await Promise.race([connecting, limit.promise]);
      connection.close();
      return server;
    } catch (error) {
      connecting.then((late) => late.close()).catch(() => {});
      throw new Error(`${server}: ${errorText(error)}`);
    } finally {
      clearTimeout(timer);
    }
  });
  try {
    return await Promise.any(attempts);
  } catch (error) {
    const reasons = (error as AggregateError).errors.map(errorText);
    throw new Error(`No address of the bus answers: ${reasons.join("; ") || "none is known"}`);
  }
}
