/**
 * The door: hands the arguments to the command line and ends the process with its answer.
 * @module
 */
import { main } from "./src/cli/main.ts";

// Deno reads this at the first TLS connection; sites add their own authorities to the system's store
if (!Deno.env.has("DENO_TLS_CA_STORE")) Deno.env.set("DENO_TLS_CA_STORE", "system,mozilla");

Deno.exit(await main(Deno.args));
