/**
 * `./dev demo`: a broker, a Compute service of one's own, an endpoint, and functions submitted to it with the real
 * SDK; every hop is real. Cleans up what it started.
 *
 *     ./dev demo           runs the functions and ends
 *     ./dev demo --keep    stays up afterwards, until Ctrl-C
 * @module
 */
import { compile } from "../tools/compile.ts";
import { startBroker } from "../support/rabbitmq.ts";
import { endMarked } from "../support/processes.ts";

const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
const ENDPOINT = `${ROOT}/endpoint`;
const PYTHON = `${ROOT}/.tools/sdk-venv/bin/python`;
const PORT = 5000;

/** Values of lines like `export NAME='value'`. */
export function exported(text: string): Record<string, string> {
  const values: Record<string, string> = {};
  for (const [, name, quoted] of text.matchAll(/^export (\w+)=(.*)$/gm)) {
    values[name!] = quoted!.replace(/^'(.*)'$|^"(.*)"$/, (_all, a, b) => a ?? b)
      .replaceAll("'\\''", "'");
  }
  return values;
}

/** Whether the one port is free at which the SDK looks for a service of one's own. */
function requirePort(): void {
  try {
    Deno.listen({ hostname: "127.0.0.1", port: PORT }).close();
  } catch {
    throw new Error(
      `Port ${PORT} is taken by another program, and the SDK looks for a local service nowhere else: ` +
        `end it (ss -ltnp 'sport = :${PORT}' names it) and try again`,
    );
  }
}

/** Runs a program to its end; gives what it printed. */
async function call(argv: string[], env: Record<string, string>): Promise<string> {
  const child = new Deno.Command(argv[0]!, {
    args: argv.slice(1),
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const text = await new Response(child.stdout).text();
  const { code } = await child.status;
  if (code !== 0) throw new Error(`${argv.slice(0, 3).join(" ")} ended with ${code}\n${text}`);
  return text;
}

/** Starts the service and waits for its ready line. */
async function startService(args: string[], env: Record<string, string>) {
  const child = new Deno.Command(ENDPOINT, {
    args: ["service", ...args],
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let said = "";
  const ready = Promise.withResolvers<void>();
  const take = async (stream: ReadableStream<Uint8Array>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) {
      said = (said + text).slice(-20_000);
      if (/Compute service on /.test(said)) ready.resolve();
    }
  };
  void take(child.stdout);
  void take(child.stderr);
  void child.status.then(({ code }) =>
    ready.reject(new Error(`endpoint service ended with ${code}:\n${said}`))
  );
  await ready.promise;
  return child;
}

const say = (text: string) => console.log(`demo: ${text}`);

async function demo(keep: boolean): Promise<void> {
  requirePort();
  await using stack = new AsyncDisposableStack();
  const dir = await Deno.makeTempDir({ prefix: "endpoint-demo-" });
  stack.defer(() => Deno.remove(dir, { recursive: true }));
  const token = crypto.randomUUID();
  stack.defer(async () => {
    const left = await endMarked(`ENDPOINT_DEMO=${token}`);
    console.log(left ? `demo: ${left} processes had to be ended` : "demo: nothing is left running");
  });
  const interrupted = Promise.withResolvers<never>();
  interrupted.promise.catch(() => {});
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    Deno.addSignalListener(signal, () => interrupted.reject(new Error("interrupted")));
  }

  say("building ./endpoint");
  await compile({ say });
  say("starting RabbitMQ");
  const broker = stack.use(await startBroker());
  const env: Record<string, string> = {
    ENDPOINT_DEMO: token,
    HOME: dir,
    GLOBUS_COMPUTE_USER_DIR: `${dir}/compute`,
    PATH: `${ROOT}/.tools/sdk-venv/bin:${Deno.env.get("PATH")}`,
  };
  say("starting a Compute service: endpoint service");
  const data = ["--data-dir", `${dir}/service`];
  const port = ["--port", String(PORT)];
  const service = await startService([...data, ...port, "--amqp-url", broker.url], env);
  stack.defer(async () => {
    service.kill("SIGTERM");
    await service.status;
  });
  const lines = await call([ENDPOINT, "service", "env", ...data, ...port], env);
  Object.assign(env, exported(lines));
  say(
    "configuring and starting an endpoint: endpoint configure demo; endpoint start demo --detach",
  );
  await call([ENDPOINT, "configure", "demo"], env);
  const config = `${dir}/compute/demo/config.yaml`;
  const written = await Deno.readTextFile(config);
  if (!/^local_compute_services:/m.test(written)) {
    await Deno.writeTextFile(config, `local_compute_services: true\n${written}`);
  }
  const started = await call([ENDPOINT, "start", "demo", "--detach"], env);
  stack.defer(async () => {
    await call([ENDPOINT, "stop", "demo"], env).catch((error) => say(error.message));
  });
  const uuid = started.match(/Endpoint UUID: ([0-9a-f-]{36})/)?.[1];
  if (!uuid) throw new Error(`endpoint start printed no UUID:\n${started}`);
  say(`Endpoint UUID: ${uuid}`);
  const python = new Deno.Command(PYTHON, {
    args: [`${ROOT}/tests/demo/demo.py`, uuid],
    env,
    stdin: "null",
  }).spawn();
  const { code } = await Promise.race([python.status, interrupted.promise]);
  if (code !== 0) throw new Error(`the functions ended with ${code}`);
  console.log(next(uuid, keep ? lines : undefined));
  if (keep) await interrupted.promise.catch(() => {});
}

/** What to type next. */
function next(uuid: string, env?: string): string {
  if (env === undefined) {
    return `
All of it was real: SDK > web service > RabbitMQ > endpoint > NATS JetStream > manager > Python worker, and back.
What to type next:
    ./dev demo --keep              the same, and it stays up for functions of your own
    ./endpoint --help              all commands
    ./endpoint configure mine      an endpoint of your own; its config.yaml says what can be set
`;
  }
  return `
It stays up until Ctrl-C. In another terminal:
${env.trim().replace(/^/gm, "    ")}
    ${PYTHON}
    >>> from globus_compute_sdk import Client, Executor
    >>> executor = Executor("${uuid}", client=Client(local_compute_services=True))
    >>> executor.submit(pow, 2, 10).result()
`;
}

if (import.meta.main) {
  try {
    await demo(Deno.args.includes("--keep"));
    Deno.exit(0);
  } catch (error) {
    console.error(`demo: ${(error as Error).message}`);
    Deno.exit(1);
  }
}
