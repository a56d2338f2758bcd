/**
 * `./dev ok` and `./dev test`: runs the checks and the suites one after another and sums what they report.
 *
 * The numbers come from the suites' own JUnit files (see junit.ts), never from their text; checks that fail count
 * as failures, checks that pass count for nothing. The last line, `N passed, N failed`, is also left in
 * `.tools/results/summary.txt`.
 * @module
 */
import { type Counts, judge, sum } from "./junit.ts";
import { layerFaults, projectImports } from "./layers.ts";

/** Project folder. */
const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const RESULTS = `${ROOT}/.tools/results`;

/** A check: passes or says what is wrong. */
interface Check {
  name: string;
  run: () => Promise<{ code: number; text: string }>;
}

/** A suite: leaves a JUnit file. */
interface Suite {
  name: string;
  /** Folders of its Deno tests; a suite without is one of pytest. */
  dirs?: string[];
  /** More arguments for the runner. */
  args?: string[];
  /** Ended, and counted as failed, after so many milliseconds. */
  limitMs: number;
}

const MINUTE = 60_000;
const SUITES: Suite[] = [
  {
    name: "unit",
    dirs: ["tests/unit"],
    args: ["--parallel", "--trace-leaks", "--doc", "src", "providers"],
    limitMs: 8 * MINUTE,
  },
  { name: "python", limitMs: 10 * MINUTE },
  { name: "integration", dirs: ["tests/integration"], limitMs: 15 * MINUTE },
  { name: "e2e", dirs: ["tests/e2e"], limitMs: 20 * MINUTE },
  { name: "smoke", dirs: ["tests/bench", "tests/chaos", "tests/demo"], limitMs: 6 * MINUTE },
];

const deno = (...args: string[]) => async () => {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args, cwd: ROOT })
    .output();
  const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  return { code, text: decode(stdout) + decode(stderr) };
};

