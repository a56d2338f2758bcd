/**
 * The one clock: waiting with an abort signal, and time that cannot be set back.
 *
 * Tests replace time with @std-style fake timers on the globals (setTimeout, Date); nothing in the
 * product reads time other than through this file.
 * @module
 */

/** Milliseconds since the epoch, by the wall clock; may jump. For records that people read. */
export function wallMs(): number {
  return Date.now();
}

/** Nanoseconds since the epoch, by the wall clock (millisecond grain times the monotonic fraction). */
export function wallNs(): bigint {
  return BigInt(Math.round((performance.timeOrigin + performance.now()) * 1000)) * 1000n;
}

/** Milliseconds that only rise: for timeouts and ages. */
export function monoMs(): number {
  return performance.now();
}

/**
 * Waits.
 *
 * @param ms how long, in milliseconds
 * @param options `signal` ends the wait early with its reason
 */
export function sleep(ms: number, options: { signal?: AbortSignal } = {}): Promise<void> {
  const { signal } = options;
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal!.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", onAbort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", onAbort, { once: true });
  });
}

/** Thrown by {@linkcode deadline} when the time is over. */
export class DeadlineError extends Error {
  /** Tells it apart where the class is not at hand. */
  override name = "DeadlineError";
}

/**
 * Waits for a promise at most `ms` milliseconds.
 *
 * @throws {DeadlineError} if it did not settle in time; `what` names the wait in its message
 */
// deno-lint-ignore house/positional-arguments -- what is awaited, how long, and its name: one sentence
export function deadline<T>(promise: Promise<T>, ms: number, what: string): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(
      () => reject(new DeadlineError(`Gave up waiting for ${what} after ${ms / 1000} s`)),
      ms,
    );
    promise.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}
