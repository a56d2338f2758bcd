/**
 * A program that is compiled exactly as the product is, and tells in JSON whether what travels inside can be used:
 * for tests/e2e/compiled_test.ts.
 * @module
 */
import "reflect-metadata";
import { Environment } from "minijinja";
import * as x509 from "@peculiar/x509";
import amqp from "amqplib";
import { Hono } from "hono";
import { DatabaseSync } from "node:sqlite";
import { extractWorker, listAssets, natsServerPath, run, VERSION } from "../../src/base/mod.ts";

/** Runs every part once, with `dir` for what it extracts. */
async function probe(dir: string): Promise<Record<string, unknown>> {
  const nats = await natsServerPath(dir);
  const worker = await extractWorker(dir);
  const environment = new Environment();
  const database = new DatabaseSync(":memory:");
  return {
    version: VERSION,
    natsServer: (await run([nats, "--version"])).stdout.trim(),
    worker: [...Deno.readDirSync(worker)].map((entry) => entry.name).sort(),
    templates: listAssets("templates"),
    jinja: environment.renderStr("{{ a }} and {% for x in b %}{{ x }}{% endfor %}", {
      a: 1,
      b: [2, 3],
    }),
    x509: typeof x509.X509CertificateGenerator.create,
    sqlite: database.prepare("select 1 + 1 as two").get(),
    amqp: typeof amqp.connect,
    hono: await (await new Hono().get("/", (c) => c.text("hi")).request("/")).text(),
    environment: Object.keys(Deno.env.toObject()),
  };
}

console.log(JSON.stringify(await probe(Deno.args[0]!)));
