/**
 * A user endpoint: registers, opens bus and AMQP, runs the bridge and its blocks, reports, stops.
 *
 * States: `starting` -> `running` -> `stopping` -> `stopped`. Whatever was opened is on one release list and is closed in the
 * reverse order. TERM leaves blocks and bus to the next start; `stop` and Ctrl-C end them, and running tasks are answered.
 * @module
 */
import {
  type EndpointPaths,
  errorText,
  EX,
  type Logger,
  makePrivateDir,
  readIfThere,
  ReleaseList,
  run,
  UserError,
  wallMs,
  writePrivate,
} from "../base/mod.ts";
import { openConsumer, openPublisher, type QueueInfo, targetOf, withPort } from "../amqp/mod.ts";
import { clientCredentials } from "../auth/mod.ts";
import { type OpenBus, openBus } from "../bus/mod.ts";
import { ComputeClient, encodeMessage, type Registered, serviceUrl } from "../compute/mod.ts";
import { isPool, type UserEndpointConfig } from "../config/mod.ts";
import { Bridge } from "./bridge.ts";
import { specificationCheck } from "./specification.ts";
import { LocalBlocks } from "./local_blocks.ts";
import { EndpointLock, TOUCH_MS } from "./lock.ts";
import { managerConfigFor } from "./manager_file.ts";
import { knownId, registrationOf, statusReport } from "./reports.ts";

/** Options of {@linkcode Endpoint}. */
export interface EndpointOptions {
  name: string;
  paths: EndpointPaths;
  config: UserEndpointConfig;
  /** Id asked for at the first registration. */
  endpointUuid: string | null;
  log: Logger;
}

/** What `status` shows. */
export interface EndpointStatus {
  /** What it does now. */
  state: string;
  /** UUID of the endpoint. */
  endpointId: string;
  /** Tells this class from others where `instanceof` cannot. */
  name: string;
  /** Process id. */
  pid: number;
  /** Host name. */
  host: string;
  /** Milliseconds since the epoch. */
  startedMs: number;
  /** Why no tasks are taken; `null` if they are. */
  intakePaused: string | null;
  /** Why no blocks are started; `null` if they are. */
  broken: string | null;
  /** States of the two AMQP connections and of the bus. */
  connections: { tasks: string; results: string; bus: boolean };
  /** The bus. */
  bus: { pid: number | null; port: number | null; durability: string };
  /** Tasks by state, and sums since the start. */
  counts: ReturnType<Bridge["counts"]>;
  /** Blocks that are asked for or run. */
  blocks: { id: string; pid: number; state: string }[];
  /** Last reports of the managers that live. */
  managers: ReturnType<Bridge["managers"]>;
}

/** One running user endpoint. */
export class Endpoint {
  readonly #options: EndpointOptions;
  readonly #log: Logger;
  readonly #release: ReleaseList;
  readonly #ended = Promise.withResolvers<{ code: number; why: string }>();
  #state: "starting" | "running" | "stopping" | "stopped" = "starting";
  #lock!: EndpointLock;
  #queues!: Registered;
  #bus!: OpenBus;
  #bridge!: Bridge;
  #blocks!: LocalBlocks;
  #consumer!: ReturnType<typeof openConsumer>;
  #publisher!: ReturnType<typeof openPublisher>;
  #beat?: number;
  readonly #startedMs = wallMs();
  #idle = { beats: 0, still: 0, movement: "" };

  /** Makes it; nothing happens before its first call. */
  constructor(options: EndpointOptions) {
    this.#options = options;
    this.#log = options.log.child("endpoint");
    this.#release = new ReleaseList(options.log);
  }

  /** Known once registered. */
  get id(): string {
    return this.#queues.endpoint_id;
  }

  /** Resolves when the endpoint has stopped, with its exit code. */
  get ended(): Promise<{ code: number; why: string }> {
    return this.#ended.promise;
  }

  /** Registers and starts all parts; resolves when tasks are taken. @throws {UserError} */
  async start(): Promise<void> {
    const { paths, config } = this.#options;
    try {
      const freshMs = Math.max(3 * config.heartbeatPeriodMs, 3 * TOUCH_MS);
      this.#lock = EndpointLock.take(paths, { freshMs });
      this.#release.add("the lock", () => this.#lock.release());
      await this.#setup();
      await this.#register();
      await this.#openParts();
      this.#lock.update({ endpointId: this.id });
      this.#lock.keep((why) => void this.stop({ why, endBlocks: false }), () => this.#onTouch());
      this.#state = "running";
      this.#log.info("Running", { endpoint: this.id });
    } catch (error) {
      await this.#release.release();
      throw error;
    }
  }

