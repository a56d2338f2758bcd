/** kill -9 of each part with 400 tasks outstanding: nothing lost, no body started twice, nothing left behind. */
import { equal, includes, ok } from "../support/assert.ts";
import { marked } from "../support/processes.ts";
import { SDK_PYTHON, type Site, startSite } from "../support/site.ts";

const TASKS = 400;
const ENGINE = `  type: GlobusComputeEngine
  python: ${SDK_PYTHON}
  max_workers_per_node: 4
  cores_per_worker: 0.25
  heartbeat_period: 1
  heartbeat_threshold: 3
`;

const SUBMITS = `
import collections, json, sys
from globus_compute_sdk import Client, Executor
def step(i, path):
    import os, time
    with open(path, "a") as f: f.write("%d %d\\n" % (i, os.getpid()))
    time.sleep(0.02)
    return i
right, errors = 0, collections.Counter()
with Executor(endpoint_id=sys.argv[1], client=Client(local_compute_services=True)) as ex:
    futures = [ex.submit(step, i, sys.argv[2]) for i in range(${TASKS})]
    for i, f in enumerate(futures):
        try: right += f.result(timeout=90) == i
        except Exception as e: errors[type(e).__name__ + ": " + str(e).strip()[:400]] += 1
print(json.dumps({"right": right, "errors": errors}))
`;

interface Outcome {
  right: number;
  errors: Record<string, number>;
  /** How often each body was started at most. */
  mostStarts: number;
  started: number;
}

/** Submits 400 tasks, calls `fault` when 60 bodies have started, waits for all answers. */
async function under(site: Site, fault: (startedBy: number[]) => Promise<void>): Promise<Outcome> {
  const id = await site.startEndpoint("whole", ENGINE);
  const path = `${site.dir}/starts`;
  await Deno.writeTextFile(path, "");
  const running = site.python(SUBMITS, id, path);
  const lines = () => Deno.readTextFileSync(path).trim().split("\n").filter(Boolean);
  for (let tries = 0; lines().length < 60; tries++) {
    ok(tries < 600, "60 tasks began within a minute");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await fault(lines().map((line) => Number(line.split(" ")[1])));
  const { code, stdout, stderr } = await running;
  equal(code, 0, stderr);
  const starts = new Map<string, number>();
  for (const line of lines()) {
    const [task] = line.split(" ");
    starts.set(task!, (starts.get(task!) ?? 0) + 1);
  }
  const answers = JSON.parse(stdout.trim().split("\n").at(-1)!);
  return { ...answers, mostStarts: Math.max(...starts.values()), started: starts.size };
}

Deno.test("SIGKILL of the endpoint, then start: every task is answered right, none begun twice", async () => {
  await using site = await startSite();
  const outcome = await under(site, async () => {
    const before = site.pids("whole");
    Deno.kill(before.endpoint, "SIGKILL");
    await new Promise((resolve) => setTimeout(resolve, 500));
    equal((await site.endpoint("start", "whole", "--detach")).code, 0);
    const after = site.pids("whole");
    equal([after.bus, after.manager], [before.bus, before.manager], "bus and manager went on");
  });
  equal(outcome, { right: TASKS, errors: {}, mostStarts: 1, started: TASKS });
});

Deno.test("SIGKILL of nats-server, three times: every task is answered right, none begun twice", async () => {
  await using site = await startSite();
  const outcome = await under(site, async () => {
    for (let round = 0; round < 3; round++) {
      Deno.kill(site.pids("whole").bus, "SIGKILL");
      await new Promise((resolve) => setTimeout(resolve, 700));
    }
  });
  equal(outcome, { right: TASKS, errors: {}, mostStarts: 1, started: TASKS });
});

Deno.test("SIGKILL of a manager: what had begun is answered as lost, the rest runs on a new one", async () => {
  await using site = await startSite();
  const outcome = await under(site, () => {
    Deno.kill(site.pids("whole").manager, "SIGKILL");
    return Promise.resolve();
  });
  const lost = Object.values(outcome.errors).reduce((sum, count) => sum + count, 0);
  equal(outcome.right + lost, TASKS, "every task has an answer");
  ok(lost <= 4, `at most the four that ran are lost, not ${lost}`);
  for (const text of Object.keys(outcome.errors)) includes(text, "its result is lost");
  equal(outcome.mostStarts, 1);
});

Deno.test("SIGKILL of a worker: its task is answered with the signal, the others run", async () => {
  await using site = await startSite();
  const outcome = await under(site, (startedBy) => {
    Deno.kill(startedBy.at(-1)!, "SIGKILL");
    return Promise.resolve();
  });
  const lost = Object.entries(outcome.errors);
  ok(lost.length <= 1, `one kind of error at most: ${JSON.stringify(lost)}`);
  for (const [text, count] of lost) {
    includes(text, "killed by signal 9 (SIGKILL)");
    equal(count, 1);
  }
  equal(outcome.right + lost.length, TASKS);
  equal(outcome.mostStarts, 1);
});

Deno.test("stop leaves no process of the endpoint behind", async () => {
  await using site = await startSite();
  await site.startEndpoint("gone", ENGINE);
  const { endpoint, bus, manager } = site.pids("gone");
  equal((await site.endpoint("stop", "gone")).code, 0);
  const left = marked(`SITE_MARK=${site.env.SITE_MARK}`);
  for (const pid of [endpoint, bus, manager]) ok(!left.includes(pid), `process ${pid} has ended`);
});
