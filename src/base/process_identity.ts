/**
 * Telling one process from a later one with the same number: pid, start time, boot id, host.
 * @module
 */

/** Names one process on one host for as long as the host is up. */
export interface ProcessIdentity {
  /** Name of the host. */
  host: string;
  /** `/proc/sys/kernel/random/boot_id`. */
  bootId: string;
  /** Number of the process. */
  pid: number;
  /** Field 22 of `/proc/<pid>/stat`: clock ticks since boot. */
  startTime: string;
}

/** The boot id of this host; empty where /proc has none. */
export function bootId(): string {
  try {
    return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
  } catch {
    return "";
  }
}

/** The start time of a process, or `undefined` if there is none with this number (zombies do not count). */
export function startTimeOf(pid: number): string | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return fields[0] === "Z" || fields[0] === "X" ? undefined : fields[19];
  } catch {
    return undefined;
  }
}

/** The identity of a process of this host. @default this process */
export function identityOf(pid: number = Deno.pid): ProcessIdentity | undefined {
  const startTime = startTimeOf(pid);
  if (startTime === undefined) return undefined;
  return { host: Deno.hostname(), bootId: bootId(), pid, startTime };
}

/** Whether the process lives; `undefined` if it belongs to another host and cannot be asked. */
export function isAlive(identity: ProcessIdentity): boolean | undefined {
  if (identity.bootId === bootId()) return startTimeOf(identity.pid) === identity.startTime;
  return identity.host === Deno.hostname() ? false : undefined;
}
