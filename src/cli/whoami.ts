/**
 * `endpoint whoami`.
 * @module
 */
import { EX, UserError } from "../base/mod.ts";
import { authUrl, clientCredentials } from "../auth/mod.ts";

/** Runs `whoami`. */
export async function whoamiCommand(): Promise<number> {
  const token = await clientCredentials().token();
  const response = await fetch(`${authUrl()}/v2/oauth2/userinfo`, {
    headers: { authorization: `Bearer ${token}` },
    signal: AbortSignal.timeout(30_000),
  });
  if (!response.ok) {
    throw new UserError(`The login server does not tell who this is (HTTP ${response.status})`, {
      exit: EX.noperm,
    });
  }
  const { preferred_username, sub } = await response.json();
  console.log(`${preferred_username} (${sub})`);
  return EX.ok;
}
