/**
 * What a user writes, checked and resolved.
 * @module
 */
export { loadUserConfig, parseUserConfig } from "./load.ts";
export { nearest } from "./nearest.ts";
export type * from "./types.ts";
