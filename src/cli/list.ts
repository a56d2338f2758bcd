/**
 * `endpoint list`.
 * @module
 */
import { computeDir, endpointPaths, EX, readIfThere } from "../base/mod.ts";
import { pidFileAge } from "../endpoint/mod.ts";
import { endpointNames, type Globals, readArguments } from "./globals.ts";

/** Age of a PID file up to which its endpoint counts as running, in milliseconds. */
const FRESH_MS = 30_000;

/** Runs `list`. */
export function listCommand(args: string[], globals: Globals): Promise<number> {
  const { flags } = readArguments(args, { flags: ["--json"], globals });
  const root = computeDir(globals.configDir);
  const rows = endpointNames(root).map((name) => {
    const paths = endpointPaths(`${root}/${name}`);
    const registration = readIfThere(paths.registration);
    const id = registration ? String(JSON.parse(registration).endpoint_id) : null;
    const age = pidFileAge(paths);
    const running = age !== null && age < FRESH_MS
      ? "Running"
      : age !== null
      ? "Disconnected"
      : null;
    return { id, status: running ?? (id ? "Stopped" : "Initialized"), name };
  });
  if (flags.has("--json")) {
    console.log(JSON.stringify(rows, null, 2));
  } else if (rows.length === 0) {
    console.log(`No endpoints in ${root}`);
  } else {
    for (
      const { id, status, name } of [{ id: "Endpoint ID", status: "Status", name: "Name" }, ...rows]
    ) {
      console.log(`${(id ?? "-").padEnd(36)}  ${status.padEnd(12)}  ${name}`);
    }
  }
  return Promise.resolve(EX.ok);
}
