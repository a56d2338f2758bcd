/**
 * The login server's calls that the SDK and endpoints make, under client credentials.
 * @module
 */
import { Hono } from "hono";
import { TOKEN_LIFE_S, type Tokens } from "./tokens.ts";

/** Which resource server a scope belongs to. */
function resourceServer(scope: string): string {
  return scope.includes("facd7ccc-c5f4-42aa-916b-a0e270e2c2a9")
    ? "funcx_service"
    : "auth.globus.org";
}

/** The routes, for mounting at the root. */
export function authRoutes(tokens: Tokens): Hono {
  const app = new Hono();

  app.post("/v2/oauth2/token", async (c) => {
    const form = await c.req.parseBody();
    const [id, secret] = basicAuth(c.req.header("authorization")) ??
      [String(form.client_id ?? ""), String(form.client_secret ?? "")];
    const client = await tokens.login(id, secret);
    if (!client) return c.json({ error: "invalid_client" }, 401);
    if (form.grant_type !== "client_credentials") {
      return c.json({ error: "unsupported_grant_type" }, 400);
    }
    const scopes = String(form.scope ?? "").split(/[\s+]+/).filter(Boolean);
    const byServer = new Map<string, string[]>();
    for (const scope of scopes) {
      const server = resourceServer(scope);
      byServer.set(server, [...byServer.get(server) ?? [], scope]);
    }
    const access = await tokens.issue(client.id);
    const grants = [...byServer].map(([server, own]) => ({
      access_token: access,
      scope: own.join(" "),
      expires_in: TOKEN_LIFE_S,
      token_type: "Bearer",
      resource_server: server,
    }));
    const [first, ...others] = grants;
    if (!first) return c.json({ error: "invalid_scope" }, 400);
    return c.json({ ...first, other_tokens: others });
  });

  app.post("/v2/oauth2/token/revoke", async (c) => {
    const form = await c.req.parseBody();
    if (typeof form.token === "string") tokens.revoke(form.token);
    return c.json({ active: false });
  });

  app.get("/v2/oauth2/userinfo", async (c) => {
    const client = await tokens.identify(bearer(c.req.header("authorization")));
    if (!client) return c.json({ error: "invalid_token" }, 401);
    const username = `${client.id}@clients.auth.globus.org`;
    const identity = { sub: client.id, username, name: client.name, email: null };
    return c.json({ ...identity, preferred_username: username, identity_set: [identity] });
  });

  app.get("/v2/api/identities", (c) => {
    const ids = (c.req.query("ids") ?? "").split(",").filter(Boolean);
    return c.json({
      identities: ids.map((id) => ({
        id,
        username: `${id}@clients.auth.globus.org`,
        status: "used",
        name: null,
        email: null,
      })),
    });
  });
  return app;
}

/** The token of an `Authorization: Bearer` header; empty if there is none. */
export function bearer(header: string | undefined): string {
  return /^Bearer\s+(.+)$/i.exec(header ?? "")?.[1] ?? "";
}

function basicAuth(header: string | undefined): [string, string] | null {
  const encoded = /^Basic\s+(.+)$/i.exec(header ?? "")?.[1];
  if (!encoded) return null;
  try {
    const text = atob(encoded);
    const at = text.indexOf(":");
    return [decodeURIComponent(text.slice(0, at)), decodeURIComponent(text.slice(at + 1))];
  } catch {
    return null;
  }
}
