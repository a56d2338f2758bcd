/**
 * Asking a running endpoint on this host: a unix socket in a directory of its own (a socket's path holds 108 bytes at most).
 * @module
 */
import { Hono } from "hono";
import { type EndpointPaths, EX, UserError } from "../base/mod.ts";
import { type Endpoint, type EndpointStatus, readLock } from "../endpoint/mod.ts";

/** The calls a running endpoint answers. */
export function createControlApp(
  endpoint: Pick<Endpoint, "status" | "stop" | "resume" | "cancel">,
): Hono {
  const app = new Hono();
  app.get("/status", (c) => c.json(endpoint.status()));
  app.post("/stop", (c) => {
    void endpoint.stop({ why: "`endpoint stop` asked for it", endBlocks: true });
    return c.json({});
  });
  app.post("/resume", (c) => {
    endpoint.resume();
    return c.json({});
  });
  app.post("/cancel/:task", async (c) => {
    await endpoint.cancel(c.req.param("task"));
    return c.json({});
  });
  return app;
}

/** Serves the calls for as long as the endpoint runs. */
export function serveControl(endpoint: Endpoint): Promise<void> {
  const dir = Deno.makeTempDirSync({ prefix: "ep-control-" });
  Deno.chmodSync(dir, 0o700);
  const path = `${dir}/s`;
  const server = Deno.serve({ path, onListen: () => {} }, createControlApp(endpoint).fetch);
  endpoint.announceControl(path);
  endpoint.beforeStop("the control server", async () => {
    await server.shutdown();
    Deno.removeSync(dir, { recursive: true });
  });
  return Promise.resolve();
}

/** Calls the running endpoint. @throws {UserError} if none answers on this host */
async function call(paths: EndpointPaths, method: string, path: string): Promise<Response> {
  const socket = readLock(paths)?.controlSocket;
  if (!socket) throw new UserError("The endpoint does not run", { exit: EX.unavailable });
  const client = Deno.createHttpClient({ proxy: { transport: "unix", path: socket } });
  try {
    const signal = AbortSignal.timeout(10_000);
    return await fetch(`http://endpoint${path}`, { method, client, signal });
  } catch (error) {
    throw new UserError("The endpoint does not answer", { exit: EX.unavailable, cause: error });
  }
}

/** What a running endpoint says of itself. */
export async function askStatus(paths: EndpointPaths): Promise<EndpointStatus> {
  return await (await call(paths, "GET", "/status")).json();
}

/** Asks a running endpoint to stop. */
export async function askStop(paths: EndpointPaths): Promise<void> {
  await (await call(paths, "POST", "/stop")).body?.cancel();
}
