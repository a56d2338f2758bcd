/**
 * A compact set of UUIDs: 16 bytes an entry in one typed array, where a Set of strings takes about 100.
 * @module
 */

/** Grows as needed; entries cannot be taken out one by one. */
export class IdSet {
  #words = new Uint32Array(4 * 256);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds a UUID. @returns false if it was there */
  add(id: string): boolean {
    if (this.#size * 2 >= this.#words.length / 4) this.#grow();
    return this.#insert(...wordsOf(id));
  }

  has(id: string): boolean {
    const [a, b, c, d] = wordsOf(id);
    const slot = this.#slotOf(a, b, c, d);
    return !this.#isFree(slot);
  }

  #insert(a: number, b: number, c: number, d: number): boolean {
    const slot = this.#slotOf(a, b, c, d);
    if (!this.#isFree(slot)) return false;
    this.#words.set([a, b, c, d], slot);
    this.#size++;
    return true;
  }

  #slotOf(a: number, b: number, c: number, d: number): number {
    const words = this.#words;
    const slots = words.length / 4;
    let slot = ((a ^ Math.imul(d, 0x9e3779b1)) >>> 0) % slots;
    for (;;) {
      const at = slot * 4;
      const match = words[at] === a && words[at + 1] === b && words[at + 2] === c &&
        words[at + 3] === d;
      if (match || this.#isFree(at)) return at;
      slot = (slot + 1) % slots;
    }
  }

  #isFree(at: number): boolean {
    const words = this.#words;
    return words[at] === 0 && words[at + 1] === 0 && words[at + 2] === 0 && words[at + 3] === 0;
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    this.#size = 0;
    for (let at = 0; at < old.length; at += 4) {
      const [a, b, c, d] = old.subarray(at, at + 4) as unknown as [number, number, number, number];
      if (a || b || c || d) this.#insert(a, b, c, d);
    }
  }
}

/** The four 32-bit words of a UUID. */
export function wordsOf(id: string): [number, number, number, number] {
  const hex = id.replaceAll("-", "");
  return [
    parseInt(hex.slice(0, 8), 16),
    parseInt(hex.slice(8, 16), 16),
    parseInt(hex.slice(16, 24), 16),
    parseInt(hex.slice(24, 32), 16),
  ];
}

/** UUIDs as 16 bytes each. */
export function packIds(ids: readonly string[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(ids.length * 16);
  const view = new DataView(bytes.buffer);
  ids.forEach((id, index) => {
    wordsOf(id).forEach((word, part) => view.setUint32(index * 16 + part * 4, word));
  });
  return bytes;
}

/** The reverse of {@linkcode packIds}; a cut-off tail is left out. */
export function unpackIds(bytes: Uint8Array): string[] {
  const ids: string[] = [];
  for (let at = 0; at + 16 <= bytes.length; at += 16) {
    let hex = "";
    for (let i = 0; i < 16; i++) hex += bytes[at + i]!.toString(16).padStart(2, "0");
    ids.push(
      `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${
        hex.slice(20)
      }`,
    );
  }
  return ids;
}
