/**
 * What the bench compares: the floor, the public agent 4.19, and ours. The two agents are started alike, as a
 * manager would: `_start-user-endpoint` with the queues on standard input (protocol.md section 7).
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
  const { argv, input } = kind === "floor" ? floor(options) : endpoint(kind, options);
  if (kind !== "floor") await Deno.mkdir(`${dir}/bench`, { mode: 0o700 });
  const log = await Deno.open(`${dir}/output`, { create: true, write: true });
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
    },
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  log.close();
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
      stopping = true;
      try {
        child.kill("SIGTERM");
      } catch { /* gone */ }
      const timer = setTimeout(() => child.kill("SIGKILL"), 20_000);
      await child.status;
      clearTimeout(timer);
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

function floor({ queues, result }: AgentOptions) {
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
}

/** The same words to both agents: one node, so many workers, everything else as it comes. */
function endpoint(kind: Kind, { queues, workers }: AgentOptions) {
  const program = kind === "ours" ? `${ROOT}/endpoint` : `${VENV}/bin/globus-compute-endpoint`;
  const config = `engine:
  type: GlobusComputeEngine
  max_workers_per_node: ${workers}
  provider:
    type: LocalProvider
    init_blocks: 1
    min_blocks: 1
    max_blocks: 1
`;
  return {
    argv: [program, "_start-user-endpoint", "bench"],
    input: { amqp_creds: queues, config, ep_info: {} },
  };
}
