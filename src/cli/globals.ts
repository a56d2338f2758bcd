/**
 * Options before the command, and what a command's own arguments mean.
 * @module
 */
import {
  computeDir,
  type EndpointPaths,
  endpointPaths,
  EX,
  expandPath,
  readIfThere,
  UserError,
} from "../base/mod.ts";

/** Options that precede the command. */
export interface Globals {
  configDir: string | undefined;
  debug: boolean;
  logToConsole: boolean;
}

/** A command's arguments, told apart. */
export interface Arguments {
  positional: string[];
  flags: Set<string>;
  values: Map<string, string>;
}

/**
 * Tells arguments apart.
 * @param known `flags` stand alone, `values` take one @throws {UserError} exit 2
 */
export function readArguments(
  args: string[],
  known: { flags?: string[]; values?: string[]; globals: Globals },
): Arguments {
  const found: Arguments = { positional: [], flags: new Set(), values: new Map() };
  for (let at = 0; at < args.length; at++) {
    const [name, inline] = args[at]!.startsWith("--") ? split(args[at]!) : [args[at]!, undefined];
    if (name === "--debug") known.globals.debug = true;
    else if (name === "--log-to-console") known.globals.logToConsole = true;
    else if (name === "--no-color") continue;
    else if (known.flags?.includes(name)) found.flags.add(name);
    else if (known.values?.includes(name)) {
      const value = inline ?? args[++at];
      if (value === undefined) throw new UserError(`${name} needs a value`, { exit: 2 });
      found.values.set(name, value);
    } else if (name.startsWith("-")) {
      const options = [...known.flags ?? [], ...known.values ?? []].join(", ") || "none";
      throw new UserError(`The option ${name} is not known here`, {
        exit: 2,
        hint: `Known: ${options}`,
      });
    } else found.positional.push(name);
  }
  return found;
}

function split(arg: string): [string, string | undefined] {
  const at = arg.indexOf("=");
  return at < 0 ? [arg, undefined] : [arg.slice(0, at), arg.slice(at + 1)];
}

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** @throws {UserError} if it is no name for an endpoint (protocol.md section 11) */
export function requireName(name: string): void {
  // deno-lint-ignore no-control-regex
  const wrong = /[\s\/\\'"\x00-\x1f]/.test(name) || name.startsWith(".") || name.startsWith("-") ||
    name.includes("..") || name.length < 1 || name.length > 128 || UUID.test(name);
  if (!wrong) return;
  throw new UserError(`"${name}" cannot be the name of an endpoint`, {
    exit: 2,
    hint: "1 to 128 characters without blanks, quotes, slashes, a leading dot or dash, and no UUID",
  });
}

/** Directory and name of the endpoint that a name or UUID means. @throws {UserError} if there is none */
export function findEndpoint(
  nameOrId: string | undefined,
  globals: Globals,
): { name: string; paths: EndpointPaths } {
  const fixed = Deno.env.get("GLOBUS_COMPUTE_ENDPOINT_DIR");
  if (fixed) {
    const dir = expandPath(fixed);
    return { name: nameOrId ?? dir.split("/").pop()!, paths: endpointPaths(dir) };
  }
  const root = computeDir(globals.configDir);
  const name = nameOrId ?? "default";
  if (UUID.test(name)) {
    for (const found of endpointNames(root)) {
      const paths = endpointPaths(`${root}/${found}`);
      if ((readIfThere(paths.registration) ?? "").includes(name.toLowerCase())) {
        return { name: found, paths };
      }
    }
    throw new UserError(`No endpoint in ${root} has the id ${name}`, { exit: EX.failure });
  }
  requireName(name);
  const paths = endpointPaths(`${root}/${name}`);
  if (!isDirectory(paths.dir)) {
    throw new UserError(`There is no endpoint named ${name} in ${root}`, {
      exit: EX.failure,
      hint: `\`endpoint configure ${name}\` makes it`,
    });
  }
  return { name, paths };
}

/** Names of the endpoints in a compute directory. */
export function endpointNames(root: string): string[] {
  try {
    return [...Deno.readDirSync(root)]
      .filter((entry) => entry.isDirectory && !entry.name.startsWith("uep."))
      .map((entry) => entry.name)
      .filter((name) => readIfThere(`${root}/${name}/config.yaml`) !== undefined)
      .sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Whether there is a directory at `path`. */
export function isDirectory(path: string): boolean {
  try {
    return Deno.statSync(path).isDirectory;
  } catch {
    return false;
  }
}
