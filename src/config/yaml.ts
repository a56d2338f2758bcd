/**
 * YAML as users' files mean it: YAML 1.1 scalars, as PyYAML makes of them; size and nesting are checked before parsing.
 * @module
 */
import { parseDocument } from "@std/yaml";
import { EX, UserError } from "../base/mod.ts";

const MAX_BYTES = 1024 * 1024;
const MAX_DEPTH = 64;

/** A parsed file: its plain value, and the line of each top-level and nested key. */
export interface ParsedYaml {
  value: unknown;
  /** Line of the key at a path such as `engine.provider.type`; 0 if unknown. */
  lineOf(path: readonly PropertyKey[]): number;
}

/** Parses YAML text. @param source the file's name, for errors @throws {UserError} exit 78 */
export function parseYaml(text: string, source: string): ParsedYaml {
  const refuse = (why: string, line?: number) =>
    new UserError(`The configuration ${source}${line ? `:${line}` : ""} ${why}`, {
      exit: EX.config,
      file: source,
    });
  if (text.length > MAX_BYTES) throw refuse(`holds more than ${MAX_BYTES} characters`);
  if (deepest(text) > MAX_DEPTH) throw refuse(`is nested deeper than ${MAX_DEPTH} levels`);
  const document = parseDocument(text, {
    version: "1.1",
    schema: "yaml-1.1",
    uniqueKeys: false,
    strict: false,
    merge: true,
    logLevel: "silent",
  });
  const [error] = document.errors;
  if (error) {
    const line = error.linePos?.[0].line;
    throw refuse(`is no YAML: ${error.message.split("\n")[0]}`, line);
  }
  const lineAt = (offset: number) => text.slice(0, offset).split("\n").length;
  return {
    value: document.toJS({ maxAliasCount: 100 }),
    lineOf: (path) => {
      for (const keys = [...path]; keys.length > 0; keys.pop()) {
        const node = document.getIn(keys, true) as { range?: [number, number, number] } | undefined;
        if (node?.range) return lineAt(node.range[0]);
      }
      return 0;
    },
  };
}

/** Deepest nesting of brackets, and of indentation in steps of one: what makes a parser eat memory. */
function deepest(text: string): number {
  let depth = 0;
  let most = 0;
  for (const char of text) {
    if (char === "{" || char === "[") most = Math.max(most, ++depth);
    else if (char === "}" || char === "]") depth = Math.max(0, depth - 1);
  }
  return most;
}
