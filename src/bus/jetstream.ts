/**
 * The little of JetStream's protocol that the hot path uses: acknowledged publishes, pull requests, acknowledgements.
 * One object a connection; when the connection goes, all that waits fails with {@linkcode BusError} `lost`.
 * @module
 */
import { headers, type Msg, type MsgHdrs, type NatsConnection } from "nats";
import { monoMs } from "../base/mod.ts";

/** What the store refused, or that it could not be asked. */
export class BusError extends Error {
  /** Tells this class from others where `instanceof` cannot. */
  override name = "BusError";
  /** `err_code` of JetStream, 0 if there is none. */
  readonly code: number;
  /** What went wrong, for those who decide by it. */
  readonly kind: "lost" | "timeout" | "refused";

  /** Makes it; nothing happens before its first call. */
  constructor(kind: BusError["kind"], message: string, code = 0) {
    super(message);
    this.kind = kind;
    this.code = code;
  }

  /** The subject holds another message than expected. */
  get wrongLastSequence(): boolean {
    return this.code === 10071;
  }

  /** The subject holds a message already. */
  get subjectTaken(): boolean {
    return this.code === 10077 && this.message.includes("per subject");
  }

  /** The stream or the disk has no room. */
  get full(): boolean {
    return (this.code === 10077 && !this.subjectTaken) || this.code === 10047 ||
      this.code === 10023 || this.code === 10122;
  }
}

interface Waiting {
  resolve(seq: number): void;
  reject(error: BusError): void;
  sinceMs: number;
}

/** How long an acknowledgement of the store may take before it is asked for again. */
const ACK_LIMIT_MS = 10_000;

/** Publishes to streams on one connection. */
export class StreamPublisher {
  readonly #connection: NatsConnection;
  readonly #waiting = new Map<string, Waiting>();
  readonly #prefix: string;
  #counter = 0;
  #timer?: number;

