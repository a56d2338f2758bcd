/**
 * What a user writes, checked and resolved.
 * @module
 */
export { loadUserConfig, parseUserConfig } from "./load.ts";
export { nearest } from "./nearest.ts";
export { isPool } from "./types.ts";
export type * from "./types.ts";
