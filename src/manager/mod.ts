/**
 * A node: worker pool, slots, results.
 * @module
 */
export { Manager, type ManagerOptions } from "./manager.ts";
export type { ManagerConfig } from "./manager_config.ts";
