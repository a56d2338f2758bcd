/**
 * A TCP and TLS transport for nats-core on Deno: nats-core's Node transport cannot do TLS under Deno.
 *
 * TLS follows the server's INFO line, as NATS does by default. The name in the certificate is checked against
 * `serverName`, not against the address, because a bus is reached under many addresses.
 * @module
 */
import type { ConnectionOptions, Server, TlsOptions } from "nats";
import { setTransportFactory, type Transport } from "nats/internal";
import { concat, VERSION } from "../base/mod.ts";

/** TLS settings that this transport understands beside nats-core's own. */
export interface BusTls extends TlsOptions {
  serverName?: string;
}

/** Bytes read at a time; messages are handed out as views into such a block. */
const BLOCK = 256 * 1024;

class DenoTransport implements Transport {
  readonly lang = "deno";
  readonly version = VERSION;
  closeError?: Error;
  isClosed = false;
  #conn!: Deno.Conn;
  #encrypted = false;
  #first: Uint8Array = new Uint8Array(0);
  #queue: Uint8Array[] = [];
  #writing = false;
  readonly #closed = Promise.withResolvers<void | Error>();

  async connect(server: Server, options: ConnectionOptions): Promise<void> {
    const conn = await Deno.connect({ hostname: server.hostname, port: server.port });
    this.#conn = conn;
    conn.setNoDelay(true);
    conn.setKeepAlive(true);
    const { info, bytes } = await readInfo(conn);
    this.#first = bytes;
    if (options.tls || info.tls_required) {
      if (!info.tls_required && !info.tls_available) {
        throw new Error("The bus does not offer TLS, which is asked for");
      }
      const { ca, serverName } = (options.tls ?? {}) as BusTls;
      this.#conn = await Deno.startTls(conn, {
        hostname: serverName ?? server.tlsName ?? server.hostname,
        caCerts: ca ? [ca] : undefined,
      });
      this.#encrypted = true;
    }
  }

  async *[Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array> {
    if (this.#first.length > 0) yield this.#first;
    let reason: Error | undefined;
    try {
      let block = new Uint8Array(BLOCK);
      let at = 0;
      while (!this.isClosed) {
        if (BLOCK - at < 4096) {
          block = new Uint8Array(BLOCK);
          at = 0;
        }
        const count = await this.#conn.read(block.subarray(at));
        if (count === null) break;
        yield block.subarray(at, at + count);
        at += count;
      }
    } catch (error) {
      reason = error as Error;
    }
    await this.close(reason);
  }

  isEncrypted(): boolean {
    return this.#encrypted;
  }

  send(frame: Uint8Array): void {
    if (this.isClosed) return;
    this.#queue.push(frame);
    if (!this.#writing) void this.#write();
  }

  async #write(): Promise<void> {
    this.#writing = true;
    try {
      while (this.#queue.length > 0) {
        const frames = this.#queue;
        this.#queue = [];
        const bytes = frames.length === 1 ? frames[0]! : concat(frames);
        for (let at = 0; at < bytes.length;) at += await this.#conn.write(bytes.subarray(at));
      }
    } catch (error) {
      await this.close(error as Error);
    } finally {
      this.#writing = false;
    }
  }

  close(error?: Error): Promise<void> {
    if (this.isClosed) return Promise.resolve();
    this.isClosed = true;
    this.closeError = error;
    this.#queue = [];
    try {
      this.#conn?.close();
    } catch { /* the peer was faster */ }
    this.#closed.resolve(error);
    return Promise.resolve();
  }

  disconnect(): void {
    void this.close();
  }

  closed(): Promise<void | Error> {
    return this.#closed.promise;
  }

  discard(): void {}
}

interface ServerInfo {
  tls_required?: boolean;
  tls_available?: boolean;
}

async function readInfo(conn: Deno.Conn): Promise<{ info: ServerInfo; bytes: Uint8Array }> {
  let bytes = new Uint8Array(0);
  const chunk = new Uint8Array(8192);
  while (bytes.length < 65536) {
    const count = await conn.read(chunk);
    if (count === null) throw new Error("The bus closed the connection before it said hello");
    bytes = concat([bytes, chunk.subarray(0, count)]);
    const end = bytes.indexOf(10);
    if (end < 0) continue;
    const line = new TextDecoder().decode(bytes.subarray(0, end));
    if (!line.startsWith("INFO ")) break;
    return { info: JSON.parse(line.slice(5)), bytes };
  }
  throw new Error("What answers at the address of the bus is no NATS server");
}

/** Makes nats-core use this transport; a repeat call changes nothing. */
export function useDenoTransport(): void {
  setTransportFactory({
    factory: () => new DenoTransport(),
    defaultPort: 4222,
  });
}
