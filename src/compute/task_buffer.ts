/**
 * The packed buffer of a task: `<length>\n<string>` one after another, lengths in Unicode code points.
 * @module
 */

/**
 * Splits a packed buffer into its strings.
 *
 * @throws {SyntaxError} if a length is not a number or the buffer is cut short
 */
export function unpackBuffers(packed: string): string[] {
  const parts: string[] = [];
  let at = 0;
  while (at < packed.length) {
    const newline = packed.indexOf("\n", at);
    const text = newline < 0 ? "" : packed.slice(at, newline);
    if (!/^\d{1,9}$/.test(text)) {
      throw new SyntaxError(`Cannot read task buffer: no length at position ${at}`);
    }
    const start = newline + 1;
    let end = start;
    for (let left = Number(text); left > 0; left--) {
      const point = packed.codePointAt(end);
      if (point === undefined) {
        throw new SyntaxError(`Cannot read task buffer: cut short, ${left} characters are missing`);
      }
      end += point > 0xffff ? 2 : 1;
    }
    parts.push(packed.slice(start, end));
    at = end;
  }
  return parts;
}
