/**
 * `./dev bench`: the floor, the public agent and ours, one after another on one broker with one driver; prints a
 * table with ratios and writes `bench.json`.
 *
 *     ./dev bench [--only floor,ours] [--quick] [--json FILE]
 *
 * Memory is given as PSS (shared pages divided among those that map them) and as RSS, summed over all processes of
 * an agent after it has worked. The limits that the project sets itself are RSS, as is the 490 MB of the public agent.
 * @module
 */
import { parseArgs } from "node:util";
import { startBroker } from "../support/rabbitmq.ts";
import type { ProcessUse } from "../support/processes.ts";
import { type Agent, type Kind, ROOT, startAgent, VENV } from "./agents.ts";
import { Driver, type RoundTrips, type TaskCase, type Throughput } from "./driver.ts";
import { table } from "./report.ts";

/** What was measured with one number of workers. */
export interface Setting {
  workers: number;
  /** From starting the process, its first task waiting, to that task's answer. */
  coldStartMs: number;
  roundTrip?: RoundTrips;
  throughput: Record<string, Throughput>;
  memory: ProcessUse[];
  /** Share of one core that all processes together use when there is nothing to do, in percent. */
  idlePercent?: number;
  /** Processes that an orderly stop left behind. */
  leftBehind: number;
}

/** All figures of a run. */
export interface Report {
  at: string;
  machine: { cpus: number; model: string; memoryBytes: number; broker: string };
  /** `endpoint version`, the least of ten, in milliseconds. */
  version: Partial<Record<Kind, number>>;
  agents: Partial<Record<Kind, Setting[]>>;
  faults: string[];
}

interface Plan {
  kinds: Kind[];
  workers: number[];
  sizes: string[];
  warmMs: number;
  measureMs: number;
  trips: Record<Kind, number>;
  idleMs: number;
}

const FULL: Plan = {
  kinds: ["floor", "public", "ours"],
  workers: [2, 1, 8],
  sizes: ["0 B", "64 KiB", "1 MiB"],
  warmMs: 2500,
  measureMs: 6000,
  trips: { floor: 400, public: 40, ours: 400 },
  idleMs: 10_000,
};

const QUICK: Plan = {
  ...FULL,
  workers: [2],
  warmMs: 1000,
  measureMs: 2000,
  trips: { floor: 100, public: 10, ours: 100 },
  idleMs: 3000,
};

const wait = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/** The tasks to send, made by the real SDK. */
export async function fixtures(): Promise<Record<string, TaskCase>> {
  const { code, stdout, stderr } = await new Deno.Command(`${VENV}/bin/python`, {
    args: [`${ROOT}/tests/bench/fixtures.py`],
  }).output();
  if (code !== 0) throw new Error(new TextDecoder().decode(stderr));
  return JSON.parse(new TextDecoder().decode(stdout));
}

/** Measures one agent with one number of workers. */
async function measure(
  kind: Kind,
  options: { url: string; workers: number; cases: Record<string, TaskCase>; plan: Plan },
): Promise<{ setting: Setting; faults: string[] }> {
  const { url, workers, cases, plan } = options;
  const driver = await Driver.open(url);
  const small = cases["0 B"]!;
  const started = performance.now();
  const first = driver.send(small);
  let agent: Agent | undefined;
  const within = <T>(what: Promise<T>) => Promise.race([what, agent!.ended]);
  try {
    agent = await startAgent(kind, { queues: driver.queues, workers, result: small.result });
    await within(first);
    const setting: Setting = {
      workers,
      coldStartMs: performance.now() - started,
      throughput: {},
      memory: [],
      leftBehind: 0,
    };
    const primary = workers === plan.workers[0];
    if (primary) {
      setting.roundTrip = await within(driver.roundTrips(small, { count: plan.trips[kind] }));
    }
    for (const size of plan.sizes) {
      if (kind === "floor" && size !== "0 B") {
        // the floor's answer is made at its start
        await agent.stop();
        const result = cases[size]!.result;
        agent = await startAgent(kind, { queues: driver.queues, workers, result });
        await within(driver.send(cases[size]!));
      }
      const { warmMs, measureMs } = plan;
      const run = driver.throughput(cases[size]!, { warmMs, measureMs });
      setting.throughput[size] = await within(run);
      if (size === "0 B") {
        await wait(1500);
        setting.memory = agent.uses();
        if (primary && kind !== "floor") setting.idlePercent = await idle(agent, plan.idleMs);
      }
      console.error(
        `  ${kind}, ${workers} workers, ${size}: ${
          setting.throughput[size]!.perSecond.toFixed(0)
        }/s`,
      );
    }
    setting.leftBehind = await agent.stop();
    return { setting, faults: driver.faults.map((fault) => `${kind}: ${fault}`) };
  } finally {
    await agent?.stop();
    await driver.close();
  }
}

