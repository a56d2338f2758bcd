/**
 * The bus: the only room that knows NATS. Server child, credentials, streams, subjects, and the two sides that
 * use them (the endpoint's bridge and the managers).
 * @module
 */
export type * from "./types.ts";
