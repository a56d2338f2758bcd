/**
 * The Compute service's REST calls (protocol.md section 2) over a store and a broker.
 * @module
 */
import { type Context, Hono } from "hono";
import { HTTPException } from "hono/http-exception";
import { type Logger, wallMs } from "../base/mod.ts";
import { PublishError } from "../amqp/mod.ts";
import { encodeMessage } from "../compute/mod.ts";
import { authRoutes, bearer } from "./auth_routes.ts";
import { type Broker, GROUP_PREFIX } from "./broker.ts";
import type { EndpointRow, Store, TaskRow } from "./store.ts";
import type { Tokens } from "./tokens.ts";

/** What the service is made of. */
export interface ServiceDeps {
  /** The database. */
  store: Store;
  /** The broker. */
  broker: Broker;
  /** Clients and tokens. */
  tokens: Tokens;
  /** Requests of one identity in ten seconds; 0: any number. */
  rateLimit: number;
  /** Where records go. */
  log: Logger;
}

/** What each call knows. */
export type Env = { Variables: { identity: string } };
type Body = Record<string, unknown>;

/** Bytes of one submission. */
const SUBMISSION_LIMIT = 10 * 1024 * 1024;
const RATE_WINDOW_MS = 10_000;
const LOCK_MS = 5 * 60_000;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** An error in the service's own shape. */
function failure(
  status: 400 | 401 | 403 | 404 | 413 | 422 | 423 | 429 | 503,
  code: string,
  reason: string,
) {
  const body = { code, error_args: [], http_status_code: status, reason, status: "Failed" };
  return new HTTPException(status, {
    res: new Response(JSON.stringify(body), {
      status,
      headers: {
        "content-type": "application/json",
        ...(status === 429 && { "retry-after": "1" }),
      },
    }),
  });
}

/** The whole service as one app. */
export function createServiceApp(deps: ServiceDeps): Hono<Env> {
  const app = new Hono<Env>();
  app.route("/", authRoutes(deps.tokens));
  app.get("/v2/version", (c) =>
    c.json(
      c.req.query("service") === "all"
        ? { api: "1.23.0", min_sdk_version: "2.0.0", min_ep_version: "2.0.0", git_sha: "" }
        : "1.23.0",
    ));
  app.use("*", async (c, next) => {
    const identity = await deps.tokens.identify(bearer(c.req.header("authorization")));
    if (!identity) {
      throw failure(401, "AUTHENTICATION_FAILED", "The token is missing, unknown or over");
    }
    c.set("identity", identity.id);
    await next();
  });
  if (deps.rateLimit > 0) app.use("*", rateLimit(deps.rateLimit));
  functionRoutes(app, deps);
  endpointRoutes(app, deps);
  taskRoutes(app, deps);
  app.notFound(() => {
    throw failure(404, "NOT_FOUND", "There is no such call");
  });
  app.onError((error) => {
    if (error instanceof HTTPException) return error.getResponse();
    if (error instanceof PublishError) {
      return failure(503, "INTERNAL_ERROR", `The broker did not take the tasks: ${error.message}`)
        .getResponse();
    }
    deps.log.error("A call failed", { error });
    return new Response(
      JSON.stringify({
        code: "INTERNAL_ERROR",
        error_args: [],
        http_status_code: 500,
        reason: "The service failed; its log says why",
        status: "Failed",
      }),
      { status: 500, headers: { "content-type": "application/json" } },
    );
  });
  return app;
}

function rateLimit(limit: number) {
  const calls = new Map<string, number[]>();
  return async (c: Context<Env>, next: () => Promise<void>) => {
    const now = wallMs();
    const recent = (calls.get(c.get("identity")) ?? []).filter((at) => at > now - RATE_WINDOW_MS);
    if (recent.length >= limit) throw failure(429, "TOO_MANY_REQUESTS", "Too many requests");
    calls.set(c.get("identity"), [...recent, now]);
    await next();
  };
}

async function jsonBody(c: Context): Promise<Body> {
  const body = await c.req.json().catch(() => null);
  if (typeof body !== "object" || body === null || Array.isArray(body)) {
    throw failure(400, "REQUEST_MALFORMED", "The request's body is no JSON object");
  }
  return body as Body;
}

