/**
 * `endpoint manager --config FILE --block ID`: started by a block's launcher on each of its nodes.
 * @module
 */
import { EX, Logger, readUserFile, stderrSink, UserError } from "../base/mod.ts";
import { connectManagerBus } from "../bus/mod.ts";
import { Manager, type ManagerConfig } from "../manager/mod.ts";

/** Runs a manager until it has drained. @returns the exit code */
export async function managerCommand(args: string[]): Promise<number> {
  const options = new Map<string, string>();
  for (let i = 0; i + 1 < args.length; i += 2) options.set(args[i]!, args[i + 1]!);
  const file = options.get("--config");
  if (!file) {
    throw new UserError("endpoint manager needs --config FILE", { exit: EX.usage });
  }
  const config = JSON.parse(readUserFile(file, "manager configuration")) as ManagerConfig;
  const managerId = `${Deno.hostname().split(".")[0]!.replace(/[^\w-]/g, "_")}-${
    crypto.randomUUID().slice(0, 8)
  }`;
  const log = new Logger({ sink: stderrSink(), level: config.debug ? "debug" : "info" });
  const manager = new Manager({
    config,
    managerId,
    blockId: options.get("--block") ?? "0",
    connect: (events) => connectManagerBus(config.bus, events, { managerId, log }),
    log,
  });
  let signals = 0;
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    Deno.addSignalListener(signal, () => {
      signals++;
      void manager.drain(`${signal} was received`, { kill: signals > 1 });
    });
  }
  await manager.start();
  await manager.ended;
  return EX.ok;
}
