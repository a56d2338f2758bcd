/**
 * What the bench compares: the floor, the public agent 4.19, and ours. All three use queues that the driver made.
 *
 * The public agent is started as its manager would: `_start-user-endpoint` with the queues on standard input
 * (protocol.md section 7). Ours is started with `endpoint start` and registers first, with a stand-in for the web
 * service that answers every registration with the driver's queues.
 * @module
 */
import type { AgentQueues } from "./driver.ts";
import { endMarked, type ProcessUse, usesOf } from "../support/processes.ts";

/** Project folder. */
export const ROOT = new URL("../../", import.meta.url).pathname.replace(/\/$/, "");
/** The virtual environment of the real SDK and the public agent. */
export const VENV = `${ROOT}/.tools/sdk-venv`;

/** How an agent is started. */
export interface AgentOptions {
  queues: AgentQueues;
  /** Python workers; the floor has none. */
  workers: number;
  /** `data` of the floor's results. */
  result: string;
}

/** A running agent. */
export interface Agent {
  /** Its processes now. */
  uses(): ProcessUse[];
  /** Ends it, in an orderly way first; gives how many processes were left and had to be killed. */
  stop(): Promise<number>;
  /** Rejects if it ends by itself; the message holds its last words. */
  readonly ended: Promise<never>;
}

/** The kinds of agents. */
export type Kind = "floor" | "public" | "ours";

/** Starts an agent. It may need seconds before it takes its first task. */
export async function startAgent(kind: Kind, options: AgentOptions): Promise<Agent> {
  const dir = await Deno.makeTempDir({ prefix: `bench-${kind}-` });
  const mark = `EP_BENCH=${crypto.randomUUID()}`;
  const { argv, input, env = {} } = await STARTS[kind](options, dir);
  const registry = kind === "ours" ? standIn(options.queues) : undefined;
  const [name, value] = mark.split("=") as [string, string];
  const child = new Deno.Command("sh", {
    // a file, not a pipe: nobody's writing stops when the bench ends
    args: ["-c", 'exec "$@" > "$0" 2>&1', `${dir}/output`, ...argv],
    cwd: dir,
    clearEnv: true,
    env: {
      [name]: value,
      HOME: dir,
      USER: Deno.env.get("USER") ?? "root",
      LANG: "C.UTF-8",
      PATH: `${VENV}/bin:/usr/local/bin:/usr/bin:/bin`,
      DENO_DIR: Deno.env.get("DENO_DIR") ?? `${Deno.env.get("HOME")}/.cache/deno`,
      GLOBUS_COMPUTE_USER_DIR: dir,
      ...env,
    },
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(JSON.stringify(input)));
  await writer.close();
  let stopping = false;
  const ended = child.status.then(async ({ code }) => {
    if (stopping) return new Promise<never>(() => {});
    const words = await Deno.readTextFile(`${dir}/output`).catch(() => "");
    const logged = await Deno.readTextFile(`${dir}/bench/endpoint.log`).catch(() => "");
    throw new Error(
      `${kind} ended with ${code}: ${words.slice(-2000)}\n${logged.slice(-3000)}`,
    );
  });
  ended.catch(() => {});
  return {
    ended,
    uses: () => usesOf(mark, child.pid),
    stop: async () => {
      if (stopping) return 0;
      stopping = true;
      try {
        // to ours TERM means: come back soon, the workers stay
        child.kill(kind === "ours" ? "SIGINT" : "SIGTERM");
      } catch { /* gone */ }
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await child.status;
      clearTimeout(timer);
      await registry?.shutdown();
      // its processes may take a moment to follow it
      for (let n = 0; n < 30 && usesOf(mark).length > 0; n++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      const left = await endMarked(mark);
      await Deno.remove(dir, { recursive: true }).catch(() => {});
      return left;
    },
  };
}

/** Where the SDK and both agents look for a local web service. */
const SERVICE_PORT = 5000;

/** What a kind of agent is started with. */
interface Start {
  argv: string[];
  /** JSON for its standard input. */
  input: unknown;
  env?: Record<string, string>;
}

const STARTS: Record<Kind, (options: AgentOptions, dir: string) => Promise<Start> | Start> = {
  floor: ({ queues, result }) => {
    const { exchange, queue_publish_kwargs, connection_url } = queues.result_queue_info;
    const { routing_key } = queue_publish_kwargs as Record<string, unknown>;
    const config = ["-c", `${ROOT}/deno.json`];
    return {
      argv: [Deno.execPath(), "run", "-A", ...config, `${ROOT}/tests/bench/floor.ts`],
      input: {
        url: connection_url,
        taskQueue: queues.task_queue_info.queue,
        exchange,
        routingKey: routing_key,
        result,
      },
    };
  },
  public: async ({ queues, workers }, dir) => {
    await Deno.mkdir(`${dir}/bench`, { mode: 0o700 });
    return {
      argv: [`${VENV}/bin/globus-compute-endpoint`, "_start-user-endpoint", "bench"],
      input: { amqp_creds: queues, config: config(workers), ep_info: {} },
    };
  },
  ours: async ({ workers }, dir) => {
    await Deno.mkdir(`${dir}/bench`, { mode: 0o700 });
    const text = `local_compute_services: true\n${config(workers)}`;
    await Deno.writeTextFile(`${dir}/bench/config.yaml`, text, { mode: 0o600 });
    return {
      argv: [`${ROOT}/endpoint`, "start", "bench"],
      input: {},
      env: {
        GLOBUS_SDK_SERVICE_URL_AUTH: `http://127.0.0.1:${SERVICE_PORT}/`,
        GLOBUS_COMPUTE_CLIENT_ID: crypto.randomUUID(),
        GLOBUS_COMPUTE_CLIENT_SECRET: "bench",
      },
    };
  },
};

/**
 * The same words to both agents: one node, so many workers whatever the machine's cores (by default there would be
 * one a core at most), everything else as it comes.
 */
function config(workers: number): string {
  return `engine:
  type: GlobusComputeEngine
  max_workers_per_node: ${workers}
  cores_per_worker: 0.1
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
`;
}

/** Answers a login and a registration, the latter with the driver's queues. */
function standIn(queues: AgentQueues): Deno.HttpServer {
  const token = {
    access_token: "bench",
    expires_in: 172_800,
    token_type: "Bearer",
    other_tokens: [],
  };
  const onListen = () => {};
  return Deno.serve({ hostname: "127.0.0.1", port: SERVICE_PORT, onListen }, (request) => {
    const { pathname } = new URL(request.url);
    if (pathname === "/v2/oauth2/token") return Response.json(token);
    if (pathname.startsWith("/v3/endpoints")) return Response.json(queues);
    return Response.json({});
  });
}
