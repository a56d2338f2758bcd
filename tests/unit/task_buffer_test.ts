import { unpackBuffers } from "../../src/compute/task_buffer.ts";

function equal(actual: unknown, wanted: unknown) {
  if (JSON.stringify(actual) !== JSON.stringify(wanted)) {
    throw new Error(`Got ${JSON.stringify(actual)}, wanted ${JSON.stringify(wanted)}`);
  }
}

function refuses(packed: string, part: string) {
  try {
    unpackBuffers(packed);
  } catch (error) {
    if (error instanceof SyntaxError && error.message.includes(part)) return;
    throw error;
  }
  throw new Error("Nothing was thrown");
}

Deno.test("unpackBuffers counts code points, not UTF-16 units", () => {
  equal(unpackBuffers("5\n00\na𝒳3\n11\n"), ["00\na𝒳", "11\n"]);
});
Deno.test("unpackBuffers refuses a buffer cut short", () => refuses("5\nabc", "2 characters"));
Deno.test("unpackBuffers refuses a missing length", () => refuses("x\nabc", "no length"));
