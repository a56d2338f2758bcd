/**
 * A whole site for tests: RabbitMQ, `endpoint service` and an endpoint, all real, all from the compiled executable, in a folder of
 * its own with an environment of its own.
 * @module
 */
import { endMarked } from "./processes.ts";
import { type Broker, startBroker } from "./rabbitmq.ts";

/** Project folder. */
export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
/** The Python that has the real SDK. */
export const SDK_PYTHON = `${ROOT}/.tools/sdk-venv/bin/python`;

/** What a program wrote and how it ended. */
export interface Ran {
  code: number;
  stdout: string;
  stderr: string;
}

/** A running site. */
export interface Site extends AsyncDisposable {
  readonly dir: string;
  readonly broker: Broker;
  readonly env: Record<string, string>;
  /** Runs `./endpoint ARGS`. */
  endpoint(...args: string[]): Promise<Ran>;
  /** Makes and starts an endpoint; `engine` is YAML below `engine:`, indented by two. @returns its UUID */
  startEndpoint(name: string, engine: string, top?: string): Promise<string>;
  /** Runs a Python program with the SDK. */
  python(program: string, ...args: string[]): Promise<Ran>;
  /** Process ids of the endpoint's parts, from its own records. */
  pids(name: string): { endpoint: number; bus: number; manager: number };
}

/** Starts a site; the service listens where the SDK's `local_compute_services` looks, so one at a time. */
export async function startSite(): Promise<Site> {
  // the SDK knows one address of a local service only: sites of other test runs on this host have to wait
  const port = await Deno.open("/tmp/endpoint-tests-port-5000.lock", { create: true, write: true });
  await port.lock(true);
  const mark = `site-${crypto.randomUUID().slice(0, 8)}`;
  const broker = await startBroker();
  const dir = await Deno.makeTempDir({ prefix: `${mark}-` });
  await Deno.copyFile(`${ROOT}/endpoint`, `${dir}/endpoint`);
  const base = {
    PATH: Deno.env.get("PATH")!,
    HOME: dir,
    SITE_MARK: mark,
    GLOBUS_COMPUTE_USER_DIR: `${dir}/compute`,
  };
  const service = new Deno.Command(`${dir}/endpoint`, {
    args: [
      "service",
      "--amqp-url",
      broker.url,
      "--data-dir",
      `${dir}/service`,
      "--rate-limit",
      "0",
    ],
    env: base,
    clearEnv: true,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const call = async (argv: string[], env: Record<string, string>): Promise<Ran> => {
    const { code, stdout, stderr } = await new Deno.Command(argv[0]!, {
      args: argv.slice(1),
      env,
      clearEnv: true,
      cwd: dir,
      stdin: "null",
    }).output();
    const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    return { code, stdout: text(stdout), stderr: text(stderr) };
  };
  await untilAnswers("http://localhost:5000/v2/version", service);
  const printed = await call(
    [`${dir}/endpoint`, "service", "env", "--data-dir", `${dir}/service`],
    base,
  );
  const exports = [...printed.stdout.matchAll(/^export (\w+)=(.*)$/gm)].map((m) => [m[1], m[2]]);
  const env: Record<string, string> = { ...base, ...Object.fromEntries(exports) };
  const names = new Set<string>();
  const site: Site = {
    dir,
    broker,
    env,
    endpoint: (...args) => call([`${dir}/endpoint`, ...args], env),
    python: (program, ...args) => call([SDK_PYTHON, "-c", program, ...args], env),
    startEndpoint: async (name, engine, top = "") => {
      names.add(name);
      await site.endpoint("configure", name);
      const config = `local_compute_services: true\n${top}engine:\n${engine}`;
      await Deno.writeTextFile(`${dir}/compute/${name}/config.yaml`, config);
      const { code, stdout, stderr } = await site.endpoint("start", name, "--detach");
      if (code !== 0) throw new Error(`The endpoint did not start (${code}): ${stderr}`);
      return /Endpoint UUID: (\S+)/.exec(stdout)![1]!;
    },
    pids: (name) => {
      const state = `${dir}/compute/${name}/state`;
      const read = (file: string) => JSON.parse(Deno.readTextFileSync(`${state}/${file}`));
      return {
        endpoint: read("lock.json").pid,
        bus: read("bus/server.json").process.pid,
        manager: read("blocks.json")[0].process.pid,
      };
    },
    [Symbol.asyncDispose]: async () => {
      for (const name of names) await site.endpoint("stop", name);
      try {
        Deno.kill(service.pid, "SIGTERM");
      } catch { /* it ended before, which the test has noticed */ }
      await service.status;
      await endMarked(`SITE_MARK=${mark}`);
      await broker[Symbol.asyncDispose]();
      await Deno.remove(dir, { recursive: true });
      port.close();
    },
  };
  return site;
}

async function untilAnswers(url: string, service: Deno.ChildProcess): Promise<void> {
  let ended = false;
  void service.status.then(() => ended = true);
  for (let tries = 0; tries < 200; tries++) {
    if (ended) throw new Error("endpoint service ended before it answered");
    try {
      const response = await fetch(url);
      await response.body?.cancel();
      if (response.ok) return;
    } catch { /* not yet */ }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error("endpoint service did not answer within 10 s");
}
