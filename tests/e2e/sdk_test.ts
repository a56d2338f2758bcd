/** The real SDK through `endpoint service` and the compiled executable. */
import { equal, includes, ok } from "../support/assert.ts";
import { SDK_PYTHON, startSite } from "../support/site.ts";

const ENGINE = `  type: GlobusComputeEngine
  python: ${SDK_PYTHON}
  max_workers_per_node: 2
  cores_per_worker: 0.5
`;

const SUBMITS = `
import json, os, sys
from globus_compute_sdk import Client, Executor, ShellFunction
from globus_compute_sdk.serialize import ComputeSerializer, JSONData, AllCodeStrategies
client = Client(local_compute_services=True)
def square(x): return x * x
def fail(): raise ValueError("on purpose")
def leave(): import sys; sys.exit(3)
def die():
    import os, signal
    os.kill(os.getpid(), signal.SIGKILL)
def same(x): return x
def say(): print("spoken"); return "\\U0001d54f"
out = {}
with Executor(endpoint_id=sys.argv[1], client=client) as ex:
    def error(f):
        try: return repr(f.result(timeout=60))
        except Exception as e: return str(e)
    squares = [ex.submit(square, i) for i in range(100)]
    others = [ex.submit(fail), ex.submit(leave), ex.submit(die), ex.submit(say)]
    shell = ex.submit(ShellFunction("echo {word}; exit 4"), word="shell")
    big = ex.submit(same, b"x" * 3_000_000)
    out["squares"] = sum(f.result(timeout=60) for f in squares)
    out["fail"], out["leave"], out["die"], out["say"] = [error(f) for f in others]
    r = shell.result(timeout=60)
    out["shell"] = [r.returncode, r.stdout]
    out["big"] = len(big.result(timeout=60))
    out["too_large"] = error(ex.submit(lambda: "x" * 11_000_000))
    ex.serializer = ComputeSerializer(strategy_code=AllCodeStrategies())
    ex.result_serializers = [JSONData()]
    out["json"] = ex.submit(square, 12).result(timeout=60)
fid = client.register_source_code("def twice(x):\\n    return 2 * x\\n", "twice") if hasattr(client, "register_source_code") else client.register_function(square)
batch = client.create_batch()
for i in range(3): batch.add(fid, (i,))
ids = [t for ts in client.batch_run(sys.argv[1], batch)["tasks"].values() for t in ts]
import time
for _ in range(100):
    got = client.get_batch_result(ids)
    if not any(v["pending"] for v in got.values()): break
    time.sleep(0.1)
out["batch"] = sorted(v["result"] for v in got.values())
out["status"] = client.get_endpoint_status(sys.argv[1])["status"]
print("\\n" + json.dumps(out))
`;

Deno.test("the real SDK submits to the compiled endpoint and gets every kind of answer", async () => {
  await using site = await startSite();
  const id = await site.startEndpoint("sdk", ENGINE);
  const { code, stdout, stderr } = await site.python(SUBMITS, id);
  equal(code, 0, stderr);
  const out = JSON.parse(stdout.trim().split("\n").at(-1)!);
  equal(out.squares, 328350);
  includes(out.fail, "ValueError: on purpose");
  includes(out.leave, "SystemExit: 3");
  includes(out.die, "killed by signal 9 (SIGKILL)");
  includes(out.say, "𝕏");
  equal(out.shell, [4, "shell\n"]);
  equal(out.big, 3_000_000);
  includes(out.too_large, "sha256");
  equal(out.json, 144);
  equal(out.batch.length, 3);
  equal(out.status, "online");

  const status = JSON.parse((await site.endpoint("status", "sdk", "--json")).stdout);
  equal(status.counts.waiting + status.counts.running + status.counts.answering, 0);
  ok(status.counts.answered >= 110, "all tasks were answered");
  equal((await site.endpoint("stop", "sdk")).code, 0);
  includes((await site.endpoint("list")).stdout, "Stopped");
});

Deno.test("another identity can neither use a private endpoint nor read its tasks", async () => {
  await using site = await startSite();
  const id = await site.startEndpoint("private", ENGINE);
  const made = await site.endpoint("service", "client", "--data-dir", `${site.dir}/service`);
  const exports = [...made.stdout.matchAll(/^export (\w+)=(.*)$/gm)].map((m) => [m[1], m[2]]);
  const other = { ...site.env, ...Object.fromEntries(exports) };
  const program = `
import sys
from globus_compute_sdk import Client
c = Client(local_compute_services=True)
def f(): return 1
for call in (lambda: c.run(endpoint_id=sys.argv[1], function_id=c.register_function(f)), lambda: c.get_endpoint_status(sys.argv[1])):
    try: call(); print("allowed")
    except Exception as e: print(getattr(e, "http_status", e))
`;
  const { stdout } = await new Deno.Command(SDK_PYTHON, {
    args: ["-c", program, id],
    env: { ...other, GLOBUS_COMPUTE_USER_DIR: `${site.dir}/other` },
    clearEnv: true,
  }).output();
  equal(new TextDecoder().decode(stdout).trim().split("\n"), ["403", "403"]);
});
