/**
 * What every room uses: errors, log, clock, retries, the process runner, files and paths.
 * Knows nothing of endpoints, brokers or schedulers.
 * @module
 */
export * from "./assets.ts";
export * from "./clock.ts";
export * from "./errors.ts";
export * from "./files.ts";
export * from "./log.ts";
export * from "./paths.ts";
export * from "./process_identity.ts";
export * from "./redact.ts";
export * from "./release_list.ts";
export * from "./retry.ts";
export * from "./run.ts";
export * from "./self.ts";
export * from "./version.ts";
