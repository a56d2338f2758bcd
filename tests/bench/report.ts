/**
 * The bench's table: one column an agent, ratios beside, and the targets with what was reached.
 * @module
 */
import type { Report, Setting } from "./bench.ts";

const MEGA = 1e6;

/** A line of the table: a label and what it takes from the report. */
interface Row {
  label: string;
  unit: string;
  value: (settings: Setting[]) => number | undefined;
  digits?: number;
}

const by = (workers: number, settings: Setting[]) => settings.find((s) => s.workers === workers);
const total = (setting: Setting | undefined, kind: "pss" | "rss") =>
  setting && setting.memory.reduce((sum, use) => sum + use[kind], 0) / MEGA;
/** Memory that each worker beyond the second adds. */
const further = (settings: Setting[], kind: "pss" | "rss") => {
  const [two, eight] = [total(by(2, settings), kind), total(by(8, settings), kind)];
  return two === undefined || eight === undefined ? undefined : (eight - two) / 6;
};

const ROWS: Row[] = [
  { label: "round trip, p50", unit: "ms", value: ([s]) => s?.roundTrip?.p50, digits: 2 },
  { label: "round trip, p99", unit: "ms", value: ([s]) => s?.roundTrip?.p99, digits: 2 },
  ...[1, 2, 8].flatMap((workers) =>
    ["0 B", "64 KiB", "1 MiB"].map((size): Row => ({
      label: `${workers} workers, ${size}`,
      unit: "tasks/s",
      // the floor has no workers: its one figure stands beside all
      value: (all) =>
        (by(workers, all) ?? (all[0]?.memory.length === 1 ? all[0] : undefined))
          ?.throughput[size]?.perSecond,
      digits: 0,
    }))
  ),
  { label: "cold start to first result", unit: "ms", value: ([s]) => s?.coldStartMs, digits: 0 },
  {
    label: "memory, two workers, PSS",
    unit: "MB",
    value: (s) => total(by(2, s), "pss"),
    digits: 0,
  },
  {
    label: "memory, two workers, RSS",
    unit: "MB",
    value: (s) => total(by(2, s), "rss"),
    digits: 0,
  },
  { label: "each further worker, PSS", unit: "MB", value: (s) => further(s, "pss"), digits: 1 },
  { label: "each further worker, RSS", unit: "MB", value: (s) => further(s, "rss"), digits: 1 },
  { label: "idle, all processes", unit: "% core", value: ([s]) => s?.idlePercent, digits: 2 },
];

/** The report as text. */
export function table(report: Report): string {
  const { floor = [], public: other = [], ours = [] } = report.agents;
  const lines: string[][] = [["", "floor", "public", "ours", "ours/floor", "ours/public"]];
  const ratio = (a?: number, b?: number) =>
    a === undefined || b === undefined || b === 0 ? "-" : `${(a / b).toPrecision(3)} x`;
  for (const { label, unit, value, digits = 1 } of ROWS) {
    const values = [floor, other, ours].map(value);
    if (values.slice(1).every((v) => v === undefined) && !label.startsWith("round")) continue;
    const shown = values.map((v) => v === undefined ? "-" : `${v.toFixed(digits)} ${unit}`);
    const [f, p, o] = values;
    lines.push([label, ...shown, ratio(o, f), ratio(o, p)]);
  }
  const { public: theirs, ours: mine } = report.version;
  const ms = (v?: number) => v === undefined ? "-" : `${v.toFixed(0)} ms`;
  lines.push(["version", "-", ms(theirs), ms(mine), "-", ratio(mine, theirs)]);
  const widths = lines[0]!.map((_, column) => Math.max(...lines.map((l) => l[column]!.length)));
  const text = lines.map((line) =>
    line.map((cell, column) => column ? cell.padStart(widths[column]!) : cell.padEnd(widths[0]!))
      .join("  ")
  );
  for (const [kind, settings] of Object.entries(report.agents)) {
    const setting = by(2, settings) ?? settings[0];
    if (!setting) continue;
    text.push("", `${kind}, ${setting.workers} workers, after work (PSS / RSS):`);
    for (const { name, pss, rss } of setting.memory) {
      text.push(
        `  ${(pss / MEGA).toFixed(1).padStart(7)} / ${
          (rss / MEGA).toFixed(1).padStart(6)
        } MB  ${name}`,
      );
    }
    if (setting.leftBehind > 0) text.push(`  ${setting.leftBehind} processes outlived its stop`);
  }
  const { model, cpus, memoryBytes, broker } = report.machine;
  text.push("", `${cpus} cores, ${model}, ${(memoryBytes / 1e9).toFixed(0)} GB; ${broker}`);
  for (const fault of report.faults) text.push(`FAULT ${fault}`);
  return text.join("\n");
}
