import plugin from "../tools/lint_plugin.ts";
import { countJunit, judge, sum } from "../tools/junit.ts";
import { importsOf, layerFaults, projectImports } from "../tools/layers.ts";
import { docFaults } from "../tools/suites.ts";
import { missing, NEEDS } from "../tools/provide.ts";
import { equal, includes, ok, throws } from "../support/assert.ts";

const HEAD = "/**\n * Owns it.\n * @module\n */\n";
const lint = (source: string, name = "x.ts") =>
  Deno.lint.runPlugin(plugin, name, source).map(({ id }) => id.replace("house/", ""));

Deno.test("lint plugin wants a module comment at the top, but not in tests", () => {
  equal(lint("export const a = 1;\n"), ["module-comment"]);
  equal(lint("// a line\n" + HEAD), ["module-comment"]);
  equal(lint("#!/usr/bin/env deno\n" + HEAD + "export const a = 1;\n"), []);
  equal(lint("const a = 1;\n", "x_test.ts"), []);
});
Deno.test("lint plugin wants #names", () => {
  equal(lint(HEAD + "class A { private a = 1; private b() {} }\n"), [
    "private-names",
    "private-names",
  ]);
  equal(lint(HEAD + "class A { #a = 1; protected b() {} private constructor() {} }\n"), []);
});
Deno.test("lint plugin allows two positional arguments, then options or a callback", () => {
  const bad = [
    "export function f(a: 1, b: 1, c: 1) {}",
    "export function f(a: 1, b: 1, c = 1) {}",
    "export default function f(a: 1, b: 1, c: 1) {}",
  ];
  for (const source of bad) equal(lint(HEAD + source), ["positional-arguments"], source);
  const good = [
    "export function f(a: 1, b: 1, options: {} = {}) {}",
    "export function f(a: 1, b: 1, { c }: { c?: 1 } = {}) {}",
    "export function f(a: 1, b: 1, done: () => void) {}",
    "export function f(a: 1, b: 1, ...rest: 1[]) {}",
    "function f(a: 1, b: 1, c: 1) {}",
  ];
  for (const source of good) equal(lint(HEAD + source), [], source);
  equal(lint(HEAD + bad[0]!, "/p/tests/x.ts"), [], "tests may");
});
Deno.test("lint plugin wants packages to be imported statically", () => {
  equal(lint(HEAD + 'await import("zod");'), ["dynamic-import"]);
  equal(lint(HEAD + 'const name = "x"; await import(name);'), ["dynamic-import"]);
  equal(lint(HEAD + 'await import("./x.ts"); await import("node:sqlite");'), []);
});
Deno.test("lint plugin wants files of at most 400 lines, or the reason why one is long", () => {
  const lines = (count: number) => "export {};\n".repeat(count);
  equal(lint(HEAD + lines(396)), []);
  equal(lint(HEAD + lines(397)), ["file-length"]);
  equal(lint(HEAD.replace("it.", "it. Long, for it is one table.") + lines(397)), []);
});

const report = (cases: string) =>
  `<?xml?>\n<testsuites><testsuite name="./a_test.ts">${cases}` +
  `</testsuite></testsuites>\n`;
const PASSED = '<testcase name="a &gt; b" time="0.1"></testcase>';
const FAILED = '<testcase name="f" time="0.1"><failure message="x">y</failure></testcase>';

Deno.test("countJunit counts cases by themselves, whatever their texts say", () => {
  const tricky =
    '<testcase name="t" time="1"><system-out><![CDATA[</testcase><testcase><failure/>]]>' +
    "</system-out></testcase>";
  const skipped = '<testcase name="s" time="0.0"><skipped/></testcase>';
  const hanging = '<testcase name="h"><skipped/></testcase>';
  const xml = report(
    PASSED + '<testcase name="e" time="0"/>' + FAILED + tricky + skipped + hanging,
  );
  equal(countJunit(xml), { passed: 3, failed: 2, skipped: 1 });
});
Deno.test("countJunit refuses a report cut short", async () => {
  await throws(() => countJunit(report(PASSED).slice(0, -20)), SyntaxError);
});
Deno.test("judge counts a crash, a missing report, an empty one and a lost file as failures", () => {
  const failures = (code: number, xml?: string, files?: string[]) =>
    judge(code, xml, { files }).failed;
  equal(failures(0, report(PASSED), ["a_test.ts"]), 0);
  equal(failures(1, report(PASSED)), 1);
  equal(failures(137, undefined), 1);
  equal(failures(0, undefined), 1);
  equal(failures(0, report("")), 1);
  equal(failures(0, report(PASSED), ["a_test.ts", "b_test.ts"]), 1);
  equal(failures(1, report(PASSED + FAILED), ["a_test.ts", "b_test.ts"]), 2);
  equal(sum([judge(0, report(PASSED)), judge(1, undefined)]), { passed: 1, failed: 1, skipped: 0 });
});

