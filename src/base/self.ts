/**
 * How this program starts itself: the compiled executable, or Deno on the source tree.
 * @module
 */

/** Argument list that runs this program with `args`. */
export function selfCommand(...args: string[]): string[] {
  if (Deno.build.standalone) return [Deno.execPath(), ...args];
  const door = new URL("../../mod.ts", import.meta.url).pathname;
  return [Deno.execPath(), "run", "-A", door, ...args];
}

/** Quotes one word for a POSIX shell. */
export function shellQuote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
