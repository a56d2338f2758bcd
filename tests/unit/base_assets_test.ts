import {
  extractAsset,
  extractWorker,
  listAssets,
  natsServerPath,
  readAsset,
  run,
} from "../../src/base/mod.ts";
import { equal, ok, throws, withDir } from "../support/assert.ts";
import { UserError } from "../../src/base/mod.ts";

Deno.test("readAsset reads a file of the tree", () => {
  ok(readAsset(".tools/assets/dill-0.3.9-py3-none-any.whl").length > 100_000, "the dill wheel");
  ok(listAssets(".tools/assets").includes("nats-server"), "the server is listed");
});
Deno.test("extractAsset writes once, under a name that carries the content", () =>
  withDir(async (dir) => {
    const first = await extractAsset("src/base/version.ts", { dir });
    const before = Deno.statSync(first);
    equal(await extractAsset("src/base/version.ts", { dir }), first);
    equal(Deno.statSync(first).ino, before.ino);
    equal(before.mode! & 0o777, 0o600);
    equal(Deno.readFileSync(first), Deno.readFileSync("src/base/version.ts"));
  }));
Deno.test("extractAsset writes again over a copy that was damaged", () =>
  withDir(async (dir) => {
    const path = await extractAsset("src/base/version.ts", { dir });
    const bytes = Deno.readFileSync(path);
    for (const wrong of [bytes.subarray(5), bytes.map((b) => b ^ 1)]) {
      Deno.writeFileSync(path, wrong);
      equal(await extractAsset("src/base/version.ts", { dir }), path);
      equal(Deno.readFileSync(path), bytes);
    }
  }));
Deno.test("extractAsset says which folder cannot be written", () =>
  withDir(async (dir) => {
    Deno.writeTextFileSync(`${dir}/file`, "");
    const error = await throws(
      () => extractAsset("src/base/version.ts", { dir: `${dir}/file/x` }),
      UserError,
    );
    equal([error.exit, error.message.includes(`${dir}/file/x`)], [73, true]);
  }));
Deno.test("natsServerPath gives a server that runs, also to several at once", () =>
  withDir(async (dir) => {
    const paths = await Promise.all([1, 2, 3].map(() => natsServerPath(dir)));
    equal(new Set(paths).size, 1);
    const { code, stdout } = await run([paths[0]!, "--version"]);
    ok(code === 0 && stdout.includes("v2."), stdout);
  }));
Deno.test("extractWorker puts the worker and dill beside each other, and mends a copy cut short", () =>
  withDir(async (dir) => {
    const target = await extractWorker(dir);
    const names = () => [...Deno.readDirSync(target)].map((e) => e.name).sort();
    const first = names();
    ok(first.includes("dill-0.3.9-py3-none-any.whl"), first.join());
    Deno.removeSync(`${target}/.complete`);
    Deno.writeTextFileSync(`${target}/dill-0.3.9-py3-none-any.whl`, "short");
    equal(await extractWorker(dir), target);
    equal(names(), first);
    ok(Deno.statSync(`${target}/dill-0.3.9-py3-none-any.whl`).size > 100_000, "whole again");
  }));
