/**
 * Frames between a manager and its workers (src/worker/README.md): lengths, a JSON header, a body that is never parsed here.
 * @module
 */

/** One frame. */
export interface Frame {
  header: Record<string, unknown>;
  body: Uint8Array;
}

const encoder = new TextEncoder();
const decoder = new TextDecoder();
/** A header or body beyond this is no frame of ours. */
const MAX_HEADER = 1024 * 1024;
const MAX_BODY = 1024 * 1024 * 1024;

/** Packs a frame into one piece, so that it leaves with one call. */
export function encodeFrame(header: unknown, body: Uint8Array): Uint8Array {
  const head = encoder.encode(JSON.stringify(header));
  const frame = new Uint8Array(8 + head.length + body.length);
  const view = new DataView(frame.buffer);
  view.setUint32(0, head.length);
  view.setUint32(4, body.length);
  frame.set(head, 8);
  frame.set(body, 8 + head.length);
  return frame;
}

/** Writes all of `bytes`. */
export async function writeAll(connection: Deno.Conn, bytes: Uint8Array): Promise<void> {
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
}

/** Reads frames until the connection ends. Bodies are views into memory that is not used again. */
export async function* readFrames(connection: Deno.Conn): AsyncGenerator<Frame> {
  let buffer = new Uint8Array(64 * 1024);
  let start = 0;
  let end = 0;
  for (;;) {
    let need = 8;
    while (end - start >= need) {
      const view = new DataView(buffer.buffer, start);
      const headSize = view.getUint32(0);
      const bodySize = view.getUint32(4);
      if (headSize > MAX_HEADER || bodySize > MAX_BODY) {
        throw new Error("What a worker sent is no frame");
      }
      need = 8 + headSize + bodySize;
      if (end - start < need) break;
      const header = JSON.parse(decoder.decode(buffer.subarray(start + 8, start + 8 + headSize)));
      const body = buffer.subarray(start + 8 + headSize, start + need);
      start += need;
      yield { header, body };
      need = 8;
    }
    // bodies that were handed out are views: what is left moves to fresh memory instead of over them
    if (buffer.length - end < 4096 || need > buffer.length - start) {
      const fresh = new Uint8Array(Math.max(64 * 1024, need + 4096));
      fresh.set(buffer.subarray(start, end));
      end -= start;
      start = 0;
      buffer = fresh;
    }
    const count = await connection.read(buffer.subarray(end));
    if (count === null) return;
    end += count;
  }
}
