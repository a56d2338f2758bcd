import { redact } from "../../src/base/mod.ts";
import { equal, ok } from "../support/assert.ts";

const CASES: [name: string, text: string, secret: string, kept: string][] = [
  ["a URL's credentials", "to amqps://ep:hunter2@host:5671/v", "hunter2", "@host:5671/v"],
  ["a password that holds @", "amqp://ep:hun@ter2@host", "ter2", "@host"],
  ["a bearer token", "Authorization: Bearer AgX0123456789", "AgX0123456789", "Bearer ***"],
  ["an nkey seed", "seed SUAM" + "A".repeat(54) + " end", "SUAMAAA", " end"],
  ["a token in JSON", '{"access_token": "Ag x,y", "a": 1}', "x,y", '"a": 1}'],
  ["a quoted value with a quote in it", '{"password":"ab\\"cd","a":1}', "cd", '"a":1}'],
  ["JSON inside JSON", '{"m":"{\\"client_secret\\":\\"s3\\",\\"a\\":1}"}', "s3", '\\"a\\":1'],
  ["an environment line", "GLOBUS_COMPUTE_CLIENT_SECRET=abc next", "abc", " next"],
  ["a quoted environment line", "GLOBUS_COMPUTE_CLIENT_SECRET='a b' next", "a b", " next"],
  ["a form body", "grant=x&refresh_token=abc&scope=y", "abc", "&scope=y"],
  [
    "a private key",
    "-----BEGIN EC PRIVATE KEY-----\nMHc\n-----END EC PRIVATE KEY-----",
    "MHc",
    "***",
  ],
  ["a private key cut short", "-----BEGIN PRIVATE KEY-----\nMHc", "MHc", "***"],
];

for (const [name, text, secret, kept] of CASES) {
  Deno.test(`redact takes out ${name} and leaves the rest`, () => {
    const clean = redact(text);
    ok(!clean.includes(secret), `${secret} is gone from ${clean}`);
    ok(clean.includes(kept), `${kept} is left in ${clean}`);
    equal(redact(clean), clean, "a second pass");
  });
}
Deno.test("redact leaves text without secrets alone", () => {
  for (const text of ["https://host/a@b", "mail a@b.c", "password file missing", "tasks: 5"]) {
    equal(redact(text), text);
  }
});