  constructor(connection: NatsConnection, inboxPrefix: string) {
    this.#connection = connection;
    this.#prefix = `${inboxPrefix}.${connection.info!.client_id}a.`;
    connection.subscribe(`${this.#prefix}*`, { callback: (_, message) => this.#onReply(message) });
    void connection.closed().then(() => this.#failAll("lost"));
  }

  /** Number of publishes whose acknowledgement is awaited. */
  get pending(): number {
    return this.#waiting.size;
  }

  /** Stores a message. @returns its sequence @throws {BusError} */
  publish(subject: string, body: Uint8Array, withHeaders?: MsgHdrs): Promise<number> {
    const { promise, resolve, reject } = Promise.withResolvers<number>();
    if (this.#connection.isClosed()) {
      reject(new BusError("lost", "The connection to the bus was lost"));
      return promise;
    }
    const token = (this.#counter++).toString(36);
    this.#waiting.set(token, { resolve, reject, sinceMs: monoMs() });
    this.#timer ??= setInterval(() => this.#expire(), 1000);
    this.#connection.publish(subject, body, { reply: this.#prefix + token, headers: withHeaders });
    return promise;
  }

  #onReply(message: Msg): void {
    const token = message.subject.slice(this.#prefix.length);
    const waiting = this.#waiting.get(token);
    if (!waiting) return;
    this.#waiting.delete(token);
    const data = message.data;
    if (data.length === 0) {
      // "no responders"
      return waiting.reject(new BusError("refused", "The bus has no such stream"));
    }
    const answer = JSON.parse(message.string()) as {
      seq?: number;
      error?: { err_code: number; description: string };
    };
    if (answer.error) {
      waiting.reject(new BusError("refused", answer.error.description, answer.error.err_code));
    } else {
      waiting.resolve(answer.seq ?? 0);
    }
  }

  #expire(): void {
    const oldest = monoMs() - ACK_LIMIT_MS;
    for (const [token, waiting] of this.#waiting) {
      if (waiting.sinceMs > oldest) break;
      this.#waiting.delete(token);
      waiting.reject(new BusError("timeout", "The bus did not answer in 10 s"));
    }
    if (this.#waiting.size === 0) {
      clearInterval(this.#timer);
      this.#timer = undefined;
    }
  }

  #failAll(kind: "lost"): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const waiting of all) {
      waiting.reject(new BusError(kind, "The connection to the bus was lost"));
    }
  }
}

const ACK = new TextEncoder().encode("+ACK");
const NAK = new TextEncoder().encode("-NAK");

/**
 * The acknowledgement subject of a delivered message. The server looks a message up by its stream sequence; a NAK
 * also wants a consumer sequence that is not yet behind the consumer's ack floor.
 */
export function ackSubject(
  stream: string,
  consumer: string,
  options: { seq: number; consumerSeq?: number },
): string {
  return `$JS.ACK.${stream}.${consumer}.1.${options.seq}.${options.consumerSeq ?? 1}.0.0`;
}

/** Acknowledges without waiting. */
export function sendAck(connection: NatsConnection, subject: string): void {
  if (!connection.isClosed()) connection.publish(subject, ACK);
}

/** Asks for redelivery. */
export function sendNak(connection: NatsConnection, subject: string): void {
  if (!connection.isClosed()) connection.publish(subject, NAK);
}

/** Headers that make the store accept a message only if the subject's last sequence is `seq` (0: none). */
export function expectLast(seq: number): MsgHdrs {
  if (seq === 0) return EXPECT_NONE;
  return expectSequence(seq);
}

function expectSequence(seq: number): MsgHdrs {
  const h = headers();
  h.set("Nats-Expected-Last-Subject-Sequence", String(seq));
  return h;
}

const EXPECT_NONE = expectSequence(0);

/** How {@linkcode PullRequests} works. */
export interface PullOptions {
  stream: string;
  consumer: string;
  inboxPrefix: string;
  onMessage(message: Msg): void;
  /** Bytes of one request at most. */
  maxBytes?: number;
  /**
   * If given, the object keeps asking by itself: it asks for what this says whenever less than half of it is on its
   * way, and after {@linkcode PullRequests.refill}.
   */
  window?(): number;
}

/** Life of a pull request, in milliseconds; the server ends it then and it is made again. */
const PULL_EXPIRES_MS = 60_000;

/**
 * Pull requests on one connection and one consumer: keeps exactly as many messages asked for as was said.
 */
export class PullRequests {
  readonly #connection: NatsConnection;
  readonly #options: PullOptions;
  readonly #inbox: string;
  readonly #subject: string;
  #asked = 0;
  #counter = 0;
  #stopped = false;
  #retryTimer?: number;
  readonly #subscription;

  constructor(connection: NatsConnection, options: PullOptions) {
    this.#connection = connection;
    this.#options = options;
    this.#inbox = `${options.inboxPrefix}.${connection.info!.client_id}p${options.consumer}.`;
    this.#subject = `$JS.API.CONSUMER.MSG.NEXT.${options.stream}.${options.consumer}`;
    this.#subscription = connection.subscribe(`${this.#inbox}*`, {
      callback: (_, message) => this.#onMessage(message),
    });
    void connection.closed().then(() => clearTimeout(this.#retryTimer));
  }

  /** Messages asked for and not yet here. */
  get asked(): number {
    return this.#asked;
  }

  /** Asks for more if there is room; to be called when the window has grown. */
  refill(): void {
    const window = this.#options.window?.() ?? 0;
    if (window > 0 && this.#asked < window / 2) this.ask(window - this.#asked);
  }

  /** Asks for `count` more messages. */
  ask(count: number): void {
    if (count <= 0 || this.#stopped || this.#connection.isClosed()) return;
    this.#asked += count;
    // the count travels in the token, for statuses that do not say how much was left
    const token = `${(this.#counter++).toString(36)}-${count}`;
    const { maxBytes } = this.#options;
    const request = `{"batch":${count},"expires":${PULL_EXPIRES_MS}000000${
      maxBytes ? `,"max_bytes":${maxBytes}` : ""
    }}`;
    this.#connection.publish(this.#subject, request, { reply: this.#inbox + token });
  }

  /** Takes no more; what the server sends from now on is lost and must be given back by sequence. */
  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retryTimer);
    this.#subscription.unsubscribe();
  }

  #onMessage(message: Msg): void {
    const code = message.data.length === 0 && !message.reply ? message.headers?.code ?? 0 : 0;
    if (code === 0) {
      this.#asked--;
      this.#options.onMessage(message);
      if (this.#options.window) this.refill();
      return;
    }
    if (code === 100) return; // idle heartbeat
    const stated = message.headers?.get("Nats-Pending-Messages");
    const left = Number(stated || message.subject.slice(message.subject.lastIndexOf("-") + 1));
    this.#asked -= left;
    if (
      this.#options.window && (code === 408 || message.headers?.description.includes("MaxBytes"))
    ) {
      return this.refill();
    }
    if (code === 408 || message.headers?.description.includes("MaxBytes")) return this.ask(left);
    // the consumer is being made, moved or is overloaded: ask again a little later
    clearTimeout(this.#retryTimer);
    this.#retryLater(left);
  }

  #owed = 0;
  #retryLater(count: number): void {
    this.#owed += count;
    this.#retryTimer = setTimeout(() => {
      const owed = this.#owed;
      this.#owed = 0;
      if (this.#options.window) this.refill();
      else this.ask(owed);
    }, 250);
  }
}
