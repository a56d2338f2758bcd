/**
 * Opens an endpoint's bus: a nats-server of its own, or a site's.
 * @module
 */
import {
  EX,
  type Logger,
  makePrivateDir,
  NATS_MINIMUM,
  readUserFile,
  UserError,
  writePrivate,
} from "../base/mod.ts";
import type { BusConfig } from "../config/types.ts";
import { loadCredentials } from "./credentials.ts";
import { EndpointBus, type EndpointBusEvents } from "./endpoint_bus.ts";
import { MAX_PAYLOAD, NatsServer, olderThan, tooOld } from "./server.ts";
import type { BusAccess, BusAddress } from "./types.ts";

/** Options of {@linkcode openBus}. */
export interface OpenBusOptions {
  /** UUID of the endpoint. */
  endpointId: string;
  /** As configured. */
  config: BusConfig;
  /** `<endpoint dir>/state`. */
  stateDir: string;
  /** Whether nodes other than this host must reach it. */
  remoteManagers: boolean;
  /** Host names and addresses of this host for nodes, best first. */
  addresses: string[];
  /** Tasks stored at most. */
  maxStoredTasks: number;
  /** Bytes of stored tasks at most. */
  maxStoredBytes: number;
  /** Where records go. */
  log: Logger;
  /** Ends the waiting. */
  signal?: AbortSignal;
}

/** An open bus. */
export interface OpenBus {
  /** The bus. */
  readonly bus: EndpointBus;
  /** `null` at a site's NATS. */
  readonly server: NatsServer | null;
  /** What managers are told. */
  readonly managerAccess: BusAccess;
  /** What an acknowledgement of the store is worth: data on disk within two sync intervals, or only in the page cache. */
  readonly durability: "synced" | "unknown";
  /** Closes the connection; `stopServer` also ends our own nats-server. */
  close(options: { stopServer: boolean }): Promise<void>;
}

/** Opens the bus and connects the endpoint to it. @throws {UserError} */
export async function openBus(
  options: OpenBusOptions,
  events: EndpointBusEvents,
): Promise<OpenBus> {
  return options.config.servers.length > 0
    ? await openSiteBus(options, events)
    : await openOwnBus(options, events);
}

async function openOwnBus(options: OpenBusOptions, events: EndpointBusEvents): Promise<OpenBus> {
  const { endpointId, config, stateDir, log } = options;
  const dir = `${stateDir}/bus`;
  const credentials = await loadCredentials(dir);
  const server = new NatsServer({
    endpointId,
    dir,
    storeDir: config.storeDir && `${config.storeDir}/${endpointId}`,
    credentials,
    tls: config.tls,
    port: config.port,
    listen: options.remoteManagers ? "0.0.0.0" : "127.0.0.1",
    addresses: options.remoteManagers ? options.addresses : ["127.0.0.1"],
    maxPayload: MAX_PAYLOAD,
    // tasks, results, and room for tombstones between compactions
    maxStoreBytes: options.maxStoredBytes * 2 + 2 ** 31,
    log,
  });
  await server.start();
  const bus = new EndpointBus({
    endpointId,
    // the endpoint is beside its server whatever the nodes are told
    address: () => ({ ...readAddress(server.addressFile), servers: [`127.0.0.1:${server.port}`] }),
    credentials: () => Deno.readTextFileSync(credentials.seedFiles.endpoint),
    limits: limitsOf(options, 1),
    checkVersion: () => {},
    log,
  }, events);
  try {
    await bus.start(options.signal);
  } catch (error) {
    await server.stop();
    throw error;
  }
  return {
    bus,
    server,
    durability: "synced",
    managerAccess: {
      endpointId,
      addressFile: server.addressFile,
      seedFile: credentials.seedFiles.manager,
    },
    close: async ({ stopServer }) => {
      await bus.close();
      if (stopServer) await server.stop();
      else server.release();
    },
  };
}

async function openSiteBus(options: OpenBusOptions, events: EndpointBusEvents): Promise<OpenBus> {
  const { endpointId, config, stateDir, log } = options;
  if (!config.credentials) {
    throw new UserError("bus.servers is set without bus.credentials", {
      exit: EX.config,
      hint: "Name the credentials file or nkey seed file that your site gave you",
    });
  }
  const address: BusAddress = {
    servers: config.servers.map((url) => {
      const { hostname, port } = new URL(url.includes("://") ? url : `nats://${url}`);
      return `${hostname}:${port || "4222"}`;
    }),
    tls: config.servers.some((url) => url.startsWith("tls://")) || config.caFile !== null,
    ca: config.caFile === null ? null : readUserFile(config.caFile, "certificate authority"),
    serverName: null,
  };
  makePrivateDir(`${stateDir}/bus`);
  const addressFile = `${stateDir}/bus/address.json`;
  writePrivate(addressFile, JSON.stringify(address, null, 1));
  const refused = Promise.withResolvers<never>();
  refused.promise.catch(() => {});
  const bus = new EndpointBus({
    endpointId,
    address: () => address,
    credentials: () => readUserFile(config.credentials!, "credentials file"),
    limits: limitsOf(options, 1),
    checkVersion: (version) => {
      if (!olderThan(version, NATS_MINIMUM)) return;
      const error = tooOld(version, address.servers.join(", "));
      refused.reject(error);
      throw error;
    },
    log,
  }, events);
  await Promise.race([bus.start(options.signal), refused.promise]);
  log.warn("The bus is a site's: how soon its store reaches the disk is the site's setting", {
    hint: "ask for sync_interval of 250ms or below; `status` shows durability unknown",
  });
  return {
    bus,
    server: null,
    durability: "unknown",
    managerAccess: {
      endpointId,
      addressFile,
      seedFile: config.managerCredentials ?? config.credentials,
    },
    close: () => bus.close(),
  };
}

function readAddress(path: string): BusAddress {
  return JSON.parse(Deno.readTextFileSync(path)) as BusAddress;
}

function limitsOf(options: OpenBusOptions, replicas: number) {
  return {
    maxTasks: options.maxStoredTasks,
    maxTaskBytes: options.maxStoredBytes,
    maxResults: options.maxStoredTasks,
    maxResultBytes: options.maxStoredBytes,
    replicas,
  };
}
