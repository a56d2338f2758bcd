/**
 * `endpoint service`: runs a Compute service of one's own; `endpoint service env` prints how to reach it.
 * @module
 */
import {
  computeDir,
  EX,
  Logger,
  readIfThere,
  stderrSink,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import { Broker, createServiceApp, Store, Tokens } from "../service/mod.ts";

interface Options {
  port: number;
  host: string;
  amqpUrl: string | null;
  dataDir: string;
  rateLimit: number;
}

/** Runs `service ...`. @returns the exit code */
export async function serviceCommand(args: string[]): Promise<number> {
  const [verb] = args;
  const sub = verb === "env" || verb === "client" ? verb : null;
  const options = parse(sub ? args.slice(1) : args);
  if (sub === "env") return await printEnv(options);
  if (sub === "client") return await addClient(options);
  return await serve(options);
}

function parse(args: string[]): Options {
  const options: Options = {
    port: 5000,
    host: "127.0.0.1",
    amqpUrl: Deno.env.get("ENDPOINT_SERVICE_AMQP_URL") ?? null,
    dataDir: `${computeDir()}/service`,
    rateLimit: 20,
  };
  for (let i = 0; i < args.length; i += 2) {
    const [name, value] = [args[i]!, args[i + 1]];
    if (value === undefined) throw new UserError(`${name} needs a value`, { exit: EX.usage });
    if (name === "--port") options.port = Number(value);
    else if (name === "--host") options.host = value;
    else if (name === "--amqp-url") options.amqpUrl = value;
    else if (name === "--data-dir") options.dataDir = value;
    else if (name === "--rate-limit") options.rateLimit = Number(value);
    else {
      throw new UserError(`endpoint service does not know ${name}`, {
        exit: EX.usage,
        hint: "It takes --port, --host, --amqp-url, --data-dir and --rate-limit",
      });
    }
  }
  return options;
}

async function serve(options: Options): Promise<number> {
  if (!options.amqpUrl) {
    throw new UserError("endpoint service needs --amqp-url (or ENDPOINT_SERVICE_AMQP_URL)", {
      exit: EX.usage,
      hint: "For a RabbitMQ on this host: --amqp-url amqp://guest:guest@127.0.0.1:5672",
    });
  }
  const log = new Logger({ sink: stderrSink() }, "service");
  const store = new Store(options.dataDir);
  const tokens = new Tokens(store);
  await ownClient(options, tokens);
  const broker = new Broker({ url: options.amqpUrl, store, log });
  await broker.start();
  const app = createServiceApp({ store, broker, tokens, rateLimit: options.rateLimit, log });
  const server = Deno.serve({
    port: options.port,
    hostname: options.host,
    onListen: ({ hostname, port }) => console.log(`Compute service on http://${hostname}:${port}`),
  }, app.fetch);
  const stop = Promise.withResolvers<void>();
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, stop.resolve);
  await stop.promise;
  await server.shutdown();
  await broker.stop();
  store.close();
  return EX.ok;
}

/** The client that `env` prints, made at the first start. */
async function ownClient(
  options: Options,
  tokens: Tokens,
): Promise<{ id: string; secret: string }> {
  const path = `${options.dataDir}/client.json`;
  const known = readIfThere(path);
  if (known) return JSON.parse(known);
  const client = await tokens.addClient("default");
  writePrivate(path, JSON.stringify(client));
  return client;
}

async function printEnv(options: Options): Promise<number> {
  const tokens = new Tokens(new Store(options.dataDir));
  const { id, secret } = await ownClient(options, tokens);
  printExports(options, id, secret);
  return EX.ok;
}

async function addClient(options: Options): Promise<number> {
  const { id, secret } = await new Tokens(new Store(options.dataDir)).addClient("added");
  printExports(options, id, secret);
  return EX.ok;
}

function printExports(options: Options, id: string, secret: string): void {
  console.log(`export GLOBUS_SDK_SERVICE_URL_AUTH=http://${options.host}:${options.port}/`);
  console.log(`export GLOBUS_COMPUTE_CLIENT_ID=${id}`);
  console.log(`export GLOBUS_COMPUTE_CLIENT_SECRET=${secret}`);
}
