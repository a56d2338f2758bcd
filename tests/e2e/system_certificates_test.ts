import { makeCertificate } from "../../src/bus/certificate.ts";
import { equal, includes, ok, withDir } from "../support/assert.ts";

const ENDPOINT = new URL("../../endpoint", import.meta.url).pathname;

/** Asks for a login at an HTTPS server of our own; the system's store holds its authority, or is empty. */
async function login(options: { known: boolean }): Promise<{ text: string; asked: number }> {
  const { ca, cert, key } = await makeCertificate("localhost");
  let asked = 0;
  const onListen = () => {};
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, cert, key, onListen }, () => {
    asked++;
    return Response.json({}, { status: 401 });
  });
  let text = "";
  await withDir(async (dir) => {
    await Deno.writeTextFile(`${dir}/ca.pem`, options.known ? ca : "");
    const { stdout, stderr } = await new Deno.Command(ENDPOINT, {
      args: ["whoami"],
      clearEnv: true,
      env: {
        HOME: dir,
        SSL_CERT_FILE: `${dir}/ca.pem`,
        GLOBUS_SDK_SERVICE_URL_AUTH: `https://localhost:${server.addr.port}/`,
        GLOBUS_COMPUTE_CLIENT_ID: crypto.randomUUID(),
        GLOBUS_COMPUTE_CLIENT_SECRET: "x",
      },
    }).output();
    const decode = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
    text = decode(stdout) + decode(stderr);
  });
  await server.shutdown();
  return { text, asked };
}

Deno.test("endpoint trusts the authorities of the system's store", async () => {
  const { text, asked } = await login({ known: true });
  ok(asked > 0, text);
  includes(text, "refused");
});

Deno.test("endpoint trusts no authority that is in no store", async () => {
  const { text, asked } = await login({ known: false });
  equal(asked, 0);
  includes(text, "certificate");
});