/** Percent of one core that an agent uses with nothing to do. */
async function idle(agent: Agent, ms: number): Promise<number> {
  const before = new Map(agent.uses().map((use) => [use.pid, use.cpuMs]));
  const started = performance.now();
  await wait(ms);
  const used = agent.uses().reduce(
    (sum, { pid, cpuMs }) => sum + cpuMs - (before.get(pid) ?? 0),
    0,
  );
  return 100 * used / (performance.now() - started);
}

/** The shortest of ten runs of `version`, in milliseconds. */
async function versionMs(program: string): Promise<number> {
  let least = Infinity;
  for (let n = 0; n < 10; n++) {
    const started = performance.now();
    const { code } = await new Deno.Command(program, { args: ["version"] }).output();
    if (code !== 0) throw new Error(`${program} version ended with ${code}`);
    least = Math.min(least, performance.now() - started);
  }
  return least;
}

/** Runs the whole comparison. */
export async function bench(plan: Plan): Promise<Report> {
  const cases = await fixtures();
  await using broker = await startBroker({ config: ["log.console.level = error"] });
  const cpu = Deno.readTextFileSync("/proc/cpuinfo");
  const report: Report = {
    at: new Date().toISOString(),
    machine: {
      cpus: navigator.hardwareConcurrency,
      model: cpu.match(/model name\s*:\s*(.*)/)?.[1] ?? "unknown",
      memoryBytes: Deno.systemMemoryInfo().total,
      broker: `RabbitMQ ${(await broker.ctl("version")).trim()}`,
    },
    version: {},
    agents: {},
    faults: [],
  };
  if (plan.kinds.includes("ours")) report.version.ours = await versionMs(`${ROOT}/endpoint`);
  if (plan.kinds.includes("public")) {
    report.version.public = await versionMs(`${VENV}/bin/globus-compute-endpoint`);
  }
  for (const kind of plan.kinds) {
    report.agents[kind] = [];
    for (const workers of kind === "floor" ? [plan.workers[0]!] : plan.workers) {
      console.error(`${kind}, ${workers} workers`);
      const { setting, faults } = await measure(kind, { url: broker.url, workers, cases, plan });
      report.agents[kind]!.push(setting);
      report.faults.push(...faults);
    }
  }
  return report;
}

if (import.meta.main) {
  const { values } = parseArgs({
    args: Deno.args,
    options: {
      only: { type: "string" },
      quick: { type: "boolean", default: false },
      json: { type: "string", default: `${ROOT}/bench.json` },
    },
  });
  const plan = values.quick ? QUICK : FULL;
  const kinds = (values.only?.split(",") ?? plan.kinds) as Kind[];
  const report = await bench({ ...plan, kinds });
  await Deno.writeTextFile(values.json, JSON.stringify(report, null, 2) + "\n");
  console.log(table(report));
  console.log(`\nAll figures: ${values.json}`);
  Deno.exit(report.faults.length > 0 ? 1 : 0);
}
