/**
 * Reading and writing the files that belong to one user: private modes, whole or not at all.
 * @module
 */
import { EX, UserError } from "./errors.ts";

/**
 * Writes a file with mode 0600 so that a crash leaves the old or the new one, never half of either.
 * @param options `mode` for files that others may read
 */
export function writePrivate(
  path: string,
  content: string | Uint8Array,
  options: { mode?: number } = {},
): void {
  const { mode = 0o600 } = options;
  const temporary = `${path}.${Deno.pid}.${Math.random().toString(36).slice(2, 8)}.tmp`;
  const bytes = typeof content === "string" ? new TextEncoder().encode(content) : content;
  try {
    const file = Deno.openSync(temporary, { write: true, createNew: true, mode });
    try {
      for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
      file.syncSync();
    } finally {
      file.close();
    }
    Deno.chmodSync(temporary, mode);
    Deno.renameSync(temporary, path);
  } catch (error) {
    try {
      Deno.removeSync(temporary);
    } catch { /* it was never made */ }
    throw error;
  }
}

/** Makes a directory of mode 0700 (and its parents); an existing one is left as it is. */
export function makePrivateDir(path: string): void {
  Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
}

/** Reads a whole file, or gives `undefined` if there is none. Other errors are thrown. */
export function readIfThere(path: string): string | undefined {
  try {
    return Deno.readTextFileSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/**
 * Reads a text file that a user wrote.
 * @param what names the file in errors, "configuration"
 * @param options `maxBytes` bounds what is read, one MiB by default
 * @throws {UserError} if it is missing, unreadable, larger than `maxBytes` or not UTF-8
 */
export function readUserFile(
  path: string,
  what: string,
  options: { maxBytes?: number } = {},
): string {
  const { maxBytes = 1024 * 1024 } = options;
  let bytes: Uint8Array;
  try {
    const { size, isDirectory } = Deno.statSync(path);
    if (isDirectory) {
      throw new UserError(`The ${what} ${path} is a directory`, { exit: EX.noinput });
    }
    if (size > maxBytes) {
      throw new UserError(`The ${what} ${path} holds ${size} bytes; at most ${maxBytes} are read`, {
        exit: EX.dataerr,
        file: path,
      });
    }
    bytes = Deno.readFileSync(path);
  } catch (error) {
    if (error instanceof UserError) throw error;
    const missing = error instanceof Deno.errors.NotFound;
    throw new UserError(
      missing ? `There is no ${what} at ${path}` : `The ${what} ${path} cannot be read`,
      { exit: missing ? EX.noinput : EX.noperm, file: path, cause: missing ? undefined : error },
    );
  }
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new UserError(`The ${what} ${path} is not UTF-8 text`, { exit: EX.dataerr, file: path });
  }
}
