/**
 * A real RabbitMQ of the test's own: loopback, ports it picks itself, files in a temporary folder, nothing left
 * behind. Starting takes five to ten seconds, so share one among the cases of a file.
 * @module
 */

/** A running broker; `await using` ends it. */
export interface Broker extends AsyncDisposable {
  /** `amqp://guest:guest@127.0.0.1:<port>/%2F` */
  readonly url: string;
  /** The AMQP port. */
  readonly port: number;
  /** The server process's number. */
  readonly pid: number;
  /** Where its files are. */
  readonly dir: string;
  /** Runs `rabbitmqctl`; gives its standard output. */
  ctl(...args: string[]): Promise<string>;
  /** SIGKILL to the server; `start` brings it back with the same files and port. */
  kill(): Promise<void>;
  /** Starts it again after `kill` or `stop`. */
  start(): Promise<void>;
  /** An orderly end; the files stay until the broker is disposed. */
  stop(): Promise<void>;
}

/** How to start a broker. */
export interface BrokerOptions {
  /** Lines for `rabbitmq.conf`. */
  config?: string[];
  /** Gives up after so many milliseconds. @default 90_000 */
  timeoutMs?: number;
}

const SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/** A TCP port that was free a moment ago. */
export function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return (listener.addr as Deno.NetAddr).port;
}

/**
 * Starts a broker and waits until it accepts connections.
 *
 * @throws if it ends or is not ready in time; the message holds the tail of its log
 */
export async function startBroker(options: BrokerOptions = {}): Promise<Broker> {
  const { config = [], timeoutMs = 90_000 } = options;
  const dir = await Deno.makeTempDir({ prefix: "rabbitmq-" });
  const [port, distPort, epmdPort] = [freePort(), freePort(), freePort()];
  await Deno.writeTextFile(`${dir}/plugins`, "[].\n");
  await Deno.writeTextFile(
    `${dir}/rabbit.conf`,
    ["loopback_users = none", "disk_free_limit.absolute = 50MB", ...config, ""].join("\n"),
  );
  const env = {
    HOME: dir,
    PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
    LANG: "C.UTF-8",
    ERL_EPMD_PORT: String(epmdPort),
    ERL_EPMD_ADDRESS: "127.0.0.1",
    RABBITMQ_NODENAME: `test-${port}@localhost`,
    RABBITMQ_NODE_IP_ADDRESS: "127.0.0.1",
    RABBITMQ_NODE_PORT: String(port),
    RABBITMQ_DIST_PORT: String(distPort),
    RABBITMQ_MNESIA_BASE: `${dir}/db`,
    RABBITMQ_LOG_BASE: `${dir}/log`,
    RABBITMQ_LOGS: "-",
    RABBITMQ_ENABLED_PLUGINS_FILE: `${dir}/plugins`,
    RABBITMQ_CONFIG_FILE: `${dir}/rabbit`,
    RABBITMQ_CONF_ENV_FILE: `${dir}/none`,
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: "-kernel inet_dist_use_interface {127,0,0,1}",
  };
  // its own epmd, in the foreground: the one that Erlang starts by itself would outlive the test
  const epmd = new Deno.Command("epmd", {
    args: ["-port", String(epmdPort), "-address", "127.0.0.1"],
    env,
    clearEnv: true,
    stdout: "null",
    stderr: "null",
  }).spawn();
  const broker = new Server(dir, { port, env, timeoutMs, epmd });
  try {
    await broker.start();
  } catch (error) {
    await broker[Symbol.asyncDispose]();
    throw error;
  }
  return broker;
}

class Server implements Broker {
  readonly dir: string;
  readonly port: number;
  readonly url: string;
  readonly #env: Record<string, string>;
  readonly #timeoutMs: number;
  readonly #epmd: Deno.ChildProcess;
  #child?: Deno.ChildProcess;
  #log = "";
  #drained?: Promise<void>;

  constructor(
    dir: string,
    options: {
      port: number;
      env: Record<string, string>;
      timeoutMs: number;
      epmd: Deno.ChildProcess;
    },
  ) {
    this.dir = dir;
    this.port = options.port;
    this.url = `amqp://guest:guest@127.0.0.1:${options.port}/%2F`;
    this.#env = options.env;
    this.#timeoutMs = options.timeoutMs;
    this.#epmd = options.epmd;
  }

  get pid(): number {
    return Number(Deno.readTextFileSync(this.#env.RABBITMQ_PID_FILE ?? this.#pidFile()).trim());
  }

  #pidFile(): string {
    return `${this.dir}/db/${this.#env.RABBITMQ_NODENAME}.pid`;
  }

  async start(): Promise<void> {
    this.#log = "";
    await Deno.remove(this.#pidFile()).catch(() => {});
    const child = new Deno.Command(SERVER, {
      env: this.#env,
      clearEnv: true,
      cwd: this.dir,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
    }).spawn();
    this.#child = child;
    const ready = Promise.withResolvers<void>();
    const take = async (stream: ReadableStream<Uint8Array>) => {
      for await (const text of stream.pipeThrough(new TextDecoderStream())) {
        this.#log = (this.#log + text).slice(-65_536);
        if (/completed with \d+ plugins/.test(this.#log)) ready.resolve();
      }
    };
    this.#drained = Promise.all([take(child.stdout), take(child.stderr)]).then(() => {});
    const fail = (why: string) =>
      ready.reject(new Error(`RabbitMQ ${why}; its log ends with:\n${this.#log.slice(-2000)}`));
    void child.status.then(({ code }) => fail(`ended with ${code}`));
    const timer = setTimeout(() => fail(`was not ready in ${this.#timeoutMs} ms`), this.#timeoutMs);
    try {
      await ready.promise;
    } finally {
      clearTimeout(timer);
    }
  }

  async ctl(...args: string[]): Promise<string> {
    const { code, stdout, stderr } = await new Deno.Command("/usr/lib/rabbitmq/bin/rabbitmqctl", {
      args: ["-q", ...args],
      env: this.#env,
      clearEnv: true,
      cwd: this.dir,
    }).output();
    const text = new TextDecoder().decode(stdout);
    if (code === 0) return text;
    throw new Error(`rabbitmqctl ${args[0]}: ${text}${new TextDecoder().decode(stderr)}`);
  }

  async #end(signal: Deno.Signal): Promise<void> {
    const child = this.#child;
    if (!child) return;
    this.#child = undefined;
    try {
      if (signal === "SIGKILL") Deno.kill(-child.pid, signal);
      else Deno.kill(this.pid, signal);
    } catch { /* gone already */ }
    const timer = setTimeout(() => {
      try {
        Deno.kill(-child.pid, "SIGKILL");
      } catch { /* gone */ }
    }, 20_000);
    await child.status;
    clearTimeout(timer);
    await this.#drained;
  }

  kill(): Promise<void> {
    return this.#end("SIGKILL");
  }

  stop(): Promise<void> {
    return this.#end("SIGTERM");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    try {
      this.#epmd.kill("SIGKILL");
    } catch { /* gone already */ }
    await this.#epmd.status;
    await Deno.remove(this.dir, { recursive: true }).catch(() => {});
  }
}
