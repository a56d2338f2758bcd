import { AckQueue } from "../../src/endpoint/ack_queue.ts";
import { IdSet, packIds, unpackIds } from "../../src/endpoint/id_set.ts";
import { specificationCheck } from "../../src/endpoint/specification.ts";
import { Managers } from "../../src/endpoint/managers.ts";
import { Logger, memorySink } from "../../src/base/mod.ts";
import type { Delivery } from "../../src/amqp/mod.ts";
import type { ManagerReport } from "../../src/bus/mod.ts";
import { equal, ok } from "../support/assert.ts";

const log = new Logger({ sink: memorySink() });
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

Deno.test("IdSet holds what was added and nothing else, through growth", () => {
  const set = new IdSet();
  const ids = Array.from({ length: 5000 }, () => crypto.randomUUID());
  for (const id of ids) ok(set.add(id), "new");
  equal(set.size, 5000);
  for (const id of ids) ok(set.has(id), id);
  ok(!set.add(ids[17]!), "a second time");
  ok(!set.has(crypto.randomUUID()), "a stranger");
});

Deno.test("packIds and unpackIds are each other's reverse, and a cut-off tail is left out", () => {
  const ids = Array.from({ length: 9 }, () => crypto.randomUUID());
  equal(unpackIds(packIds(ids)), ids);
  equal(unpackIds(packIds(ids).subarray(0, 40)), ids.slice(0, 2));
});

/** Records what an AckQueue asks of its consumer. */
class ScriptedConsumer {
  acked: number[] = [];
  back: number[] = [];
  fences = 0;
  ackUpTo({ tag }: { tag: number }) {
    this.acked.push(tag);
  }
  giveBack({ tag }: { tag: number }) {
    this.back.push(tag);
  }
  fence() {
    this.fences++;
    return Promise.resolve();
  }
}

const delivery = (tag: number, epoch = 1) => ({ tag, epoch }) as Delivery;

Deno.test("AckQueue acknowledges in order, not before the hold, and forgets doubts once fenced", async () => {
  const consumer = new ScriptedConsumer();
  const queue = new AckQueue(consumer, { holdMs: 60, log });
  const [a, b, c] = [1, 2, 3].map((tag) => queue.add(delivery(tag), `id-${tag}`));
  queue.settle(b!);
  queue.settle(c!);
  await pause(120);
  equal(consumer.acked, [], "the first is not settled");
  queue.settle(a!);
  await pause(30);
  equal(consumer.acked, [], "the first is still held");
  await pause(100);
  equal(consumer.acked, [3], "all with one acknowledgement");
  ok(consumer.fences > 0, "fenced");
  equal([...queue.inDoubt()], []);
  equal(queue.size, 0);
});

Deno.test("AckQueue keeps ids of a lost channel in doubt until they come again", () => {
  const queue = new AckQueue(new ScriptedConsumer(), { holdMs: 60, log });
  queue.settle(queue.add(delivery(1, 1), "old"));
  queue.forget(1);
  queue.add(delivery(1, 2), "new");
  equal([...queue.inDoubt()].sort(), ["new", "old"]);
  queue.cameAgain("old");
  equal([...queue.inDoubt()], ["new"]);
  queue.stop();
});

Deno.test("specificationCheck takes priority for block engines, nothing for pools, and names what it refuses", () => {
  const block = specificationCheck("GlobusComputeEngine");
  equal(block(null), { priority: null });
  equal(block('{"priority":3}'), { priority: 3 });
  const refused = block('{"num_nodes":2}') as { refused: string };
  ok(refused.refused.includes("num_nodes"), refused.refused);
  ok("refused" in block("{"), "no JSON");
  ok("refused" in specificationCheck("ThreadPoolEngine")('{"priority":3}'), "pools");
});

const report = (connection = 1) =>
  ({
    managerId: "m",
    blockId: "b",
    host: "h",
    connection,
    running: [],
    oldestWaitingMs: 0,
  }) as unknown as ManagerReport;

Deno.test("Managers loses a silent one once, not one that the bus kept from being heard", async () => {
  const lost: string[] = [];
  const joined: string[] = [];
  const managers = new Managers(150, {
    onJoined: ({ managerId }) => joined.push(managerId),
    onReconnected: () => joined.push("again"),
    onReport: () => {},
    onLost: ({ report }, why) => lost.push(`${report.managerId}: ${why}`),
  }, { log });
  managers.heard(report());
  managers.deaf();
  await pause(300);
  equal(lost, [], "silence while deaf means nothing");
  managers.hearing();
  managers.heard(report(2));
  equal(joined, ["m", "again"]);
  await pause(300);
  equal(lost.length, 1);
  equal(managers.size, 0);
  managers.stop();
});
