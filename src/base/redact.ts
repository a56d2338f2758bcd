/**
 * Takes secrets out of text before it reaches a log, a terminal or an error (invariant 9).
 * @module
 */

// up to the last @ before the path: a password may hold one
const URL_CREDENTIALS = /\b([a-z][a-z0-9+.-]*:\/\/)[^\s\/"']*@/gi;
const BEARER = /\b(bearer|basic)\s+[A-Za-z0-9._~+\/=-]{8,}/gi;
const NKEY_SEED = /\bS[UANOC][A-Z2-7]{56}\b/g;
const PEM = /-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]*?(?:-----END \1-----|$)/g;
const NAME =
  "access_token|refresh_token|id_token|client_secret|password|passwd|enckey|seed|code_verifier";
const QUOTED = new RegExp(
  `((?:${NAME})["']?\\s*[:=]\\s*(["']))(?:\\\\[\\s\\S]|(?!\\2)[^\\\\])+`,
  "gi",
);
// JSON inside a JSON string
const ESCAPED = new RegExp(
  `((?:${NAME})\\\\+["']\\s*[:=]\\s*(\\\\+["']))(?:(?!\\2)[\\s\\S])+`,
  "gi",
);
const BARE = new RegExp(`((?:${NAME})\\\\*["']?\\s*[:=]\\s*)(?!["'\\\\*])[^\\s"',}&]+`, "gi");

/** Replaces credentials in URLs, bearer tokens, nkey seeds, private keys and values of secret names by `***`. */
export function redact(text: string): string {
  return text
    .replace(URL_CREDENTIALS, "$1***:***@")
    .replace(BEARER, "$1 ***")
    .replace(NKEY_SEED, "***")
    .replace(PEM, "***")
    .replace(QUOTED, "$1***")
    .replace(ESCAPED, "$1***")
    .replace(BARE, "$1***");
}
