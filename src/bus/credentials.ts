/**
 * Who may talk to an endpoint's own bus: an nkey for each role and a certificate, made once and kept (invariant 7).
 * The server's configuration holds public keys only; seeds are files of mode 0600.
 * @module
 */
import { createUser, fromSeed } from "nats/nkeys";
import { EX, makePrivateDir, readIfThere, UserError, writePrivate } from "../base/mod.ts";

/** Roles on the bus. */
export type Role = "endpoint" | "manager";

/** The name in the certificate of an endpoint's own bus; clients check it whatever the address. */
export const BUS_SERVER_NAME = "bus.endpoint.internal";

/** Files and public keys of an endpoint's own bus. */
export interface BusCredentials {
  certFile: string;
  keyFile: string;
  /** PEM of the authority that signed the certificate; its key was thrown away. */
  ca: string;
  seedFiles: Record<Role, string>;
  /** Public nkeys that may log in, for each role: the present one first, then one that is being replaced. */
  publicKeys: Record<Role, string[]>;
}

const ROLES: Role[] = ["endpoint", "manager"];

/** Makes what is missing in `dir` and gives the whole. @throws {UserError} if files there are not ours alone */
export async function loadCredentials(dir: string): Promise<BusCredentials> {
  makePrivateDir(dir);
  const certFile = `${dir}/bus-cert.pem`;
  const caFile = `${dir}/bus-ca.pem`;
  const keyFile = `${dir}/bus-key.pem`;
  if (readIfThere(certFile) === undefined || readIfThere(keyFile) === undefined) {
    // loaded only here: it is needed once in the life of an endpoint
    const { makeCertificate } = await import("./certificate.ts");
    const { ca, cert, key } = await makeCertificate(BUS_SERVER_NAME);
    writePrivate(caFile, ca);
    writePrivate(keyFile, key);
    writePrivate(certFile, cert);
  }
  const seedFiles = {} as Record<Role, string>;
  const publicKeys = {} as Record<Role, string[]>;
  for (const role of ROLES) {
    const path = seedFiles[role] = `${dir}/${role}.nk`;
    if (readIfThere(path) === undefined) writeSeed(path);
    requirePrivate(path);
    publicKeys[role] = [publicKeyOf(path)];
    const previous = `${path}.previous`;
    if (readIfThere(previous) !== undefined) publicKeys[role].push(publicKeyOf(previous));
  }
  requirePrivate(keyFile);
  return { certFile, keyFile, ca: Deno.readTextFileSync(caFile), seedFiles, publicKeys };
}

/**
 * Replaces the nkeys of both roles; the old ones go on being accepted until the next rotation, so that managers that run now
 * are not shut out.
 */
export function rotateSeeds(dir: string): void {
  for (const role of ROLES) {
    const path = `${dir}/${role}.nk`;
    const old = readIfThere(path);
    if (old !== undefined) writePrivate(`${path}.previous`, old);
    writeSeed(path);
  }
}

function writeSeed(path: string): void {
  writePrivate(path, new TextDecoder().decode(createUser().getSeed()) + "\n");
}

function publicKeyOf(path: string): string {
  return fromSeed(new TextEncoder().encode(Deno.readTextFileSync(path).trim())).getPublicKey();
}

function requirePrivate(path: string): void {
  const { mode, uid } = Deno.statSync(path);
  if (uid !== Deno.uid()) {
    throw new UserError(`The key file ${path} belongs to user id ${uid}, not to you`, {
      exit: EX.noperm,
      file: path,
      hint: "Remove it; a new one is made at the next start",
    });
  }
  if (mode !== null && (mode & 0o077) !== 0) Deno.chmodSync(path, 0o600);
}
