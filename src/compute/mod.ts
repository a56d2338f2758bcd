/**
 * Speaking to a Compute service: REST and messages.
 * @module
 */
export * from "./client.ts";
export * from "./error_result.ts";
export * from "./messages.ts";