/** Packs a string as a task buffer does: its length counts characters. */
function pack(text: string): string {
  return `${[...text].length}\n${text}`;
}

function functionRoutes(app: Hono<Env>, { store }: ServiceDeps): void {
  for (const path of ["/v2/functions", "/v3/functions"]) {
    app.post(path, async (c) => {
      const body = await jsonBody(c);
      const name = String(body.function_name ?? "");
      const code = body.function_code ?? (body as { function_source?: unknown }).function_source;
      if (typeof code !== "string" || !name) {
        throw failure(400, "REQUEST_MALFORMED", "function_name or function_code is missing");
      }
      const id = crypto.randomUUID();
      store.addFunction({
        id,
        owner: c.get("identity"),
        name,
        packed: body.serialized === false ? pack(`st\n${name}:${code}`) : code,
        public: body.public === true ? 1 : 0,
        meta: JSON.stringify({ ...body.meta as Body, description: body.description ?? null }),
      });
      return c.json({ function_uuid: id });
    });
  }
  app.get("/v2/functions/:id", (c) => {
    const row = store.function(c.req.param("id"));
    if (!row) throw failure(404, "FUNCTION_NOT_FOUND", `Function ${c.req.param("id")} not found`);
    return c.json({
      function_uuid: row.id,
      function_name: row.name,
      function_code: row.packed,
      owner: row.owner,
      public: row.public === 1,
      metadata: JSON.parse(row.meta),
    });
  });
  app.delete("/v2/functions/:id", (c) => {
    const row = store.function(c.req.param("id"));
    if (!row) throw failure(404, "FUNCTION_NOT_FOUND", `Function ${c.req.param("id")} not found`);
    if (row.owner !== c.get("identity")) {
      throw failure(403, "FUNCTION_ACCESS_FORBIDDEN", "Not yours");
    }
    store.deleteFunction(row.id);
    return c.json({ result: 302 });
  });
}

