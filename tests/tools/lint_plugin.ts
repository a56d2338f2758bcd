/**
 * House rules that Deno's own linter does not know: a module comment, `#private`, few positional arguments,
 * files of a readable length. Named in deno.json; tried in tests/unit/tools_lint_plugin_test.ts.
 * @module
 */

/** Lines a file may have before it has to say, in its module comment, why it is long. */
export const MAX_LINES = 400;

type Node = { range: [number, number]; type: string };
type Param = Node & {
  name?: string;
  left?: Param;
  typeAnnotation?: { typeAnnotation?: { type?: string } };
};
type FunctionNode = Node & { params: Param[]; id?: { name?: string } | null };

/** Whether a parameter is an options object, a callback or collects the rest, in whatever place. */
function isOptions(param: Param): boolean {
  if (param.type === "AssignmentPattern" && param.left) return isOptions(param.left);
  if (param.type === "ObjectPattern" || param.type === "RestElement") return true;
  if (param.typeAnnotation?.typeAnnotation?.type === "TSFunctionType") return true;
  return param.type === "Identifier" && /options$|^(this|signal)$/i.test(param.name ?? "");
}

/** Why a function has too many positional arguments, or `undefined`. */
function tooMany(node: FunctionNode): string | undefined {
  const positional = node.params.filter((param) => !isOptions(param)).length;
  if (positional <= 2) return undefined;
  return `${
    node.id?.name ?? "This function"
  } takes ${positional} positional arguments: two at most, then "options"`;
}

const plugin: Deno.lint.Plugin = {
  name: "house",
  rules: {
    "module-comment": {
      create(context) {
        return {
          Program(node) {
            if (context.filename.endsWith("_test.ts")) return;
            const first = context.sourceCode.getAllComments()[0];
            const opens = first?.type === "Block" && first.value.startsWith("*") &&
              context.sourceCode.text.slice(0, first.range[0]).replace(/^#!.*/, "").trim() === "";
            if (opens && first.value.includes("@module")) return;
            context.report({
              node,
              message: 'A file opens with a "@module" comment that says what it owns',
            });
          },
        };
      },
    },
    "private-names": {
      create(context) {
        const check = (node: { accessibility?: string; kind?: string } & Deno.lint.Node) => {
          // a constructor has no other way
          if (node.accessibility !== "private" || node.kind === "constructor") return;
          context.report({ node, message: "Private members are written #name, not private name" });
        };
        return {
          MethodDefinition: check,
          PropertyDefinition: check,
        };
      },
    },
    "positional-arguments": {
      create(context) {
        if (/\/tests\//.test(context.filename)) return {};
        return {
          "ExportNamedDeclaration > FunctionDeclaration, ExportDefaultDeclaration > FunctionDeclaration"(
            node: Deno.lint.FunctionDeclaration,
          ) {
            const message = tooMany(node as unknown as FunctionNode);
            if (message) context.report({ node, message });
          },
        };
      },
    },
    "dynamic-import": {
      create(context) {
        if (/\/tests\//.test(context.filename)) return {};
        return {
          ImportExpression(node) {
            const { source } = node;
            if (source.type === "Literal" && /^(\.|node:)/.test(String(source.value))) return;
            context.report({
              node,
              message: "import() takes a file of ours, which imports the package: bundled by " +
                "itself, a CommonJS package loses its named exports",
            });
          },
        };
      },
    },
    "file-length": {
      create(context) {
        return {
          Program(node) {
            const text = context.sourceCode.text;
            const lines = text.split("\n").length - 1;
            if (lines <= MAX_LINES) return;
            const head = context.sourceCode.getAllComments()[0]?.value ?? "";
            if (/\blong\b/i.test(head)) return;
            context.report({
              node,
              message:
                `This file has ${lines} lines: split it, or say in its module comment why it is long (at most ${MAX_LINES} otherwise)`,
            });
          },
        };
      },
    },
  },
};

export default plugin;
