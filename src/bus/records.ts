/**
 * What is written into the streams beside task and result bodies.
 * @module
 */
import { headers, type Msg, type MsgHdrs } from "nats";
import type { TaskDelivery } from "./types.ts";

/** Headers of a stored task. Short names: they are stored with every task. */
const H = {
  function: "Fn",
  specification: "Spec",
  serializers: "Ser",
  received: "Rx",
  stored: "Tx",
} as const;

/** What the endpoint knows of a task from AMQP's headers. */
export interface TaskMeta {
  /** UUID of the function. */
  functionId: string;
  /** JSON text, as the submitter gave it. */
  resourceSpecification: string | null;
  /** Import paths of serializers for the result, in order. */
  resultSerializers: string[] | null;
  /** Nanoseconds since the epoch. */
  receivedNs: number;
}

/** Headers for a stored task. */
export function taskHeaders(meta: TaskMeta): MsgHdrs {
  const h = headers();
  h.set(H.function, meta.functionId);
  h.set(H.received, String(meta.receivedNs));
  if (meta.resourceSpecification !== null) {
    // a header is one line; the text is the submitter's
    h.set(H.specification, encodeURIComponent(meta.resourceSpecification));
  }
  if (meta.resultSerializers !== null) {
    h.set(H.serializers, encodeURIComponent(JSON.stringify(meta.resultSerializers)));
  }
  return h;
}

/** Reads a delivered task. */
export function readTask(message: Msg, taskId: string): TaskDelivery {
  const h = message.headers;
  const specification = h?.get(H.specification);
  const serializers = h?.get(H.serializers);
  // $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
  const parts = message.reply!.split(".");
  const at = parts.length > 9 ? 2 : 0; // newer servers put domain and account before the stream
  return {
    taskId,
    functionId: h?.get(H.function) ?? "",
    body: message.data,
    resourceSpecification: specification ? decodeURIComponent(specification) : null,
    resultSerializers: serializers ? JSON.parse(decodeURIComponent(serializers)) : null,
    seq: Number(parts[5 + at]),
    storedNs: Number(parts[7 + at]),
    receivedNs: Number(h?.get(H.received) ?? 0),
  };
}

/** Stream sequence and consumer sequence of a delivered message. */
export function sequencesOf(message: Msg): { seq: number; consumerSeq: number } {
  const parts = message.reply!.split(".");
  const at = parts.length > 9 ? 2 : 0;
  return { seq: Number(parts[5 + at]), consumerSeq: Number(parts[6 + at]) };
}

/** Who began a task; or, `released`, that the endpoint allows another attempt. */
export interface StartRecord {
  /** Manager id; empty in a release record. */
  manager: string;
  /** Hex SHA-256 of the manager's session secret. */
  secretHash: string;
  /** From 1. In a release record the number of attempts that are over. */
  attempt: number;
  /** Sequence in TASKS. */
  taskSeq: number;
  /** Index of the worker slot. */
  worker: number;
  /** Tells one `begin` of a manager from another: the same task may be delivered to it twice. */
  nonce: number;
  /** Milliseconds since the epoch. */
  atMs: number;
  /** Whether this allows another attempt instead of telling of one. */
  released: boolean;
}

const encoder = new TextEncoder();

/** Packs a start record. */
export function encodeStart(record: StartRecord): Uint8Array {
  const { manager, secretHash, attempt, taskSeq, worker, nonce, atMs, released } = record;
  return encoder.encode(
    JSON.stringify([released ? 1 : 0, attempt, taskSeq, worker, nonce, atMs, manager, secretHash]),
  );
}

/** Unpacks a start record. @throws {SyntaxError} if it is none */
export function decodeStart(text: string): StartRecord {
  const parts = JSON.parse(text) as unknown[];
  const [released, attempt, taskSeq, worker, nonce, atMs, manager, secretHash] = parts;
  const numbers = [released, attempt, taskSeq, worker, nonce, atMs];
  if (
    !Array.isArray(parts) || !numbers.every((n) => Number.isSafeInteger(n)) ||
    typeof manager !== "string" || typeof secretHash !== "string"
  ) {
    throw new SyntaxError("Cannot read start record");
  }
  return {
    released: released === 1,
    attempt: attempt as number,
    taskSeq: taskSeq as number,
    worker: worker as number,
    nonce: nonce as number,
    atMs: atMs as number,
    manager,
    secretHash,
  };
}

/** Headers of a manager's result. */
const R = {
  secret: "Key",
  attempt: "Try",
  failure: "Sys",
  expected: "Nats-Expected-Last-Subject-Sequence",
};

/** Headers for a result: what proves that its sender began the task. */
export function resultHeaders(
  options: { secret: string; attempt: number; systemFailure?: string },
): MsgHdrs {
  const h = headers();
  h.set(R.expected, "0");
  h.set(R.secret, options.secret);
  h.set(R.attempt, String(options.attempt));
  if (options.systemFailure) h.set(R.failure, encodeURIComponent(options.systemFailure));
  return h;
}

/** Reads the headers of a result. */
export function readResultHeaders(
  message: Msg,
): { secret: string; attempt: number; systemFailure: string | null } {
  const h = message.headers;
  const failure = h?.get(R.failure);
  return {
    secret: h?.get(R.secret) ?? "",
    attempt: Number(h?.get(R.attempt) ?? 0),
    systemFailure: failure ? decodeURIComponent(failure) : null,
  };
}

/** Hex SHA-256 of a session secret. */
export async function hashSecret(secret: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", encoder.encode(secret));
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
