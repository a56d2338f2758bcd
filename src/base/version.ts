/**
 * The versions that this build tells to others.
 * @module
 */
import config from "../../deno.json" with { type: "json" };

/** Our own version, from deno.json. */
export const VERSION: string = config.version;

/** The public agent's version that we stand in for: a service may check for a minimum. */
export const STANDS_IN_FOR = "4.19.0";

/** The oldest nats-server that may be our bus; older ones forget acknowledged work when killed. */
export const NATS_MINIMUM = "2.12.0";
