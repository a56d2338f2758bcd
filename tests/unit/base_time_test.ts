import {
  backoffMs,
  deadline,
  DeadlineError,
  errorText,
  identityOf,
  isAlive,
  Logger,
  memorySink,
  monoMs,
  ReleaseList,
  retry,
  sleep,
  UserError,
  wallNs,
} from "../../src/base/mod.ts";
import { equal, includes, ok, throws } from "../support/assert.ts";

Deno.test("sleep ends early with the signal's reason and leaves no listener", async () => {
  const control = new AbortController();
  const waiting = sleep(60_000, { signal: control.signal });
  control.abort(new Error("enough"));
  equal((await throws(() => waiting)).message, "enough");
  equal((await throws(() => sleep(1, { signal: control.signal }))).message, "enough");
});
Deno.test("deadline gives the value in time, else an error that names the wait", async () => {
  equal(await deadline(Promise.resolve(5), 1000, "it"), 5);
  const error = await throws(() => deadline(new Promise(() => {}), 20, "the bus"), DeadlineError);
  equal(error.message, "Gave up waiting for the bus after 0.02 s");
});
Deno.test("wallNs agrees with the wall clock within a second", () => {
  ok(Math.abs(Number(wallNs() / 1_000_000n) - Date.now()) < 1000, "same time");
});
Deno.test("backoffMs doubles up to its bound, half of it random", () => {
  for (let attempt = 1; attempt < 60; attempt++) {
    const top = Math.min(1000, 10 * 2 ** (attempt - 1));
    const wait = backoffMs(attempt, { minMs: 10, maxMs: 1000 });
    ok(wait >= top / 2 && wait <= top, `attempt ${attempt}: ${wait} within ${top / 2}..${top}`);
  }
});
Deno.test("retry calls until it succeeds, and tells of each failure", async () => {
  const told: number[] = [];
  const value = await retry((attempt) => {
    if (attempt < 3) throw new Error(`no ${attempt}`);
    return Promise.resolve(attempt);
  }, { minMs: 1, onRetry: (_error, attempt) => void told.push(attempt) });
  equal([value, told], [3, [1, 2]]);
});
Deno.test("retry throws what cannot be mended at once, and the last error when attempts end", async () => {
  let calls = 0;
  const fail = () => {
    calls++;
    return Promise.reject(new Error(`call ${calls}`));
  };
  equal((await throws(() => retry(fail, { retryable: () => false }))).message, "call 1");
  equal((await throws(() => retry(fail, { attempts: 2, minMs: 1 }))).message, "call 3");
});
Deno.test("retry ends its waiting with the signal", async () => {
  const started = monoMs();
  const signal = AbortSignal.timeout(50);
  await throws(() => retry(() => Promise.reject(new Error("x")), { minMs: 60_000, signal }));
  ok(monoMs() - started < 5000, "it did not wait a minute");
});
Deno.test("ReleaseList releases last in first out, once, past a step that fails or hangs", async () => {
  const sink = memorySink();
  const list = new ReleaseList(new Logger({ sink }));
  const seen: string[] = [];
  list.add("first", () => seen.push("first"));
  list.add("hangs", () => new Promise(() => {}), 20);
  list.add("fails", () => {
    throw new Error("no");
  });
  list.add("last", () => seen.push("last"));
  await Promise.all([list.release(), list.release()]);
  equal(seen, ["last", "first"]);
  equal(sink.lines.length, 2);
  includes(sink.lines[0]!, "part=fails");
  includes(sink.lines[1]!, "part=hangs");
});
Deno.test("isAlive tells a process from a later one with its number, and knows hosts", async () => {
  const child = new Deno.Command("sleep", { args: ["100"] }).spawn();
  const identity = identityOf(child.pid)!;
  equal(isAlive(identity), true);
  equal(isAlive({ ...identity, startTime: "1" }), false);
  equal(isAlive({ ...identity, bootId: "another" }), false);
  equal(isAlive({ ...identity, bootId: "another", host: "elsewhere" }), undefined);
  child.kill("SIGKILL");
  await child.status;
  equal(isAlive(identity), false);
  equal(identityOf(2 ** 22 + 1), undefined);
});
Deno.test("errorText joins causes once each", () => {
  const cause = new Error("refused");
  equal(errorText(new Error("Cannot connect", { cause })), "Cannot connect: refused");
  equal(errorText(new Error("Cannot connect: refused", { cause })), "Cannot connect: refused");
  equal(errorText("text"), "text");
  equal(new UserError("x").exit, 1);
});