/** Paths below `dir` whose name passes; none if there is no such folder. */
function files(dir: string, wanted: (name: string) => boolean): string[] {
  const found: string[] = [];
  try {
    for (const entry of Deno.readDirSync(`${ROOT}/${dir}`)) {
      const path = `${dir}/${entry.name}`;
      if (entry.isDirectory) found.push(...files(path, wanted));
      else if (wanted(entry.name)) found.push(path);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return found.sort();
}

const isTest = (name: string) => name.endsWith("_test.ts");

const CHECKS: Check[] = [
  { name: "format", run: deno("fmt", "--check") },
  { name: "lint", run: deno("lint") },
  { name: "types", run: deno("check", "mod.ts", "src", "providers", "tests") },
  {
    name: "layers",
    run: () => {
      const faults = layerFaults(projectImports(ROOT));
      return Promise.resolve({ code: faults.length ? 1 : 0, text: faults.join("\n") });
    },
  },
  {
    name: "doc comments",
    run: async () => {
      const isDoor = (name: string) => name === "mod.ts";
      const doors = ["mod.ts", ...files("src", isDoor), ...files("providers", isDoor)];
      return docFaults((await deno("doc", "--lint", ...doors)()).text);
    },
  },
];

/**
 * What `deno doc --lint` finds, without comments missing on the members of a type or class: where a member's name
 * says it all, a sentence would only repeat it.
 */
export function docFaults(output: string): { code: number; text: string } {
  // deno-lint-ignore no-control-regex
  const plain = output.replace(/\x1b\[[0-9;]*m/g, "");
  const faults = [
    ...plain.matchAll(/^error(?:\[([\w-]+)\])?: (.*)\n(?:\s*--> (.*):(\d+):(\d+))?/gm),
  ]
    .filter(([, rule, , file, , column]) =>
      !(rule === "missing-jsdoc" && Number(column) > 1) && (rule || !file)
    )
    .filter(([, rule, text]) => rule || !/^Found \d+ documentation lint error/.test(text!))
    .map(([, rule, text, file, line]) =>
      `${file ?? "deno doc"}:${line ?? ""} ${rule ?? ""} ${text}`
    );
  return { code: faults.length > 0 ? 1 : 0, text: faults.join("\n") };
}

/**
 * A network of the suite's own, where that can be had: loopback alone. Tests never leave the host, and nobody else's
 * service answers at the port where the SDK looks for a local one.
 */
const OWN_NETWORK = ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh"];

async function ownNetwork(): Promise<string[]> {
  if (Deno.uid() !== 0) return [];
  try {
    const [program, ...args] = OWN_NETWORK;
    const { success } = await new Deno.Command(program!, {
      args: [...args, "ip", "route", "get", "127.0.0.1"],
      stdout: "null",
      stderr: "null",
    }).output();
    return success ? OWN_NETWORK : [];
  } catch {
    return [];
  }
}

/** Runs one suite to its end or its time limit. */
async function runSuite(suite: Suite, only: string[]): Promise<Counts & { note?: string }> {
  const report = `${RESULTS}/${suite.name}.xml`;
  await Deno.remove(report).catch(() => {});
  const tests = suite.dirs?.flatMap((dir) => files(dir, isTest))
    .filter((file) => only.length === 0 || only.includes(file));
  const runner = tests
    ? [Deno.execPath(), "test", "-A", "--no-check", `--junit-path=${report}`]
    : [`${ROOT}/.tools/sdk-venv/bin/python`, "-m", "pytest", "-q", `--junitxml=${report}`];
  const extra = only.length ? [] : suite.args ?? [];
  const argv = [...await ownNetwork(), ...runner, ...extra, ...tests ?? ["tests/python"]];
  const child = new Deno.Command(argv[0]!, {
    args: argv.slice(1),
    cwd: ROOT,
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
    detached: true, // the whole group ends with it
  }).spawn();
  const end = () => {
    try {
      Deno.kill(-child.pid, "SIGKILL");
    } catch { /* gone */ }
  };
  const timer = setTimeout(() => {
    console.error(`${suite.name}: ended after ${suite.limitMs / MINUTE} minutes`);
    end();
  }, suite.limitMs);
  const interrupted = () => {
    end();
    Deno.exit(130);
  };
  Deno.addSignalListener("SIGINT", interrupted);
  Deno.addSignalListener("SIGTERM", interrupted);
  const { code } = await child.status;
  clearTimeout(timer);
  Deno.removeSignalListener("SIGINT", interrupted);
  Deno.removeSignalListener("SIGTERM", interrupted);
  const xml = await Deno.readTextFile(report).catch(() => undefined);
  return judge(code, xml, { files: tests });
}

/** Whether there is anything to run: a suite that has no file yet is left out, and said so. */
function hasTests(suite: Suite): boolean {
  if (suite.dirs) return suite.dirs.some((dir) => files(dir, isTest).length > 0);
  return files("tests/python", (name) => /^test_.*\.py$|_test\.py$/.test(name)).length > 0;
}

async function main(args: string[]): Promise<number> {
  const ok = args[0] === "ok";
  const only = args.slice(1).filter((arg) => arg.endsWith(".ts"));
  const named = args.slice(1).filter((arg) => !arg.endsWith(".ts"));
  const unknown = named.find((name) => !SUITES.some((suite) => suite.name === name));
  if (unknown) {
    console.error(`There is no suite "${unknown}": ${SUITES.map((s) => s.name).join(", ")}`);
    return 64;
  }
  const whole = only.length === 0 && named.length === 0;
  await Deno.mkdir(RESULTS, { recursive: true });
  await Deno.remove(`${RESULTS}/summary.txt`).catch(() => {});
  const lines: string[] = [];
  const results: Counts[] = [];
  const record = (name: string, counts: Counts & { note?: string }, started: number) => {
    results.push(counts);
    const { passed, failed, skipped, note } = counts;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    lines.push(
      `${name.padEnd(14)} ${passed} passed, ${failed} failed, ${skipped} skipped, ${seconds} s` +
        (note ? `  (${note})` : ""),
    );
  };
  const check = async ({ name, run }: Check) => {
    const started = performance.now();
    const { code, text } = await run();
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`${code === 0 ? "ok" : "FAILED"}  ${name} (${seconds} s)`);
    if (code === 0) return;
    console.log(text);
    record(name, { passed: 0, failed: 1, skipped: 0 }, started);
  };
  if (whole) { for (const each of CHECKS) await check(each); }
  const suites = SUITES.filter(({ name, dirs }) =>
    only.length
      ? dirs?.some((dir) => only.some((file) => file.startsWith(`${dir}/`)))
      : named.length
      ? named.includes(name)
      : !ok || name === "unit" || name === "python"
  );
  if (suites.some(({ name }) => !["unit", "python"].includes(name))) {
    await check({ name: "compile", run: deno("run", "-A", "tests/tools/compile.ts") });
  }
  for (const suite of suites) {
    const started = performance.now();
    console.log(`\n==== ${suite.name}`);
    if (!hasTests(suite)) {
      lines.push(`${suite.name.padEnd(14)} has no tests yet`);
      continue;
    }
    record(suite.name, await runSuite(suite, only), started);
  }
  const total = sum(results);
  console.log(`\n${lines.join("\n")}`);
  const last = `${total.passed} passed, ${total.failed} failed`;
  await Deno.writeTextFile(`${RESULTS}/summary.txt`, `${last}\n`);
  if (total.skipped) console.log(`${total.skipped} skipped`);
  console.log(last);
  return total.failed > 0 || total.passed === 0 ? 1 : 0;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
