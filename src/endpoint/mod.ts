/**
 * A user endpoint: bridge, blocks, lock, reports.
 * @module
 */
export { Bridge, type BridgeCounts, type BridgeLinks, type BridgeOptions } from "./bridge.ts";
export type { SpecificationCheck } from "./intake.ts";
export { Endpoint, type EndpointOptions, type EndpointStatus } from "./endpoint.ts";
export { liveHolder, type LockContent, pidFileAge, readLock, TOUCH_MS } from "./lock.ts";