function endpointRoutes(app: Hono<Env>, { store, broker }: ServiceDeps): void {
  /** The endpoint, if this identity may see it. */
  const visible = (c: Context<Env>, options: { owner?: boolean } = {}): EndpointRow => {
    const row = store.endpoint(c.req.param("id")!.toLowerCase());
    if (!row) throw failure(404, "ENDPOINT_NOT_FOUND", `Endpoint ${c.req.param("id")} not found`);
    const own = row.owner === c.get("identity");
    if (!own && (options.owner || row.public !== 1)) {
      throw failure(403, "ENDPOINT_ACCESS_FORBIDDEN", `You may not use endpoint ${row.id}`);
    }
    return row;
  };
  const register = async (c: Context<Env>) => {
    const body = await jsonBody(c);
    const asked = c.req.param("id") ??
      (typeof body.endpoint_uuid === "string" ? body.endpoint_uuid : null);
    const id = (asked ?? crypto.randomUUID()).toLowerCase();
    if (!UUID.test(id)) throw failure(400, "REQUEST_MALFORMED", `${id} is no UUID`);
    const known = store.endpoint(id);
    if (known && known.owner !== c.get("identity")) {
      throw failure(403, "ENDPOINT_ACCESS_FORBIDDEN", `Endpoint ${id} belongs to somebody else`);
    }
    if (known && known.locked_until > wallMs()) {
      throw failure(423, "RESOURCE_LOCKED", `Endpoint ${id} was stopped remotely; try again later`);
    }
    const allowed = Array.isArray(body.allowed_functions) ? body.allowed_functions : null;
    store.putEndpoint({
      id,
      owner: c.get("identity"),
      name: String(body.endpoint_name ?? "endpoint"),
      display_name: typeof body.display_name === "string" ? body.display_name : null,
      public: body.public === true ? 1 : 0,
      allowed: allowed && JSON.stringify(allowed),
      metadata: JSON.stringify(body.metadata ?? {}),
    });
    return c.json({ endpoint_id: id, ...(await broker.endpointQueues(id)) });
  };
  app.post("/v2/endpoints", register);
  app.post("/v3/endpoints", register);
  app.put("/v3/endpoints/:id", register);
  app.get("/v2/endpoints", (c) =>
    c.json(
      store.endpoints()
        .filter((row) =>
          row.owner === c.get("identity") || (c.req.query("role") === "any" && row.public === 1)
        )
        .map(({ id, name, display_name, owner }) => ({ uuid: id, name, display_name, owner })),
    ));
  app.get("/v2/endpoints/:id", (c) => {
    const row = visible(c);
    const metadata = JSON.parse(row.metadata) as Body;
    return c.json({
      uuid: row.id,
      name: row.name,
      display_name: row.display_name,
      owner: row.owner,
      owner_id: row.owner,
      public: row.public === 1,
      multi_user: false,
      ...metadata,
    });
  });
  app.get("/v2/endpoints/:id/status", (c) => {
    const row = visible(c);
    const online = row.online_until > wallMs();
    const status = online ? "online" : row.stopped ? "stopped" : "offline";
    return c.json({ status, details: JSON.parse(row.report ?? "{}") });
  });
  app.get("/v3/endpoints/:id/allowed_functions", (c) => {
    const row = visible(c);
    const functions = JSON.parse(row.allowed ?? "[]");
    return c.json({ endpoint_id: row.id, restricted: row.allowed !== null, functions });
  });
  app.delete("/v2/endpoints/:id", async (c) => {
    const row = visible(c, { owner: true });
    store.deleteEndpoint(row.id);
    await broker.deleteEndpointQueues(row.id);
    return c.json({ result: 302 });
  });
  for (const version of ["v2", "v3"]) {
    app.post(`/${version}/endpoints/:id/lock`, async (c) => {
      const row = visible(c, { owner: true });
      const until = wallMs() + LOCK_MS;
      store.lockEndpoint(row.id, until);
      // an endpoint whose queue is gone cannot go on, and cannot register again while it is locked
      await broker.deleteEndpointQueues(row.id);
      const lock_expiration_timestamp = new Date(until).toISOString();
      return c.json({ endpoint_id: row.id, lock_expiration_timestamp });
    });
  }
}

function taskRoutes(app: Hono<Env>, deps: ServiceDeps): void {
  const { store, broker } = deps;
  app.get(
    "/v2/get_amqp_result_connection_url",
    (c) => c.json({ queue_prefix: GROUP_PREFIX, connection_url: broker.url }),
  );
  app.post("/v3/endpoints/:id/submit", async (c) => {
    const body = await jsonBody(c);
    return c.json(await submit(c, deps, { body, endpointId: c.req.param("id") }));
  });
  app.post("/v2/submit", async (c) => {
    const body = await jsonBody(c);
    const tasks: Record<string, string[]> = {};
    const list = body.tasks as unknown[];
    const [endpoint] = (list?.map((task) => (task as string[])[1]) ?? []) as string[];
    for (const [fn, , payload] of (list ?? []) as string[][]) (tasks[fn!] ??= []).push(payload!);
    const answer = await submit(c, deps, { body: { ...body, tasks }, endpointId: endpoint ?? "" });
    const task_uuids = Object.values(answer.tasks).flat();
    return c.json({ status: "Success", ...answer, task_uuids });
  });
  const own = (c: Context<Env>, id: string): TaskRow => {
    const row = store.task(id.toLowerCase());
    if (!row || row.owner !== c.get("identity")) {
      throw failure(404, "TASK_NOT_FOUND", `Task ${id} not found`);
    }
    return row;
  };
  app.get("/v2/tasks/:id", (c) => c.json(record(own(c, c.req.param("id")))));
  app.post("/v2/batch_status", async (c) => {
    const { task_ids: ids } = await jsonBody(c);
    if (!Array.isArray(ids)) throw failure(400, "REQUEST_MALFORMED", "task_ids is no list");
    const results = Object.fromEntries(ids.map((id) => [id, record(own(c, String(id)))]));
    return c.json({ response: "batch", results });
  });
  app.get("/v2/taskgroup/:id", (c) => {
    const rows = store.tasksOf(c.req.param("id").toLowerCase());
    if (rows.length === 0 || rows[0]!.owner !== c.get("identity")) {
      throw failure(404, "TASK_GROUP_NOT_FOUND", `Task group ${c.req.param("id")} not found`);
    }
    return c.json({
      taskgroup_id: c.req.param("id"),
      create_websockets_queue: rows.some((row) => row.deliver === 1),
      tasks: rows.map(({ id, created }) => ({ id, created_at: new Date(created).toISOString() })),
    });
  });
}

