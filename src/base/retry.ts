/**
 * The one way to try again: exponential waits with full jitter, bounded, ended by a signal.
 * @module
 */
import { sleep } from "./clock.ts";

/** How long to wait between attempts. */
export interface RetryOptions {
  /** First wait, in milliseconds. @default 500 */
  minMs?: number;
  /** Longest wait, in milliseconds. @default 10_000 */
  maxMs?: number;
  /** Attempts before the last error is thrown. @default Infinity */
  attempts?: number;
  /** Ends the waiting. */
  signal?: AbortSignal;
  /** False for an error that another attempt cannot mend; it is thrown at once. @default always true */
  retryable?: (error: unknown) => boolean;
  /** Told of each failed attempt before the wait. */
  onRetry?: (error: unknown, attempt: number, waitMs: number) => void;
}

/** The wait before attempt `attempt + 1` (attempts count from 1): half fixed, half random. */
export function backoffMs(attempt: number, options: RetryOptions = {}): number {
  const { minMs = 500, maxMs = 10_000 } = options;
  const top = Math.min(maxMs, minMs * 2 ** Math.min(attempt - 1, 30));
  return top / 2 + Math.random() * top / 2;
}

/** Calls `fn` until it succeeds. */
export async function retry<T>(
  fn: (attempt: number) => Promise<T>,
  options: RetryOptions = {},
): Promise<T> {
  const { attempts = Infinity, signal, retryable = () => true, onRetry } = options;
  for (let attempt = 1;; attempt++) {
    signal?.throwIfAborted();
    try {
      return await fn(attempt);
    } catch (error) {
      if (attempt >= attempts || !retryable(error) || signal?.aborted) throw error;
      const waitMs = backoffMs(attempt, options);
      onRetry?.(error, attempt, waitMs);
      await sleep(waitMs, { signal });
    }
  }
}
