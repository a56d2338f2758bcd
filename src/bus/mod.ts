/**
 * The bus: the only room that knows NATS. Server child, credentials, streams, subjects, and the two sides that
 * use them (the endpoint's bridge and the managers).
 * @module
 */
export { BusNames } from "./names.ts";
export type { DownMessage } from "./manager_bus.ts";
export { NatsServer, type ServerOptions } from "./server.ts";
export {
  EndpointBus,
  type EndpointBusEvents,
  type EndpointBusOptions,
  type StoredResult,
} from "./endpoint_bus.ts";
export { BusError } from "./jetstream.ts";
export { connectManagerBus, type ManagerBusOptions } from "./manager_bus.ts";
export { DEFAULT_LANE, laneOf, LANES, PRIORITY_LANES } from "./names.ts";
export { type OpenBus, openBus, type OpenBusOptions } from "./open.ts";
export type { BusCredentials, Role } from "./credentials.ts";
export type { StreamLimits } from "./streams.ts";
export { hashSecret, type StartRecord, type TaskMeta } from "./records.ts";
export type * from "./types.ts";
