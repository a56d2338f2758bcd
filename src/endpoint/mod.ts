/**
 * A user endpoint: bridge, blocks, lock, reports.
 * @module
 */
export { Endpoint, type EndpointStatus } from "./endpoint.ts";
export { liveHolder, type LockContent, pidFileAge, readLock, TOUCH_MS } from "./lock.ts";
