/**
 * Messages between the Compute service and endpoints: a version byte, then JSON (protocol.md section 3).
 * @module
 */

/** The version byte that precedes every body. */
export const VERSION_BYTE = 0x01;

/** `{"message_type":"task"}`. */
export interface TaskMessage {
  /** UUID of the task. */
  task_id: string;
  /** Packed function, arguments and keyword arguments. */
  task_buffer: string;
  /** Not used here. */
  container_id?: string | null;
  /** Not used here. */
  container?: unknown;
}

/** One step in the life of a task. */
export interface TaskTransition {
  /** Nanoseconds since the epoch. */
  timestamp: number;
  /** What it does now. */
  state: string;
  /** Who reports it. */
  actor: string;
}

/** `{"message_type":"result"}`. */
export interface ResultMessage {
  /** UUID of the task. */
  task_id: string;
  /** Serialized value, or the error's text. */
  data: string;
  /** Present means failure. */
  error_details?: { code: string; user_message: string } | null;
  /** Facts for the result's details. */
  details?: Record<string, unknown> | null;
  /** Transitions of tasks. */
  task_statuses?: TaskTransition[] | null;
}

/** `{"message_type":"ep_status_report"}`. */
export interface StatusReport {
  /** UUID of the endpoint. */
  endpoint_id: string;
  /** How the endpoint stands (protocol.md section 6). */
  global_state: Record<string, unknown>;
  /** Transitions of tasks. */
  task_statuses: Record<string, TaskTransition[]>;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Packs a message: version byte, then JSON without a newline. */
export function encodeMessage(type: string, data: unknown): Uint8Array<ArrayBuffer> {
  const json = encoder.encode(JSON.stringify({ message_type: type, data }));
  const body = new Uint8Array(json.length + 1);
  body[0] = VERSION_BYTE;
  body.set(json, 1);
  return body;
}

/** A body that cannot be read as a message; `code` tells why. */
export class MessageError extends Error {
  /** Tells this class from others where `instanceof` cannot. */
  override name = "MessageError";
  /** Error code of the result. */
  readonly code: "version" | "json" | "shape";

  /** Makes it; nothing happens before its first call. */
  constructor(code: "version" | "json" | "shape", message: string, cause?: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

/** Unpacks a message. @throws {MessageError} */
export function decodeMessage(
  body: Uint8Array,
): { type: string; data: Record<string, unknown> } {
  if (body[0] !== VERSION_BYTE) {
    throw new MessageError(
      "version",
      body.length === 0
        ? "Cannot read message: it is empty"
        : `Cannot read message: version byte ${body[0]} is not supported, 1 is`,
    );
  }
  let json: unknown;
  try {
    json = JSON.parse(decoder.decode(body.subarray(1)));
  } catch (error) {
    throw new MessageError("json", "Cannot read message: its body is no JSON", error);
  }
  const { message_type: type, data } = (json ?? {}) as Record<string, unknown>;
  if (typeof type !== "string" || typeof data !== "object" || data === null) {
    throw new MessageError("shape", 'Cannot read message: "message_type" or "data" is missing');
  }
  return { type, data: data as Record<string, unknown> };
}
