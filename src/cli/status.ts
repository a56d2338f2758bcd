/**
 * `endpoint status`.
 * @module
 */
import { EX, isAlive, wallMs } from "../base/mod.ts";
import { liveHolder, TOUCH_MS } from "../endpoint/mod.ts";
import { askStatus } from "./control.ts";
import { findEndpoint, type Globals, readArguments } from "./globals.ts";

/** Runs `status`; exit 3 if the endpoint does not run, as service managers have it. */
export async function statusCommand(args: string[], globals: Globals): Promise<number> {
  const { positional, flags } = readArguments(args, { flags: ["--json"], globals });
  const { name, paths } = findEndpoint(positional[0], globals);
  const holder = liveHolder(paths, 3 * TOUCH_MS);
  if (!holder || isAlive(holder) === undefined) {
    const state = holder ? "running" : "stopped";
    if (flags.has("--json")) {
      console.log(JSON.stringify({ name, state, host: holder?.host ?? null }));
    } else {console.log(
        holder ? `${name} runs on ${holder.host}; ask there` : `${name} does not run`,
      );}
    return holder ? EX.ok : 3;
  }
  const status = await askStatus(paths);
  if (flags.has("--json")) {
    console.log(JSON.stringify(status, null, 2));
    return EX.ok;
  }
  const { counts, connections, bus, blocks, managers } = status;
  const workers = managers.reduce((sum, report) => sum + report.workers, 0);
  const idle = managers.reduce((sum, report) => sum + report.idleWorkers, 0);
  const minutes = Math.floor((wallMs() - status.startedMs) / 60_000);
  const lines: [string, string][] = [
    ["State", `${status.state}, for ${minutes} min, on ${status.host} (process ${status.pid})`],
    ["Endpoint UUID", status.endpointId],
    [
      "Connections",
      `tasks ${connections.tasks}, results ${connections.results}, bus ${
        connections.bus ? "open" : "away"
      }`,
    ],
    ["Bus", `port ${bus.port ?? "-"}, process ${bus.pid ?? "-"}, durability ${bus.durability}`],
    [
      "Blocks",
      blocks.map((block) => `${block.id} ${block.state} (process ${block.pid})`).join(", ") ||
      "none",
    ],
    ["Workers", `${workers - idle} busy, ${idle} idle, on ${managers.length} node(s)`],
    [
      "Tasks",
      `${counts.waiting} waiting, ${counts.running} running, ${counts.answering} being answered`,
    ],
    [
      "Since start",
      `${counts.received} received, ${counts.answered} answered, ${counts.retried} retried, ${counts.lost} lost with their node`,
    ],
  ];
  if (status.intakePaused) lines.push(["Takes no tasks", status.intakePaused]);
  if (status.broken) lines.push(["BROKEN", status.broken]);
  for (const [key, value] of lines) console.log(`${key.padEnd(15)} ${value}`);
  return EX.ok;
}
