/**
 * The one runner of other programs: argument lists only, a session of their own, bounded output,
 * a time limit that ends the whole process group.
 *
 * The child gets its own session (Deno's `detached`), so that TERM and KILL reach its grandchildren. The end is
 * the exit of the child, not of the pipe: a grandchild that keeps the pipe open does not keep us waiting.
 * @module
 */
import { sleep } from "./clock.ts";

/** How a program is run. */
export interface RunOptions {
  /** Written to standard input, which is then closed. @default nothing (/dev/null) */
  stdin?: string | Uint8Array;
  /** The whole environment; nothing is inherited when given. */
  env?: Record<string, string>;
  /** Working directory. @default that of this process */
  cwd?: string;
  /** TERM to the group after so many milliseconds, KILL two seconds later. @default 60_000 */
  timeoutMs?: number;
  /** Bytes kept of each of the two outputs (the first half and the last). @default 1 MiB */
  maxOutput?: number;
  /** Ends the program as the time limit does. */
  signal?: AbortSignal;
}

/** What became of a program. */
export interface RunResult {
  /** Exit code; 128 + signal number if a signal ended it. */
  code: number;
  /** Name of the signal that ended it. */
  signal: string | null;
  /** What it wrote to standard output, as far as it was kept. */
  stdout: string;
  /** What it wrote to standard error, as far as it was kept. */
  stderr: string;
  /** Whether more was written than `maxOutput` allows. */
  truncated: boolean;
  /** Whether the time limit ended it. */
  timedOut: boolean;
}

/** Sends a signal to the process group `pid`; false if it is gone. */
export function signalGroup(pid: number, signal: Deno.Signal): boolean {
  try {
    Deno.kill(-pid, signal);
    return true;
  } catch {
    return false;
  }
}

/**
 * Runs a program to its end.
 *
 * @param argv the program and its arguments; never a shell string built from input
 * @throws {Deno.errors.NotFound} if there is no such program
 */
export async function run(argv: string[], options: RunOptions = {}): Promise<RunResult> {
  const { timeoutMs = 60_000, maxOutput = 1024 * 1024, signal } = options;
  signal?.throwIfAborted();
  const child = new Deno.Command(argv[0]!, {
    args: argv.slice(1),
    cwd: options.cwd,
    env: options.env,
    clearEnv: options.env !== undefined,
    stdin: options.stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
    detached: true, // its own session, hence its own process group
  }).spawn();
  let timedOut = false;
  let ended = false;
  let killer: ReturnType<typeof setTimeout> | undefined;
  const end = () => {
    if (ended || killer) return;
    signalGroup(child.pid, "SIGTERM");
    killer = setTimeout(() => signalGroup(child.pid, "SIGKILL"), 2000);
  };
  const onAbort = () => end();
  signal?.addEventListener("abort", onAbort, { once: true });
  const timer = setTimeout(() => {
    timedOut = true;
    end();
  }, timeoutMs);
  const stdout = collect(child.stdout, maxOutput);
  const stderr = collect(child.stderr, maxOutput);
  try {
    if (options.stdin !== undefined) void feed(child.stdin, options.stdin);
    const status = await child.status;
    ended = true;
    // what the program itself wrote is in the pipe already; a grandchild may hold it open
    const enough = new AbortController();
    const pause = sleep(100, { signal: enough.signal }).catch(() => {});
    await Promise.race([Promise.all([stdout.done, stderr.done]), pause]);
    enough.abort();
    return {
      code: status.code,
      signal: status.signal,
      stdout: stdout.text(),
      stderr: stderr.text(),
      truncated: stdout.truncated() || stderr.truncated(),
      timedOut,
    };
  } finally {
    clearTimeout(timer);
    clearTimeout(killer);
    signal?.removeEventListener("abort", onAbort);
    await Promise.all([stdout.cancel(), stderr.cancel()]);
    if (timedOut || signal?.aborted) signalGroup(child.pid, "SIGKILL");
  }
}

async function feed(stdin: WritableStream<Uint8Array>, input: string | Uint8Array): Promise<void> {
  const writer = stdin.getWriter();
  try {
    await writer.write(typeof input === "string" ? new TextEncoder().encode(input) : input);
    await writer.close();
  } catch {
    // it may end without reading its input
  }
}

/** Reads a stream and keeps the first and the last half of `max` bytes. */
function collect(stream: ReadableStream<Uint8Array>, max: number) {
  const reader = stream.getReader();
  const head: Uint8Array[] = [];
  let headSize = 0;
  let tail: Uint8Array[] = [];
  let tailSize = 0;
  let dropped = 0;
  const half = Math.ceil(max / 2);
  const take = (chunk: Uint8Array) => {
    if (headSize < half) {
      const part = chunk.subarray(0, half - headSize);
      head.push(part);
      headSize += part.length;
      chunk = chunk.subarray(part.length);
    }
    if (chunk.length === 0) return;
    tail.push(chunk);
    tailSize += chunk.length;
    while (tail.length > 1 && tailSize - tail[0]!.length >= half) {
      const gone = tail[0]!.length;
      tail = tail.slice(1);
      tailSize -= gone;
      dropped += gone;
    }
    if (tailSize > 2 * half) {
      const last = tail[tail.length - 1]!;
      dropped += last.length - half;
      tail = [last.subarray(last.length - half)];
      tailSize = half;
    }
  };
  const done = (async () => {
    try {
      for (;;) {
        const { value, done } = await reader.read();
        if (done) return;
        take(value);
      }
    } catch { /* cancelled */ }
  })();
  return {
    done,
    truncated: () => dropped > 0,
    cancel: () => reader.cancel().catch(() => {}),
    text: () => {
      const decode = (parts: Uint8Array[]) => new TextDecoder().decode(concat(parts));
      return dropped > 0
        ? `${decode(head)}\n[... ${dropped} bytes left out ...]\n${decode(tail)}`
        : decode([...head, ...tail]);
    },
  };
}

/** Joins byte arrays. */
export function concat(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
