/**
 * One running endpoint a directory, also where login nodes share it: `daemon.pid` for people and tools, `state/lock.json` for us.
 *
 * Held by touching `daemon.pid` every 15 s. Somebody who removes it shuts the endpoint down.
 * @module
 */
import {
  type EndpointPaths,
  EX,
  identityOf,
  isAlive,
  makePrivateDir,
  type ProcessIdentity,
  readIfThere,
  UserError,
  wallMs,
  writePrivate,
} from "../base/mod.ts";

/** Touched this often, in milliseconds. */
export const TOUCH_MS = 15_000;

/** Who runs the endpoint. */
export interface LockContent extends ProcessIdentity {
  /** UUID of the endpoint. */
  endpointId: string | null;
  /** Unix socket for status and commands; only on the same host. */
  controlSocket: string | null;
  /** Milliseconds since the epoch. */
  startedMs: number;
}

/** Age of the PID file in milliseconds; `null` if there is none. */
export function pidFileAge(paths: EndpointPaths): number | null {
  try {
    return wallMs() - (Deno.statSync(paths.pid).mtime?.getTime() ?? 0);
  } catch {
    return null;
  }
}

/** Who holds the lock, as far as its file tells. */
export function readLock(paths: EndpointPaths): LockContent | null {
  try {
    return JSON.parse(readIfThere(`${paths.state}/lock.json`) ?? "null");
  } catch {
    return null;
  }
}

/** The holder if it lives (or may live, on another host). */
export function liveHolder(paths: EndpointPaths, freshMs: number): LockContent | null {
  const holder = readLock(paths);
  const age = pidFileAge(paths);
  if (!holder || age === null) return null;
  const alive = isAlive(holder);
  return alive || (alive === undefined && age < freshMs) ? holder : null;
}

/** The lock on an endpoint's directory. */
export class EndpointLock {
  readonly #paths: EndpointPaths;
  #content: LockContent;
  #timer?: number;

  private constructor(paths: EndpointPaths, content: LockContent) {
    this.#paths = paths;
    this.#content = content;
  }

  /**
   * Takes the lock. @param options `freshMs`: age of the PID file below which a holder on another host counts as living
   * @throws {UserError} exit 73 if another instance runs
   */
  static take(paths: EndpointPaths, options: { freshMs: number }): EndpointLock {
    makePrivateDir(paths.state);
    const holder = liveHolder(paths, options.freshMs);
    if (holder && holder.pid !== Deno.pid) {
      throw new UserError(
        `Another instance of this endpoint runs on ${holder.host} (process ${holder.pid})`,
        { exit: EX.cantcreat, file: paths.pid, hint: "`endpoint stop` ends it" },
      );
    }
    const content: LockContent = {
      ...identityOf()!,
      endpointId: null,
      controlSocket: null,
      startedMs: wallMs(),
    };
    const lock = new EndpointLock(paths, content);
    lock.update({});
    writePrivate(paths.pid, `${Deno.pid}\n`);
    return lock;
  }

  /** Writes more into the lock file. */
  update(more: Partial<LockContent>): void {
    this.#content = { ...this.#content, ...more };
    writePrivate(`${this.#paths.state}/lock.json`, JSON.stringify(this.#content));
  }

  /** Touches the PID file from now on. @param onLost called if it was removed, or another took it */
  keep(onLost: (why: string) => void, onTouch: () => void): void {
    this.#timer = setInterval(() => {
      const holder = readIfThere(this.#paths.pid)?.trim();
      if (holder !== String(Deno.pid)) {
        clearInterval(this.#timer);
        return onLost(
          holder === undefined ? "its PID file was removed" : "another instance took over",
        );
      }
      const now = new Date();
      try {
        Deno.utimeSync(this.#paths.pid, now, now);
      } catch { /* told at the next turn, if it is gone */ }
      onTouch();
    }, TOUCH_MS);
  }

  /** Gives the lock back. */
  release(): void {
    clearInterval(this.#timer);
    if (readIfThere(this.#paths.pid)?.trim() !== String(Deno.pid)) return;
    for (const path of [this.#paths.pid, `${this.#paths.state}/lock.json`]) {
      try {
        Deno.removeSync(path);
      } catch { /* gone */ }
    }
  }
}
