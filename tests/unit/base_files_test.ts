import {
  computeDir,
  concat,
  EX,
  expandPath,
  makePrivateDir,
  readIfThere,
  readUserFile,
  UserError,
  writePrivate,
} from "../../src/base/mod.ts";
import { equal, includes, throws, withDir } from "../support/assert.ts";

Deno.test("writePrivate makes a file of mode 0600 whatever was there, and leaves nothing beside it", () =>
  withDir((dir) => {
    Deno.writeTextFileSync(`${dir}/f`, "old", { mode: 0o644 });
    writePrivate(`${dir}/f`, "new");
    equal(Deno.readTextFileSync(`${dir}/f`), "new");
    equal(Deno.statSync(`${dir}/f`).mode! & 0o777, 0o600);
    equal([...Deno.readDirSync(dir)].length, 1);
  }));
Deno.test("writePrivate gives another mode in spite of the umask", () =>
  withDir((dir) => {
    const old = Deno.umask(0o077);
    try {
      writePrivate(`${dir}/f`, new Uint8Array([1]), { mode: 0o644 });
    } finally {
      Deno.umask(old);
    }
    equal(Deno.statSync(`${dir}/f`).mode! & 0o777, 0o644);
  }));
Deno.test("writePrivate leaves the old file when it cannot replace it", () =>
  withDir(async (dir) => {
    Deno.mkdirSync(`${dir}/f/x`, { recursive: true });
    await throws(() => writePrivate(`${dir}/f`, "new"));
    equal([...Deno.readDirSync(dir)].map((e) => e.name), ["f"]);
  }));
Deno.test("makePrivateDir makes 0700 and leaves an existing folder's mode", () =>
  withDir((dir) => {
    makePrivateDir(`${dir}/a/b`);
    equal(Deno.statSync(`${dir}/a/b`).mode! & 0o777, 0o700);
    Deno.chmodSync(`${dir}/a/b`, 0o755);
    makePrivateDir(`${dir}/a/b`);
    equal(Deno.statSync(`${dir}/a/b`).mode! & 0o777, 0o755);
  }));
Deno.test("readIfThere gives undefined for no file and throws for anything else", () =>
  withDir(async (dir) => {
    equal(readIfThere(`${dir}/none`), undefined);
    await throws(() => readIfThere(dir));
  }));
for (
  const [name, make, code, text] of [
    ["a missing file", () => {}, EX.noinput, "There is no configuration at"],
    ["a directory", (p: string) => Deno.mkdirSync(p), EX.noinput, "is a directory"],
    [
      "a file that is too large",
      (p: string) => Deno.writeTextFileSync(p, "x".repeat(101)),
      EX.dataerr,
      "holds 101 bytes; at most 100",
    ],
    [
      "bytes that are no UTF-8",
      (p: string) => Deno.writeFileSync(p, new Uint8Array([0x61, 0xff])),
      EX.dataerr,
      "is not UTF-8",
    ],
  ] as [string, (path: string) => void, number, string][]
) {
  Deno.test(`readUserFile refuses ${name} by its name`, () =>
    withDir(async (dir) => {
      make(`${dir}/c`);
      const error = await throws(
        () => readUserFile(`${dir}/c`, "configuration", { maxBytes: 100 }),
        UserError,
      );
      equal(error.exit, code);
      includes(error.message, text);
      includes(error.message, `${dir}/c`);
    }));
}
Deno.test("expandPath expands a leading ~ and variables, and leaves unknown ones", () => {
  const home = Deno.env.get("HOME")!;
  Deno.env.set("EP_TEST_PATH", "v");
  try {
    equal(expandPath("~"), home);
    equal(expandPath("~/$EP_TEST_PATH/${EP_TEST_PATH}x"), `${home}/v/vx`);
    equal(expandPath("/a/~/$EP_TEST_UNSET"), "/a/~/$EP_TEST_UNSET");
  } finally {
    Deno.env.delete("EP_TEST_PATH");
  }
});
Deno.test("computeDir prefers the argument to the variable to the home directory", () => {
  const before = Deno.env.get("GLOBUS_COMPUTE_USER_DIR");
  try {
    Deno.env.set("GLOBUS_COMPUTE_USER_DIR", "/var/gc");
    equal(computeDir("rel"), `${Deno.cwd()}/rel`);
    equal(computeDir(), "/var/gc");
    Deno.env.delete("GLOBUS_COMPUTE_USER_DIR");
    equal(computeDir(), `${Deno.env.get("HOME")}/.globus_compute`);
  } finally {
    if (before !== undefined) Deno.env.set("GLOBUS_COMPUTE_USER_DIR", before);
  }
});
Deno.test("concat joins byte arrays", () => {
  equal(concat([new Uint8Array([1]), new Uint8Array(), new Uint8Array([2, 3])]), [1, 2, 3]);
});
