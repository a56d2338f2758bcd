/**
 * `endpoint stop` and `endpoint restart`.
 * @module
 */
import { EX, isAlive, monoMs, signalGroup, sleep, UserError, writePrivate } from "../base/mod.ts";
import { liveHolder, type LockContent, TOUCH_MS } from "../endpoint/mod.ts";
import { askStop } from "./control.ts";
import { findEndpoint, type Globals, readArguments } from "./globals.ts";
import { startCommand } from "./start.ts";

/** How long an endpoint may take to stop by itself. */
const STOP_LIMIT_MS = 45_000;

/** Runs `stop`; an endpoint that does not run is no error. */
export async function stopCommand(args: string[], globals: Globals): Promise<number> {
  const { positional } = readArguments(args, { globals });
  const { name, paths } = findEndpoint(positional[0], globals);
  const holder = liveHolder(paths, 3 * TOUCH_MS);
  if (!holder) {
    console.log(`${name} does not run`);
    return EX.ok;
  }
  if (isAlive(holder) === undefined) {
    writePrivate(`${paths.state}/stop-request`, "");
    console.log(`${name} runs on ${holder.host}; asked it to stop, which it does within 15 s`);
    return EX.ok;
  }
  await askStop(paths).catch(() => Deno.kill(holder.pid, "SIGTERM"));
  if (await hasEnded(holder)) {
    console.log(`Stopped ${name}`);
    return EX.ok;
  }
  signalGroup(holder.pid, "SIGKILL");
  throw new UserError(`${name} (process ${holder.pid}) did not stop in time and was killed`, {
    exit: 255,
    file: paths.log,
  });
}

/** Runs `restart`: blocks and their running tasks go on. */
export async function restartCommand(args: string[], globals: Globals): Promise<number> {
  const { positional } = readArguments(args, {
    flags: ["--detach"],
    values: ["--endpoint-uuid"],
    globals,
  });
  const { paths } = findEndpoint(positional[0], globals);
  const holder = liveHolder(paths, 3 * TOUCH_MS);
  if (holder && isAlive(holder)) {
    Deno.kill(holder.pid, "SIGTERM");
    if (!(await hasEnded(holder))) signalGroup(holder.pid, "SIGKILL");
  }
  return await startCommand(args, globals);
}

async function hasEnded(holder: LockContent): Promise<boolean> {
  for (const until = monoMs() + STOP_LIMIT_MS; monoMs() < until;) {
    if (!isAlive(holder)) return true;
    await sleep(50);
  }
  return false;
}
