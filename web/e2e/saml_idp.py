"""A SAML identity provider for the tests, made of Debian's python3-pysaml2.

saml_idp.py FOLDER PORT metadata           makes a key and prints the provider's metadata
saml_idp.py FOLDER PORT serve SP-METADATA  answers sign-ins: /sso (asked for) and /start?user=…&relay=… (begun here)

?user= of either names who is signed in; without, it is sam@example.com. An assertion carries the group "editors", and ?role= its Role.
/response?user=…&role=… answers the response alone, in base64, with a RoleSessionName: for AssumeRoleWithSAML.
"""

import base64
import http.server
import os
import subprocess
import sys
import urllib.parse

from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT
from saml2.authn_context import PASSWORDPROTECTEDTRANSPORT
from saml2.config import IdPConfig
from saml2.metadata import entity_descriptor
from saml2.saml import NAMEID_FORMAT_EMAILADDRESS, NameID
from saml2.server import Server
from saml2.sigver import verify_redirect_signature
from saml2.xmldsig import DIGEST_SHA256, SIG_RSA_SHA256

folder, port, action = sys.argv[1], int(sys.argv[2]), sys.argv[3]
base = f"http://127.0.0.1:{port}"
key, cert = os.path.join(folder, "idp.key"), os.path.join(folder, "idp.pem")
if not os.path.exists(key):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=idp", "-keyout", key, "-out", cert],
        check=True,
        stderr=subprocess.DEVNULL,
    )
settings = {
    "entityid": base + "/metadata",
    "service": {
        "idp": {
            "endpoints": {"single_sign_on_service": [(base + "/sso", BINDING_HTTP_REDIRECT)]},
            "sign_response": True,
            "sign_assertion": True,
            "policy": {"default": {"lifetime": {"minutes": 5}, "name_form": "urn:oasis:names:tc:SAML:2.0:attrname-format:uri"}},
        }
    },
    "key_file": key,
    "cert_file": cert,
    "encryption_keypairs": [{"key_file": key, "cert_file": cert}],
    "xmlsec_binary": "/usr/bin/xmlsec1",
    "signing_algorithm": SIG_RSA_SHA256,
    "digest_algorithm": DIGEST_SHA256,
}
if action == "serve":
    settings["metadata"] = {"local": [sys.argv[4]]}
config = IdPConfig().load(settings)
if action == "metadata":
    print(entity_descriptor(config))
    sys.exit(0)
idp = Server(config=config)
sp = next(iter(idp.metadata.keys()))


ATTRIBUTES = "https://aws.amazon.com/SAML/Attributes/"


def respond(user, request_id, role=""):
    """A signed response for the service provider, and the address that it goes to."""
    acs = idp.metadata.assertion_consumer_service(sp, binding=BINDING_HTTP_POST)[0]["location"]
    said = {ATTRIBUTES + "PrincipalTag:groups": ["editors"], ATTRIBUTES + "SessionContext": ["from the provider"]}
    if role:
        said[ATTRIBUTES + "Role"] = [role]
        said[ATTRIBUTES + "RoleSessionName"] = [user]
    response = idp.create_authn_response(
        said,
        request_id,
        acs,
        sp_entity_id=sp,
        name_id=NameID(format=NAMEID_FORMAT_EMAILADDRESS, text=user),
        authn={"class_ref": PASSWORDPROTECTEDTRANSPORT, "authn_auth": base},
        sign_response=True,
        sign_assertion=True,
        encrypt_assertion=user.startswith("secret"),
        sign_alg=SIG_RSA_SHA256,
        digest_alg=DIGEST_SHA256,
    )
    return str(response), acs


def answer(user, request_id, relay, role=""):
    """The page that posts a signed response to the service provider."""
    response, acs = respond(user, request_id, role)
    return idp.apply_binding(BINDING_HTTP_POST, response, acs, relay, response=True)["data"]


class Handler(http.server.BaseHTTPRequestHandler):
    user = "sam@example.com"

    def do_GET(self):
        url = urllib.parse.urlparse(self.path)
        query = {k: v[0] for k, v in urllib.parse.parse_qs(url.query).items()}
        if url.path == "/user":  # who signs in from now on
            Handler.user = query["name"]
            return self.reply("ok")
        if url.path == "/start":
            return self.reply(answer(query["user"], None, query.get("relay", ""), query.get("role", "")))
        if url.path == "/response":
            return self.reply(base64.b64encode(respond(query["user"], None, query["role"])[0].encode()))
        if url.path != "/sso":
            return self.reply("not found", 404)
        signer = idp.metadata.certs(sp, "spsso", "signing")[0]
        signed = {k: v for k, v in query.items() if k in ("SAMLRequest", "RelayState", "SigAlg", "Signature")}
        if not verify_redirect_signature(signed, idp.sec.sec_backend, signer):
            return self.reply("the request is not signed", 403)
        request = idp.parse_authn_request(query["SAMLRequest"], BINDING_HTTP_REDIRECT)
        return self.reply(answer(Handler.user, request.message.id, query.get("RelayState", "")))

    def reply(self, body, status=200):
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(body.encode() if isinstance(body, str) else body)

    def log_message(self, *_):
        pass


server = http.server.HTTPServer(("127.0.0.1", port), Handler)
print("ready", flush=True)
server.serve_forever()
