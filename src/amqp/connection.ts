/**
 * Opening one AMQP connection, and saying in words why it did not open.
 * @module
 */
import { type ChannelModel, connect } from "amqplib";
import { deadline, errorText, redact } from "../base/mod.ts";
import type { QueueInfo } from "./types.ts";

/** The broker does not accept our credentials: trying again does not help. */
export class RefusedError extends Error {
  /** Tells this class from others where `instanceof` cannot. */
  override name = "RefusedError";
}

/** Options of {@linkcode openConnection}. */
export interface ConnectionOptions {
  /** Shown in the broker's list of connections. */
  name: string;
  /** Between AMQP heartbeats, in seconds. @default 20 */
  heartbeatS?: number;
  /** Limit for opening, in milliseconds. @default 20_000 */
  timeoutMs?: number;
}

/** A URL with its credentials replaced by `***`, for logs. */
export function hideCredentials(url: string): string {
  return redact(url);
}

/** The queue's description with another port in its URL (`amqp_port` in a configuration). */
export function withPort(info: QueueInfo, port: number | null): QueueInfo {
  if (port === null) return info;
  const url = new URL(info.connection_url);
  url.port = String(port);
  return { ...info, connection_url: url.href };
}

/** Opens a connection. @throws {RefusedError} if credentials are refused, else an error in words */
export async function openConnection(
  url: string,
  options: ConnectionOptions,
): Promise<ChannelModel> {
  const { heartbeatS = 20, timeoutMs = 20_000 } = options;
  const target = new URL(url);
  target.searchParams.set("heartbeat", String(heartbeatS));
  try {
    const opening = connect(target.href, {
      timeout: timeoutMs,
      noDelay: true,
      keepAlive: true,
      keepAliveDelay: 15_000,
      clientProperties: { connection_name: options.name },
    });
    opening.catch(() => {});
    const connection = await deadline(opening, timeoutMs + 1000, hideCredentials(url));
    // an error event that nobody hears would end the process; close follows it
    connection.on("error", () => {});
    return connection;
  } catch (error) {
    throw await explain(error, target);
  }
}

async function explain(error: unknown, url: URL): Promise<Error> {
  const text = errorText(error);
  const where = hideCredentials(url.href.replace(/\?.*$/, ""));
  if (/ACCESS_REFUSED|403|NOT_ALLOWED|530/.test(text)) {
    return new RefusedError(`The broker ${where} refused the credentials: ${text}`, {
      cause: error,
    });
  }
  if (url.protocol === "amqps:") {
    try {
      const hostname = url.hostname.replace(/^\[|\]$/g, "");
      const probe = await deadline(
        Deno.connectTls({ hostname, port: Number(url.port) || 5671 }),
        10_000,
        where,
      );
      probe.close();
    } catch (tls) {
      // amqplib's own words for a TLS failure are "write UNKNOWN"
      return new Error(`Cannot connect to the broker ${where}: ${errorText(tls)}`);
    }
  }
  return new Error(`Cannot connect to the broker ${where}: ${redact(text)}`);
}
