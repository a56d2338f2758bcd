/**
 * The few assertions that tests use; each failure shows both values.
 * @module
 */

/** Fails unless both are equal by value; objects are compared by their keys, whatever the order. */
export function equal(actual: unknown, wanted: unknown, what = ""): void {
  const [a, b] = [show(actual), show(wanted)];
  if (a !== b) throw new Error(`${what ? `${what}: ` : ""}got ${a}, wanted ${b}`);
}

/** Fails unless the value is true in the sense of JavaScript. */
export function ok(value: unknown, what: string): asserts value {
  if (!value) throw new Error(`Not so: ${what}`);
}

/** Fails unless `text` contains `part`. */
export function includes(text: string, part: string): void {
  if (!text.includes(part)) throw new Error(`${JSON.stringify(part)} is not in ${text}`);
}

/** Fails unless `call` throws or rejects; gives what was thrown. */
export async function throws<T = Error>(
  call: () => unknown,
  kind?: new (...args: never[]) => T,
): Promise<T> {
  try {
    await call();
  } catch (error) {
    if (kind && !(error instanceof kind)) {
      throw new Error(`Threw ${error}, wanted a ${kind.name}`, { cause: error });
    }
    return error as T;
  }
  throw new Error("Nothing was thrown");
}

/** Calls `body` with a temporary folder that is removed afterwards. */
export async function withDir(body: (dir: string) => unknown): Promise<void> {
  const dir = await Deno.makeTempDir();
  try {
    await body(dir);
  } finally {
    await Deno.remove(dir, { recursive: true });
  }
}

function show(value: unknown): string {
  return JSON.stringify(value, (_key, part) => {
    if (typeof part === "bigint") return `${part}n`;
    if (part === undefined) return "(undefined)";
    if (part instanceof Uint8Array) return [...part];
    if (part instanceof Map || part instanceof Set) return [...part];
    if (part && typeof part === "object" && !Array.isArray(part)) {
      return Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1));
    }
    return part;
  }) ?? "(undefined)";
}
