import { startBroker } from "../support/rabbitmq.ts";
import { equal, includes, ok } from "../support/assert.ts";
import { startAgent } from "./agents.ts";
import { fixtures } from "./bench.ts";
import { Driver } from "./driver.ts";

Deno.test("Driver and floor: answers are counted, and a wrong one is a fault", async () => {
  const cases = await fixtures();
  await using broker = await startBroker();
  const right = await Driver.open(broker.url);
  const small = cases["0 B"]!;
  const agent = await startAgent("floor", {
    queues: right.queues,
    workers: 0,
    result: small.result,
  });
  const trips = await right.roundTrips(small, { count: 20 });
  ok(trips.p50 > 0 && trips.p50 <= trips.p99, "times in order");
  const { tasks, perSecond } = await right.throughput(small, { warmMs: 200, measureMs: 500 });
  ok(tasks > 50 && perSecond > 100, `${perSecond} tasks a second`);
  equal(right.faults, []);
  // the floor answers every task with the small result
  await right.send(cases["64 KiB"]!);
  equal(right.faults.length, 1);
  includes(right.faults[0]!, "wrong answer");
  const [use] = agent.uses();
  ok(use && use.pss > 10e6 && use.rss >= use.pss, "its memory is seen");
  equal(await agent.stop(), 0);
  await right.close();
});

Deno.test("Driver.throughput gives up on an agent that does not answer", async () => {
  const cases = await fixtures();
  await using broker = await startBroker();
  const driver = await Driver.open(broker.url);
  let said = "";
  await driver.throughput(cases["0 B"]!, { stallMs: 300, warmMs: 100 })
    .catch((error) => said = error.message);
  includes(said, "No answer for 300 ms with 256 outstanding");
  await driver.close();
});