function record(row: TaskRow): Body {
  const done = row.completed !== null;
  return {
    task_id: row.id,
    status: row.status,
    ...(done && {
      completion_t: String(row.completed! / 1000),
      details: JSON.parse(row.details ?? "{}"),
      ...(row.status === "success" ? { result: row.result } : { exception: row.exception }),
    }),
  };
}

/** Takes a submission: checks it whole before anything is stored or sent. */
async function submit(
  c: Context<Env>,
  { store, broker }: ServiceDeps,
  { body, endpointId }: { body: Body; endpointId: string },
) {
  const identity = c.get("identity");
  const endpoint = store.endpoint(endpointId.toLowerCase());
  if (!endpoint) throw failure(404, "ENDPOINT_NOT_FOUND", `Endpoint ${endpointId} not found`);
  if (endpoint.owner !== identity && endpoint.public !== 1) {
    throw failure(403, "ENDPOINT_ACCESS_FORBIDDEN", `You may not use endpoint ${endpoint.id}`);
  }
  const asked = body.task_group_id;
  const group = (typeof asked === "string" && asked ? asked : crypto.randomUUID()).toLowerCase();
  const members = store.tasksOf(group);
  if (!UUID.test(group) || (members.length > 0 && members[0]!.owner !== identity)) {
    throw failure(403, "TASK_GROUP_ACCESS_FORBIDDEN", `You may not use task group ${group}`);
  }
  const allowed = endpoint.allowed === null ? null : JSON.parse(endpoint.allowed) as string[];
  const deliver = body.create_queue === false ? 0 : 1;
  const tasks: Record<string, string[]> = {};
  const prepared: { id: string; function: string; body: Uint8Array }[] = [];
  let size = 0;
  for (
    const [functionId, payloads] of Object.entries((body.tasks ?? {}) as Record<string, string[]>)
  ) {
    const fn = store.function(functionId);
    if (!fn || (fn.owner !== identity && fn.public !== 1)) {
      throw failure(404, "FUNCTION_NOT_FOUND", `Function ${functionId} not found`);
    }
    if (allowed && !allowed.includes(functionId)) {
      const reason = `Function ${functionId} not permitted on endpoint ${endpoint.id}`;
      throw failure(403, "FUNCTION_NOT_PERMITTED", reason);
    }
    for (const payload of payloads) {
      const id = crypto.randomUUID();
      const message = encodeMessage("task", { task_id: id, task_buffer: fn.packed + payload });
      size += message.length;
      prepared.push({ id, function: functionId, body: message });
      (tasks[functionId] ??= []).push(id);
    }
  }
  if (size > SUBMISSION_LIMIT) {
    throw failure(413, "TASK_PAYLOAD_TOO_LARGE", `${size} bytes exceed ${SUBMISSION_LIMIT}`);
  }
  if (deliver) await broker.groupQueue(group);
  store.transaction(() => {
    for (const task of prepared) {
      const { id } = task;
      store.addTask({
        id,
        owner: identity,
        endpoint: endpoint.id,
        function: task.function,
        task_group: group,
        deliver,
      });
    }
  });
  const extra: Record<string, unknown> = {};
  if (body.resource_specification) {
    extra.resource_specification = JSON.stringify(body.resource_specification);
  }
  if (Array.isArray(body.result_serializers)) extra.result_serializers = body.result_serializers;
  await Promise.all(prepared.map((task) => {
    const headers = { function_uuid: task.function, task_uuid: task.id, ...extra };
    return broker.sendTask(endpoint.id, { body: task.body, headers });
  }));
  return { request_id: crypto.randomUUID(), task_group_id: group, endpoint_id: endpoint.id, tasks };
}
