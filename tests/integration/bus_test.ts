/** The bus over a real nats-server: who may begin, what a manager may not do. */
import {
  BusError,
  BusNames,
  connectManagerBus,
  type EndpointBusEvents,
  type ManagerBus,
  openBus,
  type StoredResult,
  type TaskDelivery,
} from "../../src/bus/mod.ts";
import { Logger, memorySink } from "../../src/base/mod.ts";
import { Link } from "../../src/bus/link.ts";
import { equal, ok, throws } from "../support/assert.ts";

const log = new Logger({ sink: memorySink() });
const ENDPOINT = "00000000-0000-4000-8000-000000000001";
const CONFIG = {
  servers: [],
  credentials: null,
  managerCredentials: null,
  caFile: null,
  tls: true,
  storeDir: null,
  port: null,
};

async function until<T>(what: string, look: () => T | undefined | false | null): Promise<T> {
  for (let tries = 0; tries < 200; tries++) {
    const found = look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
  throw new Error(`Not within 5 s: ${what}`);
}

/** An open bus whose bridge lets every manager work, and keeps what it hears. */
async function setup(limits: { maxStoredTasks?: number } = {}) {
  const stateDir = await Deno.makeTempDir();
  const heard = { results: [] as StoredResult[], starts: [] as [string, number, number][] };
  const events: EndpointBusEvents = {
    onOpen: () => {},
    onLost: () => {},
    onStart: (id, { attempt }, seq) => heard.starts.push([id, attempt, seq]),
    onResult: (result) => heard.results.push(result),
    onReport: ({ managerId }) => opened.bus.allow(managerId),
    onGiveBack: () => {},
    onTickets: () => {},
    onGoodbye: () => {},
  };
  const opened = await openBus({
    endpointId: ENDPOINT,
    config: CONFIG,
    stateDir,
    remoteManagers: false,
    addresses: [],
    maxStoredTasks: limits.maxStoredTasks ?? 1000,
    maxStoredBytes: 2 ** 30,
    log,
  }, events);
  opened.bus.consume();
  const managers: ManagerBus[] = [];
  return {
    ...opened,
    heard,
    stateDir,
    store: (taskId: string, lane = "default") =>
      opened.bus.storeTask({
        taskId,
        lane,
        body: new TextEncoder().encode(taskId),
        functionId: "f",
        resourceSpecification: '{"a": "ä\\n"}',
        resultSerializers: ["x.Y"],
        receivedNs: 1,
      }),
    manager: async (managerId: string, room: number) => {
      const tasks: TaskDelivery[] = [];
      const bus = await connectManagerBus(opened.managerAccess, {
        onTask: (task) => tasks.push(task),
        onCommand: () => {},
        onConnected: () => bus.report({ managerId } as never),
        onDisconnected: () => {},
      }, { managerId, log });
      // the first report may come before the constant is there
      await until("a connection", () => bus.connected);
      bus.report({ managerId } as never);
      bus.addRoom(room);
      managers.push(bus);
      return { bus, tasks };
    },
    [Symbol.asyncDispose]: async () => {
      for (const manager of managers) await manager.close("the test is over");
      await opened.close({ stopServer: true });
      await Deno.remove(stateDir, { recursive: true });
    },
  };
}

Deno.test("storeTask refuses a second copy, and a store that is full says so", async () => {
  await using site = await setup({ maxStoredTasks: 2 });
  const id = crypto.randomUUID();
  ok(await site.store(id), "stored");
  equal(await site.store(id), null);
  await site.store(crypto.randomUUID());
  const error = await throws(() => site.store(crypto.randomUUID()), BusError);
  ok(error.full, error.message);
});

Deno.test("a manager gets no more tasks than it has room for, whole and with what the submitter gave", async () => {
  await using site = await setup();
  const { bus, tasks } = await site.manager("m1", 2);
  const ids = Array.from({ length: 5 }, () => crypto.randomUUID());
  for (const id of ids) await site.store(id);
  await until("two tasks", () => tasks.length === 2);
  await new Promise((resolve) => setTimeout(resolve, 200));
  equal(tasks.map(({ taskId }) => taskId), ids.slice(0, 2));
  equal(new TextDecoder().decode(tasks[0]!.body), ids[0]);
  equal(tasks[0]!.resourceSpecification, '{"a": "ä\\n"}');
  equal(tasks[0]!.resultSerializers, ["x.Y"]);
  bus.addRoom(3);
  await until("the rest", () => tasks.length === 5);
});

Deno.test("begin lets one manager have a task, however often it is delivered", async () => {
  await using site = await setup();
  const one = await site.manager("m1", 1);
  const id = crypto.randomUUID();
  const seq = (await site.store(id))!;
  const [task] = await until("the task", () => one.tasks.length === 1 && one.tasks);
  const two = await site.manager("m2", 1);
  await site.bus.redeliver(new Map([["default", [seq]]]));
  await until("the second delivery", () => two.tasks.length === 1);
  const won = await Promise.all([one.bus.begin(task!, 0), two.bus.begin(two.tasks[0]!, 0)]);
  equal(won.filter((attempt) => attempt === 1).length, 1);
  equal(won.filter((attempt) => attempt === null).length, 1);
  equal(await one.bus.begin(task!, 0), null, "not even the winner may begin it again");
});

Deno.test("release allows one more attempt, and its number is told", async () => {
  await using site = await setup();
  const { bus, tasks } = await site.manager("m1", 1);
  const id = crypto.randomUUID();
  const taskSeq = (await site.store(id))!;
  await until("the task", () => tasks.length === 1);
  equal(await bus.begin(tasks[0]!, 0), 1);
  const [, , startSeq] = await until("its start", () => site.heard.starts[0]);
  await site.bus.release(id, { startSeq, attempt: 1, taskSeq });
  equal(await bus.begin(tasks[0]!, 0), 2);
  equal(await bus.begin(tasks[0]!, 0), null);
});

Deno.test("finish stores one result however often it is tried, and the endpoint hears it", async () => {
  await using site = await setup();
  const { bus, tasks } = await site.manager("m1", 1);
  await site.store(crypto.randomUUID());
  await until("the task", () => tasks.length === 1);
  await bus.begin(tasks[0]!, 0);
  const result = { task: tasks[0]!, attempt: 1, body: new TextEncoder().encode("answer") };
  await Promise.all([bus.finish(result), bus.finish(result), bus.finish(result)]);
  await until("the result", () => site.heard.results.length > 0);
  await new Promise((resolve) => setTimeout(resolve, 100));
  equal(site.heard.results.length, 1);
  equal(site.heard.results[0]!.own, false);
});

Deno.test("a task with a priority overtakes those that wait", async () => {
  await using site = await setup();
  const { bus, tasks } = await site.manager("m1", 0);
  for (let i = 0; i < 3; i++) await site.store(crypto.randomUUID());
  const urgent = crypto.randomUUID();
  await site.store(urgent, "p1");
  await site.bus.storeTicket(urgent);
  site.bus.command("all", { t: "priority", lanes: ["p1"] });
  await new Promise((resolve) => setTimeout(resolve, 100));
  bus.addRoom(1);
  await until("a task", () => tasks.length === 1);
  equal(tasks[0]!.taskId, urgent);
});

Deno.test("a manager's login cannot purge, delete, acknowledge, answer for the endpoint or read its mail", async () => {
  await using site = await setup();
  const names = new BusNames(ENDPOINT);
  const refused: string[] = [];
  const { promise, resolve } = Promise.withResolvers<void>();
  const link = new Link({
    name: "hostile",
    address: () => JSON.parse(Deno.readTextFileSync(site.managerAccess.addressFile)),
    credentials: () => Deno.readTextFileSync(site.managerAccess.seedFile),
    inboxPrefix: names.inbox("manager"),
    onOpen: () => {},
    onReady: () => resolve(),
    log,
  }).start();
  await promise;
  const connection = link.connection!;
  void (async () => {
    for await (const status of connection.status()) {
      if (status.type === "error") refused.push(status.error.message);
    }
  })();
  await site.store(crypto.randomUUID());
  const before = await site.bus.counts();
  const subjects = [
    `$JS.API.STREAM.PURGE.${names.tasks}`,
    `$JS.API.STREAM.DELETE.${names.tasks}`,
    `$JS.API.STREAM.MSG.DELETE.${names.tasks}`,
    `$JS.API.CONSUMER.DELETE.${names.tasks}.default`,
    "$JS.API.ACCOUNT.PURGE.x",
    `$JS.ACK.${names.tasks}.default.1.1.1.0.0`,
    names.task("default", crypto.randomUUID()),
    names.answer(crypto.randomUUID()),
    names.ledgerSubject,
    names.down("all"),
    "$SYS.REQ.SERVER.PING",
  ];
  for (const subject of subjects) connection.publish(subject, "{}");
  for (const subject of [">", `${names.inbox("endpoint")}.>`]) {
    connection.subscribe(subject, { callback: () => {} });
  }
  await connection.flush();
  await until("every refusal", () => refused.length >= subjects.length + 2);
  equal(await site.bus.counts(), before);
  await link.close();
});

Deno.test("the bus refuses a stranger's key and keeps its own files private", async () => {
  await using site = await setup();
  const { createUser } = await import("nats/nkeys");
  const failures = memorySink();
  const link = new Link({
    name: "stranger",
    address: () => JSON.parse(Deno.readTextFileSync(site.managerAccess.addressFile)),
    credentials: () => new TextDecoder().decode(createUser().getSeed()),
    inboxPrefix: "_INBOX",
    onOpen: () => {},
    onReady: () => {},
    log: new Logger({ sink: failures }),
  }).start();
  await until("a refusal", () => /authorization/i.test(link.lastFailure));
  equal(link.connection, null);
  await link.close();
  for (const file of ["manager.nk", "endpoint.nk", "bus-key.pem", "server.conf"]) {
    const mode = Deno.statSync(`${site.stateDir}/bus/${file}`).mode! & 0o777;
    equal(mode, 0o600, file);
  }
});
