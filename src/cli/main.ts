/**
 * The command line: global options, then a subcommand, each in a file of its own that is loaded when it is asked for.
 * Only this room prints and exits.
 * @module
 */
import { errorText, EX, redact, UserError, VERSION } from "../base/mod.ts";
import type { Globals } from "./globals.ts";

type Command = (args: string[], globals: Globals) => Promise<number>;

/** Subcommands: what each is for, and how to load it. */
const COMMANDS: Record<string, { about: string; load(): Promise<Command> }> = {
  configure: {
    about: "configure NAME          make an endpoint's directory with a commented config.yaml",
    load: async () => (await import("./configure.ts")).configureCommand,
  },
  start: {
    about: "start [NAME] [--detach] [--endpoint-uuid UUID]   register, and take tasks",
    load: async () => (await import("./start.ts")).startCommand,
  },
  stop: {
    about: "stop [NAME]             end it with its blocks; running tasks are answered",
    load: async () => (await import("./stop.ts")).stopCommand,
  },
  restart: {
    about: "restart [NAME]          stop taking, start again; blocks and running tasks go on",
    load: async () => (await import("./stop.ts")).restartCommand,
  },
  status: {
    about: "status [NAME] [--json]  what it does now",
    load: async () => (await import("./status.ts")).statusCommand,
  },
  list: {
    about: "list [--json]           endpoints of this user",
    load: async () => (await import("./list.ts")).listCommand,
  },
  delete: {
    about: "delete [NAME] [--yes]   remove it here and from the service",
    load: async () => (await import("./delete.ts")).deleteCommand,
  },
  whoami: {
    about: "whoami                  the identity that is logged in",
    load: async () => (await import("./whoami.ts")).whoamiCommand,
  },
  service: {
    about: "service [env]           a Compute service of one's own; `env` prints how to reach it",
    load: async () => (await import("./service.ts")).serviceCommand,
  },
  manager: {
    about: "manager                 (started by blocks on their nodes)",
    load: async () => (await import("./manager.ts")).managerCommand,
  },
};

/** Runs the program. @returns the exit code */
export async function main(args: string[]): Promise<number> {
  try {
    const { globals, rest } = readGlobals(args);
    const [name, ...own] = rest;
    if (name === "version" || name === "--version") {
      console.log(VERSION);
      return EX.ok;
    }
    if (name === undefined || name === "help" || name === "-h" || name === "--help") {
      console.log(usage());
      return name === undefined ? 2 : EX.ok;
    }
    const command = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
    if (!command) throw await unknownCommand(name);
    if (own.includes("-h") || own.includes("--help")) {
      console.log(`endpoint ${command.about}`);
      return EX.ok;
    }
    return await (await command.load())(own, globals);
  } catch (error) {
    return complain(error);
  }
}

function readGlobals(args: string[]): { globals: Globals; rest: string[] } {
  const globals: Globals = { configDir: undefined, debug: false, logToConsole: false };
  let at = 0;
  for (; at < args.length; at++) {
    const arg = args[at]!;
    if (arg === "-c" || arg === "--config-dir") globals.configDir = args[++at];
    else if (arg.startsWith("--config-dir=")) globals.configDir = arg.slice(13);
    else if (arg === "--debug") globals.debug = true;
    else if (arg === "--log-to-console") globals.logToConsole = true;
    else if (arg !== "--no-color") break;
  }
  return { globals, rest: args.slice(at) };
}

function usage(): string {
  const lines = Object.values(COMMANDS).map(({ about }) => `  ${about}`);
  return [
    "endpoint: runs functions from the Globus Compute cloud on this machine or cluster",
    "",
    "  endpoint [-c DIR] COMMAND ...",
    "",
    ...lines,
    "  version                 this program's version",
    "",
    "First steps:",
    "  endpoint configure my-endpoint",
    "  endpoint start my-endpoint",
  ].join("\n");
}

async function unknownCommand(name: string): Promise<UserError> {
  const { nearest } = await import("../config/mod.ts");
  const near = nearest(name, [...Object.keys(COMMANDS), "version"]);
  return new UserError(`There is no command "${name}"`, {
    exit: 2,
    hint: near ? `Did you mean ${near}?` : "`endpoint help` lists them",
  });
}

function complain(error: unknown): number {
  const text = redact(errorText(error));
  console.error(`endpoint: ${text}${text.endsWith(".") ? "" : "."}`);
  if (!(error instanceof UserError)) {
    if (error instanceof Error && error.stack) console.error(redact(error.stack));
    return EX.software;
  }
  if (error.file && !text.includes(error.file)) console.error(`  in ${error.file}`);
  if (error.hint) console.error(`  ${error.hint}`);
  return error.exit;
}
