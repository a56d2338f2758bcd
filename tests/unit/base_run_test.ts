import { isAlive, type ProcessIdentity, run } from "../../src/base/mod.ts";
import { identityOf } from "../../src/base/mod.ts";
import { equal, includes, ok, throws } from "../support/assert.ts";

/** Waits until a process is gone, as long as a test may take. */
async function gone(identity: ProcessIdentity): Promise<boolean> {
  for (let n = 0; n < 100 && isAlive(identity); n++) await new Promise((r) => setTimeout(r, 20));
  return isAlive(identity) === false;
}

Deno.test("run gives exit code, both outputs and what went in", async () => {
  const result = await run(["sh", "-c", "cat; echo err >&2; exit 3"], { stdin: "in" });
  equal([result.code, result.stdout, result.stderr, result.timedOut], [3, "in", "err\n", false]);
});
Deno.test("run passes arguments as they are", async () => {
  const { stdout } = await run(["printf", "%s|", "a b", "$HOME", "`id`", "'"]);
  equal(stdout, "a b|$HOME|`id`|'|");
});
Deno.test("run gives the child only the environment it is given", async () => {
  const { stdout } = await run(["env"], { env: { A: "1" } });
  equal(stdout, "A=1\n");
});
Deno.test("run throws NotFound for a program that is not there", async () => {
  await throws(() => run(["/no/such/program"]), Deno.errors.NotFound);
});
Deno.test("run names the signal that ended the program", async () => {
  const { code, signal } = await run(["sh", "-c", "kill -9 $$"]);
  equal([code, signal], [137, "SIGKILL"]);
});
Deno.test("run ends the whole group at the time limit, grandchildren that ignore TERM too", async () => {
  const script = "trap '' TERM; (trap '' TERM; sleep 1000) & echo $!; wait; sleep 1000";
  const started = performance.now();
  const result = await run(["sh", "-c", script], { timeoutMs: 300 });
  ok(performance.now() - started < 4000, "TERM, two seconds, KILL");
  equal([result.timedOut, result.signal], [true, "SIGKILL"]);
  const pid = Number(result.stdout);
  ok(pid > 1, "the grandchild's number was seen");
  const identity = identityOf(pid);
  ok(!identity || await gone(identity), "the grandchild is gone");
});
Deno.test("run returns at the child's exit though a grandchild holds the pipe", async () => {
  const started = performance.now();
  const result = await run(["sh", "-c", "sleep 5 & echo $!"]);
  ok(performance.now() - started < 2000, "it did not wait for the pipe");
  const pid = Number(result.stdout);
  ok(identityOf(pid), "the grandchild lives on: it is not ours to end");
  Deno.kill(pid, "SIGKILL");
});
Deno.test("run does not wait for a child that never reads its input", async () => {
  const result = await run(["sh", "-c", "exec <&-; sleep 0.1; echo done"], {
    stdin: "x".repeat(1024 * 1024),
  });
  equal(result.stdout, "done\n");
});
Deno.test("run ends the program when its signal fires, and refuses to start after it", async () => {
  const result = await run(["sleep", "100"], { signal: AbortSignal.timeout(100) });
  equal([result.signal, result.timedOut], ["SIGTERM", false]);
  await throws(() => run(["true"], { signal: AbortSignal.abort() }));
});
Deno.test("run keeps head and tail of an output that is too long", async () => {
  const { stdout, truncated } = await run(["seq", "1", "200000"], { maxOutput: 1000 });
  ok(truncated && stdout.length < 2000, "bounded");
  ok(stdout.startsWith("1\n2\n") && stdout.endsWith("199999\n200000\n"), "both ends are there");
  includes(stdout, "bytes left out");
});
