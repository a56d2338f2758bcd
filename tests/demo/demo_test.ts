import { equal, includes, ok } from "../support/assert.ts";
import { exported } from "./demo.ts";

const ROOT = new URL("../../", import.meta.url).pathname;

Deno.test("exported reads export lines, quoted or not", () => {
  equal(exported("export A=1\nexport B='x y'\nC=3\nexport D=\"q\"\nexport E='it'\\''s'\n"), {
    A: "1",
    B: "x y",
    D: "q",
    E: "it's",
  });
});

Deno.test("demo runs functions of the real SDK on our endpoint and leaves nothing running", async () => {
  // a network of its own: the SDK looks for a local service at port 5000 only
  const { code, stdout, stderr } = await new Deno.Command("unshare", {
    args: [
      "--net",
      ...(Deno.uid() === 0 ? [] : ["--map-root-user"]),
      ...["sh", "-c", 'ip link set lo up; exec "$@"', "sh"],
      ...[Deno.execPath(), "run", "-A", "tests/demo/demo.ts"],
    ],
    cwd: ROOT,
  }).output();
  const text = new TextDecoder().decode(stdout);
  equal(code, 0, text + new TextDecoder().decode(stderr));
  for (const part of ["100/100", "| hello from", "ZeroDivisionError", "the same bytes came back"]) {
    includes(text, part);
  }
  ok(text.trimEnd().endsWith("demo: nothing is left running"), text);
});
