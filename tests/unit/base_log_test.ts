import { fileSink, Logger, memorySink } from "../../src/base/mod.ts";
import { equal, includes, ok, withDir } from "../support/assert.ts";

Deno.test("Logger writes one line a record with its fields, and no secret", () => {
  const sink = memorySink();
  const log = new Logger({ sink }).child("bus");
  log.info("Connected", { url: "nats://a:b@h", tasks: 3, why: "two words", none: undefined });
  equal(sink.lines.length, 1);
  includes(sink.lines[0]!, 'INFO  bus: Connected url=nats://***:***@h tasks=3 why="two words"');
  ok(!sink.lines[0]!.includes("none"), "an absent value is left out");
});
Deno.test("Logger level holds for children and can be changed while running", () => {
  const sink = memorySink();
  const log = new Logger({ sink });
  const child = log.child("x");
  child.debug("not yet");
  log.level = "debug";
  child.debug("now");
  log.level = "error";
  child.warn("no more");
  equal(sink.lines.map((line) => line.split(": ")[1]), ["now"]);
});
Deno.test("Logger in JSON gives one object a line, even for an error and a big number", () => {
  const sink = memorySink();
  new Logger({ sink, json: true }).error("Bad\nline", { error: new Error("why"), at: 5n });
  equal(sink.lines[0]!.includes("\n"), false);
  const { message, error, at, level, room } = JSON.parse(sink.lines[0]!);
  equal([message, error, at, level, room], ["Bad\nline", "why", "5", "error", "endpoint"]);
});
Deno.test("Logger.warnOnce warns once a key", () => {
  const sink = memorySink();
  const log = new Logger({ sink });
  log.warnOnce("k", "first");
  log.child("other").warnOnce("k", "second");
  equal(sink.lines.length, 1);
});
Deno.test("memorySink stays bounded and keeps the newest", () => {
  const sink = memorySink(10);
  for (let n = 0; n < 95; n++) sink.write(String(n));
  ok(sink.lines.length <= 10, "at most ten lines");
  equal(sink.lines.at(-1), "94");
});
Deno.test("fileSink rotates to one backup, private, and loses no line on the way", () =>
  withDir((dir) => {
    const sink = fileSink(`${dir}/log`, 1000);
    for (let n = 0; n < 15; n++) sink.write(`${n} ${"x".repeat(97)}`);
    sink.close();
    sink.close();
    const old = Deno.readTextFileSync(`${dir}/log.1`);
    const now = Deno.readTextFileSync(`${dir}/log`);
    equal((old + now).split("\n").filter(Boolean).map((l) => Number(l.split(" ")[0])), [
      ...Array(15).keys(),
    ]);
    equal([...Deno.readDirSync(dir)].length, 2);
    equal(Deno.statSync(`${dir}/log`).mode! & 0o777, 0o600);
  }));
Deno.test("fileSink goes on with the old file where it cannot rotate", () =>
  withDir((dir) => {
    // a folder in the backup's place makes the rename fail, for root as well
    Deno.mkdirSync(`${dir}/log.1/x`, { recursive: true });
    const sink = fileSink(`${dir}/log`, 100);
    for (let n = 0; n < 10; n++) sink.write("x".repeat(50));
    sink.close();
    equal(Deno.readTextFileSync(`${dir}/log`).split("\n").length, 11);
  }));
Deno.test("fileSink counts the lines that a full disk lost, and says so afterwards", async () => {
  const { code } = await new Deno.Command("test", { args: ["-c", "/dev/full"] }).output();
  equal(code, 0);
  await withDir((dir) => {
    Deno.symlinkSync("/dev/full", `${dir}/log`);
    const sink = fileSink(`${dir}/log`);
    sink.write("lost");
    sink.write("lost, too");
    sink.close();
    Deno.removeSync(`${dir}/log`);
    sink.write("lost while it is opened anew");
    sink.write("kept");
    sink.close();
    includes(Deno.readTextFileSync(`${dir}/log`), "kept\n(3 log lines were lost");
  });
});
