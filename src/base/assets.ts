/**
 * Files that travel inside the executable: nats-server, the Python worker, a dill wheel, templates.
 *
 * In a source tree they are read from the tree (nats-server and the wheel from `.tools/assets`, where `./dev` puts
 * them); in a compiled program from its embedded file system.
 * @module
 */
import { Buffer } from "node:buffer";
import { EX, UserError } from "./errors.ts";
import { makePrivateDir } from "./files.ts";

/**
 * Folder that holds `src/worker`, `templates` and `.tools/assets`: two above this file, and two above the bundle that
 * `./dev compile` makes of it (`.tools/bundle`), in the tree as in the compiled program's own file system.
 */
const ROOT = new URL("../../", import.meta.url);

/** Reads an embedded file. `name` is relative to the project, `src/worker/worker.py`. */
export function readAsset(name: string): Uint8Array<ArrayBuffer> {
  return Deno.readFileSync(new URL(name, ROOT));
}

/** Names of the files in an embedded folder, sorted; none if there is no such folder. */
export function listAssets(folder: string): string[] {
  try {
    return [...Deno.readDirSync(new URL(`${folder}/`, ROOT))]
      .filter((entry) => entry.isFile).map((entry) => entry.name).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/**
 * Puts an embedded file on disk so that it can be executed or read by others, under a name that carries its
 * content's hash; an existing copy is used again.
 *
 * @returns the path
 * @throws {UserError} if the folder cannot be written
 */
export async function extractAsset(
  name: string,
  options: { dir: string; mode?: number },
): Promise<string> {
  const bytes = readAsset(name);
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hash = [...digest.subarray(0, 6)].map((b) => b.toString(16).padStart(2, "0")).join("");
  const path = `${options.dir}/${name.slice(name.lastIndexOf("/") + 1)}-${hash}`;
  if (holds(path, bytes)) return path;
  try {
    makePrivateDir(options.dir);
    // a name of its own, then rename: whoever runs the old copy never meets ETXTBSY
    const temporary = `${path}.${crypto.randomUUID().slice(0, 8)}`;
    const file = Deno.openSync(temporary, {
      write: true,
      createNew: true,
      mode: options.mode ?? 0o600,
    });
    try {
      for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
      file.syncSync();
    } finally {
      file.close();
    }
    Deno.renameSync(temporary, path);
  } catch (error) {
    throw new UserError(`Cannot put ${name} into ${options.dir}`, {
      exit: EX.cantcreat,
      cause: error,
    });
  }
  return path;
}

/** Whether a file holds exactly these bytes. A copy that a full disk or a crash damaged is written again. */
function holds(path: string, bytes: Uint8Array): boolean {
  try {
    using file = Deno.openSync(path);
    if (file.statSync().size !== bytes.length) return false;
    const chunk = Buffer.alloc(Math.min(bytes.length, 1024 * 1024));
    for (let at = 0; at < bytes.length;) {
      const read = file.readSync(chunk) ?? 0;
      if (read === 0 || chunk.compare(bytes, at, at + read, 0, read) !== 0) return false;
      at += read;
    }
    return true;
  } catch {
    return false;
  }
}

/** Path of an executable nats-server: `EP_NATS_SERVER`, else the embedded one, extracted into `dir`. */
export function natsServerPath(dir: string): Promise<string> {
  const named = Deno.env.get("EP_NATS_SERVER");
  if (named) return Promise.resolve(named);
  return extractAsset(".tools/assets/nats-server", { dir, mode: 0o700 });
}

/** Puts the Python worker files and the dill wheel into `dir` and gives the folder that holds them. */
export async function extractWorker(dir: string): Promise<string> {
  const files = new Map<string, Uint8Array<ArrayBuffer>>();
  for (const name of listAssets("src/worker")) {
    if (name.endsWith(".py")) files.set(name, readAsset(`src/worker/${name}`));
  }
  for (const name of listAssets(".tools/assets")) {
    if (name.endsWith(".whl")) files.set(name, readAsset(`.tools/assets/${name}`));
  }
  let all = "";
  for (const [name, bytes] of files) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
    all += name + [...digest].join(",");
  }
  const sum = new Uint8Array(
    await crypto.subtle.digest("SHA-256", new TextEncoder().encode(all)),
  );
  const hash = [...sum.subarray(0, 6)].map((b) => b.toString(16).padStart(2, "0")).join("");
  const target = `${dir}/worker-${hash}`;
  try {
    Deno.statSync(`${target}/.complete`);
    return target;
  } catch { /* not there yet */ }
  try {
    makePrivateDir(target);
    for (const [name, bytes] of files) Deno.writeFileSync(`${target}/${name}`, bytes);
    Deno.writeTextFileSync(`${target}/.complete`, "");
  } catch (error) {
    throw new UserError(`Cannot put the worker's files into ${dir}`, {
      exit: EX.cantcreat,
      cause: error,
    });
  }
  return target;
}
