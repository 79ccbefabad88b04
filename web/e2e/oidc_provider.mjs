// An OpenID provider for the tests: node-oidc-provider with its own pages for signing in. Arguments: port, redirect URI.
import Provider from "oidc-provider";

const [port, redirectUri] = process.argv.slice(2);
const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "penstock",
      client_secret: "a secret of the test alone",
      redirect_uris: [redirectUri],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  pkce: { required: () => true },
  claims: { openid: ["sub"], email: ["email", "email_verified"], profile: ["name", "groups"] },
  conformIdTokenClaims: false,
  cookies: { keys: ["a key of the test alone"] },
  findAccount: (_context, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      name: id,
      email: id,
      email_verified: !id.startsWith("unverified"),
      groups: ["editors"],
    }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("ready"));
