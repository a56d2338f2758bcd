/**
 * Who may import whom: rooms point down the list of layers and meet through `mod.ts` files; files form no cycles.
 *
 * Reads import statements only; a room's types count as much as its code.
 * @module
 */

/** Layers from the top to the bottom; rooms of one layer may use each other as long as they form no cycle. */
export const LAYERS: readonly (readonly string[])[] = [
  ["mod.ts"],
  ["cli"],
  ["endpoint", "multi_user", "manager", "service"],
  ["amqp", "bus", "compute", "auth", "providers"],
  ["config"],
  ["base"],
];

/** Files beside `mod.ts` through which rooms may meet: types alone, no code to run. */
export const CONTRACTS: readonly string[] = [
  "providers/provider.ts",
  "src/amqp/types.ts",
  "src/bus/types.ts",
  "src/compute/messages.ts",
  "src/config/types.ts",
  "src/manager/manager_config.ts",
];

/** Small files that `endpoint version` and a mistyped command read without loading the room behind them. */
export const LIGHT: readonly string[] = [
  "src/base/errors.ts",
  "src/base/version.ts",
  "src/config/nearest.ts",
];

/** One import of one file by another; paths are relative to the project. */
export interface Import {
  from: string;
  to: string;
  /** Erased when run. */
  typeOnly: boolean;
}

const STATEMENT =
  /(?:^|\n)\s*(?:import|export)\s+(type\s+)?(?:[\w*{}\s,$]+?\s+from\s+)?["'](\.[^"']+)["']/g;
const DYNAMIC = /\bimport\(\s*["'](\.[^"']+)["']\s*\)/g;

/** The relative imports of a file's text. A block comment's contents do not count. */
export function importsOf(path: string, text: string): Import[] {
  const code = text.replace(/\/\*[\s\S]*?\*\//g, "").replace(/^\s*\/\/.*$/gm, "");
  const resolve = (target: string) => new URL(target, `file:///${path}`).pathname.slice(1);
  const found: Import[] = [];
  for (const [whole, type, target] of code.matchAll(STATEMENT)) {
    const names = whole.match(/\{([^}]*)\}/)?.[1]?.split(",").map((n) => n.trim()).filter(Boolean);
    const typeOnly = type !== undefined ||
      (names !== undefined && names.length > 0 && names.every((n) => n.startsWith("type ")));
    found.push({ from: path, to: resolve(target!), typeOnly });
  }
  for (const [, target] of code.matchAll(DYNAMIC)) {
    found.push({ from: path, to: resolve(target!), typeOnly: false });
  }
  return found;
}

/** The room a file belongs to. */
export function roomOf(path: string): string {
  if (path.startsWith("src/")) return path.split("/")[1]!;
  return path.split("/")[0]!;
}

/** What is wrong with these imports, one sentence each. */
export function layerFaults(imports: readonly Import[]): string[] {
  const rank = (room: string) => LAYERS.findIndex((layer) => layer.includes(room));
  const faults: string[] = [];
  const rooms = new Map<string, Set<string>>();
  for (const { from, to } of imports) {
    const [a, b] = [roomOf(from), roomOf(to)];
    if (a === b || to === "deno.json") continue;
    if (rank(b) < 0) {
      faults.push(`${from} imports ${to}, which belongs to no room`);
      continue;
    }
    if (rank(b) < rank(a)) faults.push(`${from} imports ${to}: ${a} lies below ${b}`);
    const door = to.endsWith("/mod.ts") || CONTRACTS.includes(to) ||
      (from === "mod.ts" && b === "cli") || (a === "cli" && LIGHT.includes(to));
    if (!door) faults.push(`${from} imports ${to} past the door of ${b} (its mod.ts)`);
    if (!rooms.has(a)) rooms.set(a, new Set());
    rooms.get(a)!.add(b);
  }
  for (const cycle of cycles(rooms)) faults.push(`Rooms import in a circle: ${cycle.join(" > ")}`);
  const files = new Map<string, Set<string>>();
  for (const { from, to, typeOnly } of imports) {
    if (typeOnly) continue;
    if (!files.has(from)) files.set(from, new Set());
    files.get(from)!.add(to);
  }
  for (const cycle of cycles(files)) faults.push(`Files import in a circle: ${cycle.join(" > ")}`);
  return faults;
}

/** The circles of a graph, each once, closed by its first member. */
function cycles(graph: Map<string, Set<string>>): string[][] {
  const state = new Map<string, "open" | "done">();
  const path: string[] = [];
  const found: string[][] = [];
  const visit = (node: string) => {
    state.set(node, "open");
    path.push(node);
    for (const next of graph.get(node) ?? []) {
      if (state.get(next) === "open") found.push([...path.slice(path.indexOf(next)), next]);
      else if (!state.has(next)) visit(next);
    }
    path.pop();
    state.set(node, "done");
  };
  for (const node of graph.keys()) if (!state.has(node)) visit(node);
  return found;
}

/** All imports of the product's own files below `root`. */
export function projectImports(root: string): Import[] {
  const found: Import[] = [];
  const walk = (dir: string) => {
    for (const entry of Deno.readDirSync(`${root}/${dir}`)) {
      const path = `${dir}/${entry.name}`;
      if (entry.isDirectory) walk(path);
      else if (path.endsWith(".ts")) {
        found.push(...importsOf(path, Deno.readTextFileSync(`${root}/${path}`)));
      }
    }
  };
  walk("src");
  walk("providers");
  try {
    found.push(...importsOf("mod.ts", Deno.readTextFileSync(`${root}/mod.ts`)));
  } catch { /* a tree without its door */ }
  return found;
}
