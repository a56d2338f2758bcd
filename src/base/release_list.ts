/**
 * What has to be given back at the end, in the reverse of the order it was taken.
 * @module
 */
import { errorText } from "./errors.ts";
import { deadline } from "./clock.ts";
import type { Logger } from "./log.ts";

/** A last-in-first-out list of cleanup steps; each is bounded in time and none hides another. */
export class ReleaseList {
  readonly #steps: { name: string; release: () => unknown; limitMs: number }[] = [];
  readonly #log: Logger;
  #done?: Promise<void>;

  /** @param log told of steps that fail or take too long */
  /** Makes it; nothing happens before its first call. */
  constructor(log: Logger) {
    this.#log = log;
  }

  /** Adds a step. `limitMs` bounds it. @default 10_000 */
  add(name: string, release: () => unknown, limitMs = 10_000): void {
    this.#steps.push({ name, release, limitMs });
  }

  /** Runs all steps, last added first; a repeat call gives the same promise. Never rejects. */
  release(): Promise<void> {
    return this.#done ??= this.#run();
  }

  async #run(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await deadline(Promise.resolve(step.release()), step.limitMs, step.name);
      } catch (error) {
        this.#log.warn("A part could not be closed cleanly", {
          part: step.name,
          error: errorText(error),
        });
      }
    }
  }
}
