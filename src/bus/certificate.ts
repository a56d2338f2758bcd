/**
 * Makes the certificate of an endpoint's own bus. A file of its own, for it is heavy and needed once in the life of
 * an endpoint.
 * @module
 */
// before x509: its dependency injection looks for it when it is loaded
import "reflect-metadata";
import * as x509 from "@peculiar/x509";

/** An authority (Deno's TLS takes no certificate that is its own) and a server certificate signed by it, in PEM. */
export async function makeCertificate(
  serverName: string,
): Promise<{ ca: string; cert: string; key: string }> {
  x509.cryptoProvider.set(crypto);
  const signingAlgorithm = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
  const makeKeys = () => crypto.subtle.generateKey(signingAlgorithm, true, ["sign", "verify"]);
  const [caKeys, keys] = await Promise.all([makeKeys(), makeKeys()]);
  const day = 24 * 3600 * 1000;
  const validity = {
    // a node's clock may be behind ours
    notBefore: new Date(Date.now() - day),
    notAfter: new Date(Date.now() + 20 * 365 * day),
    signingAlgorithm,
  };
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    ...validity,
    name: `CN=authority of ${serverName}`,
    keys: caKeys,
    extensions: [new x509.BasicConstraintsExtension(true, 0, true)],
  });
  const cert = await x509.X509CertificateGenerator.create({
    ...validity,
    subject: `CN=${serverName}`,
    issuer: ca.subject,
    publicKey: keys.publicKey,
    signingKey: caKeys.privateKey,
    extensions: [
      new x509.BasicConstraintsExtension(false),
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: serverName }]),
    ],
  });
  const pkcs8 = await crypto.subtle.exportKey("pkcs8", keys.privateKey);
  return {
    ca: ca.toString("pem") + "\n",
    cert: cert.toString("pem") + "\n",
    key: x509.PemConverter.encode(pkcs8, "PRIVATE KEY") + "\n",
  };
}