  /** Tells others where the control socket is. */
  announceControl(path: string): void {
    this.#lock.update({ controlSocket: path });
    this.#release.add("the control socket", () => {
      try {
        Deno.removeSync(path);
      } catch { /* gone with its server */ }
    });
  }

  /** Closes something of the caller's before everything else. */
  beforeStop(name: string, close: () => unknown): void {
    this.#release.add(name, close);
  }

  /**
   * Stops. @param options `endBlocks`: end managers and bus too; running tasks are answered with an error
   */
  async stop(options: { why: string; endBlocks: boolean; code?: number }): Promise<void> {
    if (this.#state !== "running") return;
    this.#state = "stopping";
    this.#log.info("Stopping", { why: options.why, endBlocks: options.endBlocks });
    clearInterval(this.#beat);
    if (options.endBlocks) {
      await this.#consumer.pause();
      await this.#bridge.answerRunning(`the endpoint was stopped (${options.why})`);
      await this.#blocks.cancelAll();
    } else {
      this.#blocks.release();
    }
    await this.#bridge.drain();
    await this.#report(false);
    this.#bridge.stop();
    await this.#bus.close({ stopServer: options.endBlocks });
    await this.#release.release();
    await this.#teardown();
    this.#state = "stopped";
    this.#ended.resolve({ code: options.code ?? EX.ok, why: options.why });
  }

  /** Goes on after BROKEN. */
  resume(): void {
    this.#blocks.resume();
  }

  /** Ends one task. */
  async cancel(taskId: string): Promise<void> {
    await this.#bridge.cancel(taskId, "it was cancelled with `endpoint cancel`");
  }

  /** What `status` shows. */
  status(): EndpointStatus {
    return {
      state: this.#blocks.broken ? "broken" : this.#state,
      endpointId: this.id,
      name: this.#options.name,
      pid: Deno.pid,
      host: Deno.hostname(),
      startedMs: this.#startedMs,
      intakePaused: this.#bridge.paused,
      broken: this.#blocks.broken,
      connections: {
        tasks: this.#consumer.state,
        results: this.#publisher.state,
        bus: this.#bus.bus.connected,
      },
      bus: {
        pid: this.#bus.server?.pid ?? null,
        port: this.#bus.server?.port ?? null,
        durability: this.#bus.durability,
      },
      counts: this.#bridge.counts(),
      blocks: this.#blocks.snapshot(),
      managers: this.#bridge.managers(),
    };
  }

  async #setup(): Promise<void> {
    const { endpointSetup } = this.#options.config;
    if (!endpointSetup) return;
    const result = await run(["bash", "-c", endpointSetup], { timeoutMs: 600_000 });
    if (result.code !== 0) {
      throw new UserError(
        `endpoint_setup failed with exit code ${result.code}: ${result.stderr.slice(-500).trim()}`,
        { exit: EX.config, file: this.#options.config.source },
      );
    }
  }

  async #teardown(): Promise<void> {
    const { endpointTeardown } = this.#options.config;
    if (!endpointTeardown) return;
    const result = await run(["bash", "-c", endpointTeardown], { timeoutMs: 60_000 });
    if (result.code !== 0) {
      this.#log.warn("endpoint_teardown failed", { code: result.code, stderr: result.stderr });
    }
  }

  async #register(): Promise<void> {
    const { paths, config, name, endpointUuid } = this.#options;
    const authorizer = clientCredentials();
    const url = serviceUrl({ local: config.localComputeServices, environment: config.environment });
    const client = new ComputeClient(url, () => authorizer.token());
    const known = knownId(paths) ?? endpointUuid?.toLowerCase() ?? null;
    this.#queues = await client.register(registrationOf({ name, config }), known);
    writePrivate(paths.registration, JSON.stringify({ endpoint_id: this.id }));
  }

  async #openParts(): Promise<void> {
    const { paths, config, log } = this.#options;
    const { engine } = config;
    const bridge = this.#bridge = new Bridge({
      endpointId: this.id,
      maxStoredTasks: config.maxStoredTasks,
      allowedFunctions: config.allowedFunctions,
      maxRetries: isPool(engine) ? 0 : engine.maxRetriesOnSystemFailure,
      managerThresholdMs: isPool(engine) ? 60_000 : engine.heartbeatThresholdMs,
      checkSpecification: specificationCheck(engine.type),
      onDemand: (demand) => this.#blocks?.setDemand(demand),
      onReport: (report) => this.#blocks?.reported(report),
      log,
    });
    this.#bus = await openBus({
      endpointId: this.id,
      config: config.bus,
      stateDir: paths.state,
      remoteManagers: false,
      addresses: [],
      maxStoredTasks: config.maxStoredTasks,
      maxStoredBytes: config.maxStoredBytes,
      log,
    }, bridge.busEvents);
    this.#openAmqp();
    bridge.connect({ bus: this.#bus.bus, consumer: this.#consumer, publisher: this.#publisher });
    await bridge.start();
    this.#startBlocks();
    await Promise.all([this.#publisher.opened(), this.#consumer.opened()]).catch((error) => {
      throw new UserError("The broker refuses the endpoint's credentials", {
        exit: EX.noperm,
        cause: error,
      });
    });
    await this.#consumer.resume();
    await this.#report(true);
    this.#beat = setInterval(() => void this.#onBeat(), config.heartbeatPeriodMs);
  }

  #openAmqp(): void {
    const { config, log } = this.#options;
    const info = (queue: QueueInfo) => () => withPort(queue, config.amqpPort);
    const name = `endpoint ${this.id}`;
    const onState = (state: string, why: string) => {
      if (state !== "refused" || this.#state !== "running") return;
      void this.stop({ why, endBlocks: false, code: EX.noperm });
    };
    this.#publisher = openPublisher({
      queueInfo: info(this.#queues.result_queue_info),
      name: `${name}, results`,
      onState,
      log,
    });
    this.#release.add("the results connection", () => this.#publisher.close());
    this.#consumer = openConsumer({
      queueInfo: info(this.#queues.task_queue_info),
      // with acknowledgements held for half a second this allows 4,000 tasks a second
      prefetch: 2000,
      paused: true,
      name: `${name}, tasks`,
      onDelivery: (delivery) => this.#bridge.take(delivery),
      onChannelLost: (epoch) => this.#bridge.channelLost(epoch),
      onState,
      log,
    });
    this.#release.add("the tasks connection", () => this.#consumer.close());
  }

  #startBlocks(): void {
    const { paths, config, log } = this.#options;
    const { engine } = config;
    const managerConfig = managerConfigFor({
      config,
      endpointId: this.id,
      dir: paths.dir,
      bus: this.#bus.managerAccess,
    });
    makePrivateDir(`${paths.dir}/manager_logs`);
    const managerConfigFile = `${paths.state}/manager.json`;
    writePrivate(managerConfigFile, JSON.stringify(managerConfig, null, 1));
    const pool = isPool(engine);
    const provider = pool ? null : engine.provider;
    this.#blocks = new LocalBlocks({
      stateDir: paths.state,
      scriptDir: paths.submitScripts,
      managerConfigFile,
      initBlocks: provider?.initBlocks ?? 1,
      minBlocks: pool ? 1 : provider?.minBlocks ?? 0,
      maxBlocks: provider?.maxBlocks ?? 1,
      parallelism: provider?.parallelism ?? 1,
      strategy: !pool && engine.strategy.type !== "none" ? "simple" : "none",
      maxIdletimeMs: pool ? Infinity : engine.strategy.maxIdletimeMs,
      workerInit: provider?.workerInit ?? "",
      onEnded: (blockId, why) => this.#bridge.blockEnded(blockId, why),
      onBroken: (reason) => {
        const text = reason && `The endpoint cannot run tasks: ${reason}`;
        void this.#bridge.refuse(text).catch((error) => {
          this.#log.error("Waiting tasks could not be answered", { error: errorText(error) });
        });
      },
      log,
    });
    this.#blocks.start();
  }

  async #onBeat(): Promise<void> {
    await this.#report(true);
    this.#checkIdle();
  }

  async #report(active: boolean): Promise<void> {
    const { config } = this.#options;
    const report = statusReport({
      config,
      active,
      counts: this.#bridge.counts(),
      managers: this.#bridge.managers(),
      startedMs: this.#startedMs,
      broken: this.#blocks.broken,
    });
    const body = encodeMessage("ep_status_report", {
      endpoint_id: this.id,
      global_state: report,
      task_statuses: {},
    });
    try {
      const target = targetOf(this.#queues.heartbeat_queue_info);
      await this.#publisher.publish(body, { target });
    } catch (error) {
      this.#log.debug("A heartbeat could not be sent", { error });
    }
  }

  /** Idle shutdown, counted in heartbeats (protocol.md section 11). */
  #checkIdle(): void {
    const { idleHeartbeatsSoft: soft, idleHeartbeatsHard: hard } = this.#options.config;
    if (soft === 0) return;
    const { received, answered, waiting, running, answering } = this.#bridge.counts();
    const movement = `${received}/${answered}`;
    this.#idle.still = movement === this.#idle.movement ? this.#idle.still + 1 : 0;
    this.#idle.movement = movement;
    const outstanding = waiting + running + answering;
    this.#idle.beats = outstanding === 0 && answered > 0 ? this.#idle.beats + 1 : 0;
    if (this.#idle.beats > soft || this.#idle.still > hard) {
      void this.stop({
        why: "it was idle for as long as the configuration allows",
        endBlocks: true,
      });
    }
  }

  /** `stop` on another login node leaves a request in the directory. */
  #onTouch(): void {
    const request = `${this.#options.paths.state}/stop-request`;
    if (readIfThere(request) === undefined) return;
    Deno.removeSync(request);
    void this.stop({ why: "`endpoint stop` asked for it", endBlocks: true });
  }
}
