/**
 * A Compute service of one's own: REST, login calls and AMQP, for tests, demos and sites without a network.
 * @module
 */
export { createServiceApp, type Env, type ServiceDeps } from "./app.ts";
export { Broker } from "./broker.ts";
export { type EndpointRow, type FunctionRow, Store, type TaskRow } from "./store.ts";
export { Tokens } from "./tokens.ts";
