/**
 * Logins.
 * @module
 */
export * from "./client_credentials.ts";
