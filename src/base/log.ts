/**
 * The one logger: one line a record, to standard error or to a file that rotates.
 *
 * A line is `<ISO time> <LEVEL> <room> <message> key=value ...`, or one JSON object with the same
 * parts. Secrets are taken out of every line (see redact.ts).
 * @module
 */
import { redact } from "./redact.ts";
import { errorText } from "./errors.ts";

/** Levels in rising order. */
export type Level = "debug" | "info" | "warn" | "error";

/** Named values beside a message; `error` may hold anything that was thrown. */
export type Fields = Record<string, unknown>;

/** Where finished lines go. */
export interface Sink {
  /** Takes one line, without its end. */
  write(line: string): void;
  /** Gives back what it holds; may be called twice. */
  close(): void;
}

const ORDER: Record<Level, number> = { debug: 0, info: 1, warn: 2, error: 3 };

/** What {@linkcode Logger} is made of. */
export interface LoggerOptions {
  /** Where the lines go. */
  sink: Sink;
  /** Lowest level that is written. May be changed while running. @default "info" */
  level?: Level;
  /** One JSON object a line instead of text. @default false */
  json?: boolean;
}

/** Writes records for one room of the program. Children share sink and level. */
export class Logger {
  readonly #shared: { sink: Sink; level: Level; json: boolean; once: Set<string> };
  readonly #room: string;

  /** Makes the first logger from a sink, or a further one for another room from a logger. */
  constructor(options: LoggerOptions | Logger, room = "endpoint") {
    this.#room = room;
    this.#shared = options instanceof Logger ? options.#shared : {
      sink: options.sink,
      level: options.level ?? "info",
      json: options.json ?? false,
      once: new Set(),
    };
  }

  /** A logger for another room that shares sink and level. */
  child(room: string): Logger {
    return new Logger(this, room);
  }

  /** The level in force. */
  get level(): Level {
    return this.#shared.level;
  }

  /** Changes the level of this logger and all that share its sink. */
  set level(level: Level) {
    this.#shared.level = level;
  }

  /** For whoever searches for a fault. */
  debug(message: string, fields?: Fields): void {
    this.#write("debug", message, fields);
  }

  /** What an administrator wants to have read. */
  info(message: string, fields?: Fields): void {
    this.#write("info", message, fields);
  }

  /** Something is wrong and is being dealt with. */
  warn(message: string, fields?: Fields): void {
    this.#write("warn", message, fields);
  }

  /** Something is wrong and somebody should act. */
  error(message: string, fields?: Fields): void {
    this.#write("error", message, fields);
  }

  /** Warns the first time `key` is seen by this sink; at most 1,000 keys are remembered. */
  warnOnce(key: string, message: string, fields?: Fields): void {
    const once = this.#shared.once;
    if (once.has(key) || once.size >= 1000) return;
    once.add(key);
    this.#write("warn", message, fields);
  }

  #write(level: Level, message: string, fields?: Fields): void {
    const { sink, json } = this.#shared;
    if (ORDER[level] < ORDER[this.#shared.level]) return;
    const time = new Date().toISOString();
    if (json) {
      const plain: Fields = { time, level, room: this.#room, message };
      for (const [key, value] of Object.entries(fields ?? {})) plain[key] = fieldValue(value);
      sink.write(redact(JSON.stringify(plain)));
      return;
    }
    let line = `${time} ${level.toUpperCase().padEnd(5)} ${this.#room}: ${message}`;
    for (const [key, value] of Object.entries(fields ?? {})) {
      if (value === undefined) continue;
      const text = fieldValue(value);
      line += ` ${key}=${
        typeof text === "string" && /^[^\s"=]+$/.test(text) ? text : JSON.stringify(text)
      }`;
    }
    sink.write(redact(line));
  }
}

function fieldValue(value: unknown): unknown {
  if (value instanceof Error) return errorText(value);
  if (typeof value === "bigint") return value.toString();
  return value;
}

/** Lines to standard error. */
export function stderrSink(): Sink {
  const encoder = new TextEncoder();
  return {
    write: (line) => {
      try {
        Deno.stderr.writeSync(encoder.encode(line + "\n"));
      } catch {
        // a closed terminal must not end the endpoint
      }
    },
    close: () => {},
  };
}

/** Keeps lines in memory: for tests, and for the last errors that `status` shows. */
export function memorySink(limit = 1000): Sink & { lines: string[] } {
  const lines: string[] = [];
  return {
    lines,
    write: (line) => {
      if (lines.length >= limit) lines.splice(0, Math.ceil(limit / 10));
      lines.push(line);
    },
    close: () => {},
  };
}

/**
 * Lines to a file (mode 0600) that is renamed to `<path>.1` once it holds `maxBytes`; one backup is
 * kept, as by the public agent. A full disk loses lines, never the process; the count of lost lines
 * is written as soon as writing works again.
 */
export function fileSink(path: string, maxBytes = 100 * 1024 * 1024): Sink {
  const encoder = new TextEncoder();
  const open = () => Deno.openSync(path, { append: true, create: true, write: true, mode: 0o600 });
  let file = open();
  let size = file.statSync().size;
  let lost = 0;
  return {
    write: (line) => {
      try {
        if (size >= maxBytes) {
          // a directory that cannot be written to keeps the old file; the next attempt comes as late
          try {
            Deno.renameSync(path, `${path}.1`);
            const next = open();
            file.close();
            file = next;
          } catch { /* goes on with the old file */ }
          size = 0;
        }
        if (lost > 0) line += `\n(${lost} log lines were lost: the log could not be written)`;
        const bytes = encoder.encode(line + "\n");
        for (let at = 0; at < bytes.length;) at += file.writeSync(bytes.subarray(at));
        size += bytes.length;
        lost = 0;
      } catch {
        lost++;
        try {
          file.statSync();
        } catch {
          try {
            file = open();
          } catch { /* the next line tries again */ }
        }
      }
    },
    close: () => {
      try {
        file.close();
      } catch { /* closed already */ }
    },
  };
}
