/**
 * `endpoint start`: in the foreground, or detached with an exit code that tells whether it really runs.
 * @module
 */
import {
  deadline,
  type EndpointPaths,
  errorText,
  EX,
  fileSink,
  Logger,
  makePrivateDir,
  readIfThere,
  selfCommand,
  type Sink,
  stderrSink,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import { loadUserConfig } from "../config/mod.ts";
import { Endpoint } from "../endpoint/mod.ts";
import { serveControl } from "./control.ts";
import { findEndpoint, type Globals, readArguments } from "./globals.ts";

/** How long a detached start may take before it is reported as hanging. */
const DETACH_LIMIT_MS = 180_000;
/** Set for the detached process: where it writes how its start went. */
const OUTCOME_VARIABLE = "EP_START_OUTCOME";

interface Outcome {
  endpointId?: string;
  error?: string;
  hint?: string;
  exit?: number;
}

/** Runs `start`. */
export async function startCommand(args: string[], globals: Globals): Promise<number> {
  const { positional, flags, values } = readArguments(args, {
    flags: ["--detach"],
    values: ["--endpoint-uuid"],
    globals,
  });
  const { name, paths } = findEndpoint(positional[0], globals);
  if (flags.has("--detach")) {
    const rest = args.filter((arg) => arg !== "--detach");
    return await detach(paths, [
      ...(globals.configDir ? ["-c", globals.configDir] : []),
      "start",
      ...rest,
    ]);
  }
  const outcomeFile = Deno.env.get(OUTCOME_VARIABLE);
  Deno.env.delete(OUTCOME_VARIABLE);
  const tell = (outcome: Outcome) =>
    outcomeFile && writePrivate(outcomeFile, JSON.stringify(outcome));
  try {
    const uuid = values.get("--endpoint-uuid") ?? null;
    return await run({ name, paths, uuid, globals, detached: outcomeFile !== undefined, tell });
  } catch (error) {
    const user = error instanceof UserError ? error : undefined;
    tell({ error: errorText(error), hint: user?.hint, exit: user?.exit ?? EX.software });
    throw error;
  }
}

async function run(options: {
  name: string;
  paths: EndpointPaths;
  uuid: string | null;
  globals: Globals;
  detached: boolean;
  tell(outcome: Outcome): void;
}): Promise<number> {
  const { name, paths, uuid, globals, detached, tell } = options;
  const config = loadUserConfig(paths.dir);
  makePrivateDir(paths.state);
  const file = fileSink(paths.log);
  const sink = globals.logToConsole && !detached ? both(file, stderrSink()) : file;
  const level = config.debug || globals.debug ? "debug" : "info";
  const log = new Logger({ sink, level });
  const endpoint = new Endpoint({ name, paths, config, endpointUuid: uuid, log });
  await endpoint.start();
  await serveControl(endpoint);
  onSignals(endpoint);
  console.log(`Endpoint UUID: ${endpoint.id}`);
  console.log(`The endpoint is ready for tasks; its log is ${paths.log}`);
  tell({ endpointId: endpoint.id });
  const { code, why } = await endpoint.ended;
  console.log(`Stopped: ${why}`);
  return code;
}

/** TERM and HUP leave blocks to the next start; Ctrl-C at a terminal ends them. */
function onSignals(endpoint: Endpoint): void {
  for (const signal of ["SIGTERM", "SIGHUP", "SIGQUIT"] as const) {
    Deno.addSignalListener(signal, () => {
      void endpoint.stop({ why: `${signal} was received`, endBlocks: false });
    });
  }
  let interrupts = 0;
  Deno.addSignalListener("SIGINT", () => {
    if (++interrupts > 1) Deno.exit(130);
    void endpoint.stop({ why: "it was interrupted (Ctrl-C)", endBlocks: true });
  });
}

async function detach(paths: EndpointPaths, args: string[]): Promise<number> {
  makePrivateDir(paths.state);
  const outcomeFile = `${paths.state}/start-outcome.json`;
  try {
    Deno.removeSync(outcomeFile);
  } catch { /* there was none */ }
  const watcher = Deno.watchFs(paths.state);
  const [command, ...rest] = selfCommand(...args);
  const child = new Deno.Command(command!, {
    args: rest,
    env: { [OUTCOME_VARIABLE]: outcomeFile },
    stdin: "null",
    stdout: "null",
    stderr: "null",
    detached: true,
  }).spawn();
  child.unref();
  const written = (async () => {
    for await (const _ of watcher) {
      if (readIfThere(outcomeFile) !== undefined) return;
    }
  })();
  try {
    await deadline(Promise.race([written, child.status]), DETACH_LIMIT_MS, "the endpoint to start");
  } finally {
    try {
      watcher.close();
    } catch { /* the loop over it has ended, which closes it */ }
  }
  const outcome = JSON.parse(readIfThere(outcomeFile) ?? "{}") as Outcome;
  if (outcome.endpointId) {
    console.log(`Endpoint UUID: ${outcome.endpointId}`);
    return EX.ok;
  }
  throw new UserError(outcome.error ?? "The endpoint ended before it was ready", {
    exit: outcome.exit ?? EX.software,
    hint: outcome.hint ?? `Its log: ${paths.log}`,
  });
}

function both(first: Sink, second: Sink): Sink {
  return {
    write: (line) => {
      first.write(line);
      second.write(line);
    },
    close: () => {
      first.close();
      second.close();
    },
  };
}