const faults = (...texts: [path: string, text: string][]) =>
  layerFaults(texts.flatMap(([path, text]) => importsOf(path, text)));

Deno.test("importsOf sees every form of a relative import, and no comment", () => {
  const found = importsOf(
    "src/a/b.ts",
    `import { x,\n  y } from "../c/mod.ts";\nimport "./side.ts";\nexport * from "./e.ts";\n` +
      `import type { T } from "./t.ts";\nimport { type U } from "./u.ts";\nawait import("./lazy.ts");\n` +
      `import z from "zod";\n/* import "./no.ts"; */\n// import "./no.ts";\nimport d, * as all from "./d.ts";\n`,
  );
  equal(found.map(({ to, typeOnly }) => `${to}${typeOnly ? " type" : ""}`).sort(), [
    "src/a/d.ts",
    "src/a/e.ts",
    "src/a/lazy.ts",
    "src/a/side.ts",
    "src/a/t.ts type",
    "src/a/u.ts type",
    "src/c/mod.ts",
  ]);
});
Deno.test("layerFaults refuses imports upwards, past a door, and in a circle", () => {
  equal(faults(["src/endpoint/a.ts", 'import "../bus/mod.ts";']), []);
  equal(faults(["src/endpoint/a.ts", 'import type { B } from "../bus/types.ts";']), []);
  includes(faults(["src/bus/a.ts", 'import "../endpoint/mod.ts";'])[0]!, "lies below");
  includes(faults(["src/endpoint/a.ts", 'import "../bus/link.ts";'])[0]!, "past the door");
  includes(faults(["src/endpoint/a.ts", 'import "../misc/mod.ts";'])[0]!, "no room");
  includes(
    faults(["src/bus/a.ts", 'import "./b.ts";'], ["src/bus/b.ts", 'import "./a.ts";'])[0]!,
    "Files import in a circle: src/bus/a.ts > src/bus/b.ts > src/bus/a.ts",
  );
  equal(
    faults(["src/bus/a.ts", 'import "./b.ts";'], [
      "src/bus/b.ts",
      'import type { A } from "./a.ts";',
    ]),
    [],
  );
  includes(
    faults(["src/bus/a.ts", 'import "../amqp/mod.ts";'], [
      "src/amqp/b.ts",
      'import "../bus/mod.ts";',
    ])[0]!,
    "Rooms import in a circle",
  );
});
Deno.test("projectImports reads this project", () => {
  const found = projectImports(Deno.cwd());
  ok(
    found.some(({ from, to }) => from === "mod.ts" && to === "src/cli/main.ts"),
    "the door's import",
  );
  ok(found.some(({ from }) => from.startsWith("src/bus/")), "the rooms' imports");
});

Deno.test("missing orders parts by what they need, and knows every part that a command names", () => {
  for (const [command, parts] of Object.entries(NEEDS)) {
    const order = missing(parts);
    ok(Array.isArray(order), command);
  }
});

Deno.test("docFaults keeps all but comments missing on members, and an error of Deno itself", () => {
  const member = "error[missing-jsdoc]: exported symbol is missing\n  --> /p/a.ts:4:3\n   | \n";
  const symbol = "error[missing-jsdoc]: exported symbol is missing\n  --> /p/a.ts:5:1\n   | \n";
  const hidden = "error[private-type-ref]: public type\n  --> /p/a.ts:6:3\n   | \n";
  const last = "error: Found 3 documentation lint errors.\n";
  equal(docFaults(member + last).code, 0);
  equal(docFaults(""), { code: 0, text: "" });
  equal(docFaults(member + symbol + hidden + last).text.split("\n").length, 2);
  equal(docFaults("error: Module not found\n").code, 1);
});
