/**
 * Access tokens by client credentials: `GLOBUS_COMPUTE_CLIENT_ID` and `GLOBUS_COMPUTE_CLIENT_SECRET` (protocol.md section 1).
 * @module
 */
import { EX, monoMs, retry, UserError } from "../base/mod.ts";

/** The scope of the Compute service. */
export const COMPUTE_SCOPE =
  "https://auth.globus.org/scopes/facd7ccc-c5f4-42aa-916b-a0e270e2c2a9/all";

/** Gives an access token that is valid for at least a minute. */
export interface Authorizer {
  /** The token. */
  token(): Promise<string>;
}

/** The login server: `GLOBUS_SDK_SERVICE_URL_AUTH`, else Globus Auth. */
export function authUrl(): string {
  const named = Deno.env.get("GLOBUS_SDK_SERVICE_URL_AUTH");
  return (named ?? "https://auth.globus.org/").replace(/\/+$/, "");
}

/**
 * An authorizer from the two environment variables.
 * @throws {UserError} if one or both are missing
 */
export function clientCredentials(): Authorizer {
  const id = Deno.env.get("GLOBUS_COMPUTE_CLIENT_ID");
  const secret = Deno.env.get("GLOBUS_COMPUTE_CLIENT_SECRET");
  if (secret && !id) {
    throw new UserError("GLOBUS_COMPUTE_CLIENT_SECRET is set without GLOBUS_COMPUTE_CLIENT_ID", {
      exit: EX.noperm,
      hint: "Set both, or neither",
    });
  }
  if (!id || !secret) {
    throw new UserError("There is no login to use", {
      exit: EX.noperm,
      hint:
        "Set GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET (`endpoint service env` prints them for " +
        "a service of your own); the interactive login is not built yet",
    });
  }
  return new ClientCredentials(id, secret);
}

class ClientCredentials implements Authorizer {
  readonly #id: string;
  readonly #secret: string;
  #token: Promise<{ token: string; untilMs: number }> | null = null;

  constructor(id: string, secret: string) {
    this.#id = id;
    this.#secret = secret;
  }

  async token(): Promise<string> {
    const known = await this.#token?.catch(() => null);
    if (known && known.untilMs > monoMs()) return known.token;
    // several callers share one renewal
    this.#token = this.#grant();
    return (await this.#token).token;
  }

  async #grant(): Promise<{ token: string; untilMs: number }> {
    const response = await retry(() =>
      fetch(`${authUrl()}/v2/oauth2/token`, {
        method: "POST",
        headers: { authorization: `Basic ${btoa(`${this.#id}:${this.#secret}`)}` },
        body: new URLSearchParams({ grant_type: "client_credentials", scope: COMPUTE_SCOPE }),
        signal: AbortSignal.timeout(30_000),
      }), { attempts: 3 }).catch((error) => {
        throw new UserError(`The login server ${authUrl()} cannot be reached`, {
          exit: EX.tempfail,
          cause: error,
        });
      });
    const body = await response.json().catch(() => ({})) as {
      access_token?: string;
      expires_in?: number;
      other_tokens?: { access_token: string; scope: string; expires_in: number }[];
    };
    if (!response.ok || !body.access_token) {
      throw new UserError(
        `The login server ${authUrl()} refused client ${this.#id} (HTTP ${response.status})`,
        {
          exit: EX.noperm,
          hint: "Check GLOBUS_COMPUTE_CLIENT_ID and GLOBUS_COMPUTE_CLIENT_SECRET",
        },
      );
    }
    const seconds = body.expires_in ?? 3600;
    return { token: body.access_token, untilMs: monoMs() + Math.max(10, seconds - 60) * 1000 };
  }
}
