/**
 * Clients and their tokens. A token is `<client>.<expiry>.<signature>`, signed with a key that only this service has.
 * @module
 */
import { timingSafeEqual } from "node:crypto";
import { wallMs } from "../base/mod.ts";
import type { Store } from "./store.ts";

/** Life of a token, in seconds. */
export const TOKEN_LIFE_S = 48 * 3600;

const encoder = new TextEncoder();

async function sha256(text: string): Promise<string> {
  const digest = await crypto.subtle.digest("SHA-256", encoder.encode(text));
  return [...new Uint8Array(digest)].map((b) => b.toString(16).padStart(2, "0")).join("");
}

function randomText(bytes: number): string {
  return [...crypto.getRandomValues(new Uint8Array(bytes))]
    .map((b) => b.toString(16).padStart(2, "0")).join("");
}

function sameText(a: string, b: string): boolean {
  const [x, y] = [encoder.encode(a), encoder.encode(b)];
  return x.length === y.length && timingSafeEqual(x, y);
}

/** Knows clients, gives and checks tokens. */
export class Tokens {
  readonly #store: Store;
  readonly #key: string;

  /** Makes it; nothing happens before its first call. */
  constructor(store: Store) {
    this.#store = store;
    const known = store.setting("token_key");
    this.#key = known ?? randomText(32);
    if (!known) store.setSetting("token_key", this.#key);
  }

  /** Makes a client. Its secret is known only now. */
  async addClient(name: string): Promise<{ id: string; secret: string }> {
    const id = crypto.randomUUID();
    const secret = randomText(24);
    this.#store.addClient({ id, secretHash: await sha256(secret), name });
    return { id, secret };
  }

  /** The client whose id and secret these are, or `null`. */
  async login(id: string, secret: string): Promise<{ id: string; name: string } | null> {
    const client = this.#store.client(id);
    const hash = await sha256(secret);
    return client && sameText(client.secret_hash, hash) ? client : null;
  }

  /** A new token for a client. */
  async issue(clientId: string): Promise<string> {
    const body = `${clientId}.${Math.floor(wallMs() / 1000) + TOKEN_LIFE_S}`;
    return `${body}.${await this.#sign(body)}`;
  }

  /** The identity that a token stands for, or `null` if it is not ours or over. */
  async identify(token: string): Promise<{ id: string; name: string } | null> {
    const at = token.lastIndexOf(".");
    const body = token.slice(0, at);
    if (at < 0 || !sameText(await this.#sign(body), token.slice(at + 1))) return null;
    const [id, expiry] = body.split(".");
    if (Number(expiry) * 1000 < wallMs() || this.#store.setting(`revoked.${token}`)) return null;
    return this.#store.client(id!) ?? null;
  }

  /** Makes a token worthless. */
  revoke(token: string): void {
    this.#store.setSetting(`revoked.${token}`, "1");
  }

  #sign(body: string): Promise<string> {
    return sha256(`${this.#key}.${body}`);
  }
}
