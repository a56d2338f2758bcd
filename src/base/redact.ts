/**
 * Takes secrets out of text before it reaches a log, a terminal or an error (invariant 9).
 * @module
 */

const URL_CREDENTIALS = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s\/@"']*@/gi;
const BEARER = /\b(bearer|basic)\s+[A-Za-z0-9._~+\/=-]{8,}/gi;
const NKEY_SEED = /\bS[UANOC][A-Z2-7]{56}\b/g;
const NAMED =
  /((?:"|')?(?:access_token|refresh_token|id_token|client_secret|password|enckey|seed)(?:"|')?\s*[:=]\s*(?:"|')?)[^\s"',}&]+/gi;

/** Replaces credentials in URLs, bearer tokens, nkey seeds and values of secret names by `***`. */
export function redact(text: string): string {
  return text
    .replace(URL_CREDENTIALS, "$1***:***@")
    .replace(BEARER, "$1 ***")
    .replace(NKEY_SEED, "***")
    .replace(NAMED, "$1***");
}
