/**
 * `endpoint delete`.
 * @module
 */
import { EX, readIfThere, UserError } from "../base/mod.ts";
import { clientCredentials } from "../auth/mod.ts";
import { ComputeClient, serviceUrl } from "../compute/mod.ts";
import { loadUserConfig } from "../config/mod.ts";
import { liveHolder, TOUCH_MS } from "../endpoint/mod.ts";
import { findEndpoint, type Globals, readArguments } from "./globals.ts";

/** Runs `delete`: first at the service, then the directory. */
export async function deleteCommand(args: string[], globals: Globals): Promise<number> {
  const { positional, flags } = readArguments(args, { flags: ["--yes", "--force"], globals });
  const { name, paths } = findEndpoint(positional[0], globals);
  if (liveHolder(paths, 3 * TOUCH_MS)) {
    throw new UserError(`${name} runs`, { exit: EX.failure, hint: `First: endpoint stop ${name}` });
  }
  if (!flags.has("--yes") && !confirm(`Delete ${name} and everything in ${paths.dir}?`)) {
    return EX.failure;
  }
  const registration = readIfThere(paths.registration);
  if (registration) {
    try {
      const config = loadUserConfig(paths.dir);
      const url = serviceUrl({
        local: config.localComputeServices,
        environment: config.environment,
      });
      const authorizer = clientCredentials();
      const client = new ComputeClient(url, () => authorizer.token());
      await client.deleteEndpoint(JSON.parse(registration).endpoint_id);
    } catch (error) {
      if (!flags.has("--force")) throw error;
    }
  }
  Deno.removeSync(paths.dir, { recursive: true });
  console.log(`Deleted ${name}`);
  return EX.ok;
}
