import { parseUserConfig } from "../../src/config/mod.ts";
import { UserError } from "../../src/base/mod.ts";
import { equal, ok, throws } from "../support/assert.ts";

const where = { source: "/e/config.yaml", dir: "/e" };
const parse = (text: string) => parseUserConfig(text, where);

Deno.test("parseUserConfig applies the public defaults to a bare engine", () => {
  const { engine, heartbeatPeriodMs, maxStoredTasks } = parse(
    "engine: {type: GlobusComputeEngine}",
  );
  if (engine.type !== "GlobusComputeEngine") throw new Error(engine.type);
  equal(heartbeatPeriodMs, 30_000);
  equal(maxStoredTasks, 100_000);
  equal([engine.coresPerWorker, engine.prefetchCapacity, engine.maxRetriesOnSystemFailure], [
    1,
    0,
    0,
  ]);
  equal([engine.provider.initBlocks, engine.provider.minBlocks, engine.provider.maxBlocks], [
    1,
    0,
    1,
  ]);
  equal(engine.workingDir, "/e/tasks_working_dir");
  equal(engine.strategy, { type: "simple", maxIdletimeMs: 120_000, periodMs: 5000 });
});

Deno.test("parseUserConfig takes natural forms that the public agent's strict types refuse", () => {
  const { engine } = parse(
    "engine:\n  type: GlobusComputeEngine\n  available_accelerators: [0, 1]\n  max_workers_per_node: '4'\n" +
      "  strategy: {type: SimpleStrategy, max_idletime: 300}\n",
  );
  if (engine.type !== "GlobusComputeEngine") throw new Error(engine.type);
  equal(engine.availableAccelerators, ["0", "1"]);
  equal(engine.maxWorkersPerNode, 4);
  equal(engine.strategy.maxIdletimeMs, 300_000);
});

/** Bad configurations: what the error has to say. */
const BAD: [name: string, text: string, ...parts: string[]][] = [
  ["empty", "", "is empty"],
  ["a list", "- engine", "is no mapping"],
  ["a scalar", "engine", "is no mapping"],
  ["nested braces", "{".repeat(100_000), "deeper than 64"],
  ["too long", `a: ${"x".repeat(1100_000)}`, "more than"],
  ["no YAML", "engine: [1", "is no YAML"],
  ["no engine", "display_name: x", "engine", "is missing"],
  [
    "an unknown key",
    "engine: {type: ThreadPoolEngine}\nheartbeat_perod: 5",
    "config.yaml:2",
    "heartbeat_perod",
  ],
  [
    "an old key",
    "engine: {type: ThreadPoolEngine}\nmulti_user: true",
    "multi_user",
    "not supported",
  ],
  ["an unknown engine", "engine: {type: GlobusComputEngine}", "engine.type", "GlobusComputEngine"],
  [
    "a scheduler",
    "engine:\n  type: GlobusComputeEngine\n  provider: {type: SlurmProvider}",
    "SlurmProvider is not built yet",
  ],
  [
    "a wrong value",
    "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: LocalProvider\n    max_blocks: many",
    "config.yaml:5",
    "max_blocks",
  ],
  [
    "a short heartbeat",
    "engine: {type: ThreadPoolEngine}\nheartbeat_period: 1",
    "heartbeat_period",
    "at least 5",
  ],
];

for (const [name, text, ...parts] of BAD) {
  Deno.test(`parseUserConfig refuses ${name} by saying what and where`, async () => {
    const error = await throws(() => parse(text), UserError);
    equal(error.exit, 78);
    for (const part of parts) ok(error.message.includes(part), `"${part}" in "${error.message}"`);
  });
}

Deno.test("parseUserConfig suggests the nearest key", async () => {
  const error = await throws(
    () => parse("engine: {type: ThreadPoolEngine}\nheartbeat_perod: 5"),
    UserError,
  );
  equal(error.hint, "Did you mean heartbeat_period?");
});

Deno.test("parseUserConfig reads booleans and octal numbers as YAML 1.1 does", () => {
  equal(parse("engine: {type: ThreadPoolEngine}\ndebug: yes").debug, true);
  equal(parse("engine: {type: ThreadPoolEngine, max_workers: 010}").engine, {
    ...parse("engine: {type: ThreadPoolEngine}").engine,
    maxWorkers: 8,
  });
});
