/**
 * Errors written for the person who reads them, and the exit codes that go with them.
 * @module
 */

/** Exit codes of sysexits.h, as far as this product uses them. */
export const EX = {
  ok: 0,
  /** Any refusal that has no code of its own (what the public agent uses, too). */
  failure: 1,
  usage: 64,
  dataerr: 65,
  noinput: 66,
  unavailable: 69,
  software: 70,
  oserr: 71,
  cantcreat: 73,
  ioerr: 74,
  tempfail: 75,
  protocol: 76,
  noperm: 77,
  config: 78,
} as const;

/** What an {@linkcode UserError} says beyond its sentence. */
export interface UserErrorOptions {
  /** Exit code of the process if nobody catches it. @default 1 */
  exit?: number;
  /** What the reader can do about it: one imperative sentence, or a command to type. */
  hint?: string;
  /** The file at fault, with `:line` where known. */
  file?: string;
  /** What went wrong underneath. */
  cause?: unknown;
}

/**
 * An error that is meant for the user: its message is a whole sentence that says what happened, to
 * what, and why. The command line prints it without a stack and exits with {@linkcode exit}.
 */
export class UserError extends Error {
  /** Tells it apart where the class is not at hand. */
  override name = "UserError";
  /** Exit code for a process that ends because of this error. */
  readonly exit: number;
  /** What to do about it, if anything is known. */
  readonly hint?: string;
  /** The file at fault. */
  readonly file?: string;

  /** Makes one from a whole sentence without a final period. */
  constructor(message: string, options: UserErrorOptions = {}) {
    super(message, { cause: options.cause });
    this.exit = options.exit ?? EX.failure;
    this.hint = options.hint;
    this.file = options.file;
  }
}

/** The text of anything that was thrown, without a stack; causes are appended once each. */
export function errorText(thrown: unknown): string {
  if (!(thrown instanceof Error)) return String(thrown);
  const cause = thrown.cause === undefined ? "" : errorText(thrown.cause);
  const own = thrown.message || thrown.name;
  return cause && !own.includes(cause) ? `${own}: ${cause}` : own;
}
