package federation

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/beevik/etree"
	"github.com/crewjam/saml"
	"github.com/crewjam/saml/xmlenc"
	dsig "github.com/russellhaering/goxmldsig"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/argon"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/sqlite"
)

const account = "123456789012"

// idp signs whatever a test wants signed.
type idp struct {
	t    testing.TB
	key  *rsa.PrivateKey
	cert []byte
	sp   *samlProvider
	f    *Federation
	iam  *access.Service
}

func newKey(t testing.TB) (*rsa.PrivateKey, []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "idp"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return key, der
}

func newIDP(t testing.TB, change ...func(*Provider)) *idp {
	t.Helper()
	dir := t.TempDir()
	i := &idp{t: t}
	i.key, i.cert = newKey(t)
	metadata := `<EntityDescriptor xmlns="urn:oasis:names:tc:SAML:2.0:metadata" entityID="https://idp.example/metadata"><IDPSSODescriptor protocolSupportEnumeration="` +
		nsProtocol + `"><KeyDescriptor use="signing"><KeyInfo xmlns="` + nsSignature + `"><X509Data><X509Certificate>` +
		base64.StdEncoding.EncodeToString(i.cert) + `</X509Certificate></X509Data></KeyInfo></KeyDescriptor>` +
		`<SingleSignOnService Binding="` + saml.HTTPRedirectBinding + `" Location="https://idp.example/sso"/></IDPSSODescriptor></EntityDescriptor>`
	path := filepath.Join(dir, "idp.xml")
	if err := os.WriteFile(path, []byte(metadata), 0o600); err != nil {
		t.Fatal(err)
	}
	p := Provider{ID: "corp", Type: typeSAML, Stacks: []string{"demo", "lab"}, MetadataFile: path}
	for _, c := range change {
		c(&p)
	}
	if err := p.check(); err != nil {
		t.Fatal(err)
	}
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(dir, "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	if i.iam, err = access.New(access.Options{Store: store, AccountID: account, Seed: make([]byte, 32), Region: "us-east-1"}); err != nil {
		t.Fatal(err)
	}
	users, err := signin.New(signin.Options{Store: store, Hasher: argon.New(argon.Options{}), Seed: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	i.f, err = New(Options{
		Providers: []Provider{p}, SignIn: users, PublicURL: "https://portal.example", AccountID: account, KeyDir: dir, Roles: i.iam, Seed: make([]byte, 32),
	})
	if err != nil {
		t.Fatal(err)
	}
	i.sp = i.f.saml[p.ID]
	return i
}

// said is what a response says; the zero value of a member stands for what is right.
type said struct {
	user, format, audience, recipient, destination, issuer, inResponseTo, status string
	issued                                                                       time.Time
	from, until                                                                  time.Duration
	attributes                                                                   map[string]string
	id                                                                           string
}

func or(v, def string) string {
	switch v {
	case "":
		return def
	case "-":
		return ""
	}
	return v
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }

func (i *idp) assertion(s said) *etree.Element {
	i.t.Helper()
	if s.issued.IsZero() {
		s.issued = time.Now()
	}
	if s.until == 0 {
		s.until = 5 * time.Minute
	}
	answers := ""
	if s.inResponseTo != "" {
		answers = ` InResponseTo="` + s.inResponseTo + `"`
	}
	attributes := ""
	for k, v := range s.attributes {
		attributes += `<Attribute Name="` + k + `"><AttributeValue>` + v + `</AttributeValue></Attribute>`
	}
	if attributes != "" {
		attributes = `<AttributeStatement>` + attributes + `</AttributeStatement>`
	}
	restriction := ""
	if a := or(s.audience, "https://portal.example/federation/corp/metadata"); a != "" {
		restriction = `<AudienceRestriction><Audience>` + a + `</Audience></AudienceRestriction>`
	}
	text := `<Assertion xmlns="` + nsAssertion + `" ID="` + or(s.id, "a-1") + `" Version="2.0" IssueInstant="` + stamp(s.issued) + `"><Issuer>` +
		or(s.issuer, "https://idp.example/metadata") + `</Issuer><Subject><NameID Format="` + or(s.format, "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress") + `">` +
		or(s.user, "sam@example.com") + `</NameID><SubjectConfirmation Method="urn:oasis:names:tc:SAML:2.0:cm:bearer"><SubjectConfirmationData` + answers +
		` NotOnOrAfter="` + stamp(s.issued.Add(s.until)) + `" Recipient="` + or(s.recipient, "https://portal.example/federation/corp/acs") +
		`"/></SubjectConfirmation></Subject><Conditions NotBefore="` + stamp(s.issued.Add(s.from)) + `" NotOnOrAfter="` + stamp(s.issued.Add(s.until)) + `">` + restriction +
		`</Conditions><AuthnStatement AuthnInstant="` + stamp(s.issued) + `"><AuthnContext><AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:Password` +
		`</AuthnContextClassRef></AuthnContext></AuthnStatement>` + attributes + `</Assertion>`
	return i.element(text)
}

func (i *idp) element(text string) *etree.Element {
	i.t.Helper()
	d := etree.NewDocument()
	if err := d.ReadFromString(text); err != nil {
		i.t.Fatal(err)
	}
	return d.Root()
}

// sign puts an enveloped signature after the issuer.
func (i *idp) sign(e *etree.Element, method string) *etree.Element {
	i.t.Helper()
	c, err := dsig.NewSigningContext(i.key, [][]byte{i.cert})
	if err != nil {
		i.t.Fatal(err)
	}
	c.Canonicalizer = dsig.MakeC14N10ExclusiveCanonicalizerWithPrefixList("")
	if err := c.SetSignatureMethod(method); err != nil {
		i.t.Fatal(err)
	}
	out, err := c.SignEnveloped(e)
	if err != nil {
		i.t.Fatal(err)
	}
	sig := out.Child[len(out.Child)-1]
	out.RemoveChildAt(len(out.Child) - 1)
	out.InsertChildAt(1, sig)
	return out
}

func (i *idp) response(s said, children ...*etree.Element) *etree.Element {
	i.t.Helper()
	answers := ""
	if s.inResponseTo != "" {
		answers = ` InResponseTo="` + s.inResponseTo + `"`
	}
	r := i.element(`<samlp:Response xmlns:samlp="` + nsProtocol + `" ID="r-1" Version="2.0" IssueInstant="` + stamp(time.Now()) + `" Destination="` +
		or(s.destination, "https://portal.example/federation/corp/acs") + `"` + answers + `><Issuer xmlns="` + nsAssertion + `">https://idp.example/metadata</Issuer>` +
		`<samlp:Status><samlp:StatusCode Value="` + or(s.status, "urn:oasis:names:tc:SAML:2.0:status:Success") + `"/></samlp:Status></samlp:Response>`)
	for _, c := range children {
		r.AddChild(c)
	}
	return r
}

func text(t testing.TB, e *etree.Element) string {
	t.Helper()
	d := etree.NewDocument()
	d.SetRoot(e.Copy())
	s, err := d.WriteToString()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (i *idp) read(response, relay string) (assertion, error) {
	return i.sp.read(i.t.Context(), iam.Request{SourceIP: "192.0.2.1"}, base64.StdEncoding.EncodeToString([]byte(response)), relay)
}

// good is a whole response with a signed assertion.
func (i *idp) good(s said) string {
	return text(i.t, i.response(s, i.sign(i.assertion(s), dsig.RSASHA256SignatureMethod)))
}

func TestSAMLAssertionIsRead(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	i.role("stream", trustCorp, streamAll)
	a, err := i.read(i.good(said{attributes: map[string]string{
		tagAttribute + "groups": "editors:staff", contextAttribute: "room 4", lifeAttribute: "1800",
		roleAttribute: "arn:aws:iam::" + account + ":role/stream,arn:aws:iam::" + account + ":saml-provider/corp",
	}}), "https://relay.example/?stack=lab&accountId="+account)
	if err != nil {
		t.Fatal(err)
	}
	v := a.visitor
	if v.UserID != "sam@example.com" || v.Auth != appstream.AuthSAML || v.Stack != "lab" || v.Context != "room 4" || a.life != 30*time.Minute || a.answers != "" {
		t.Errorf("got %+v", a)
	}
	if got := v.Attributes["groups"]; len(got) != 1 || got[0] != "editors:staff" {
		t.Errorf("groups: got %v", got)
	}
	if a, err = i.read(i.good(said{inResponseTo: "id-7"}), ""); err != nil || a.answers != "id-7" {
		t.Errorf("an answer: got %+v (%v), want that it waits for the browser that asked", a, err)
	}
	whole := i.sign(i.response(said{}, i.assertion(said{})), dsig.RSASHA256SignatureMethod)
	if _, err := i.read(text(t, whole), ""); err != nil {
		t.Errorf("a signed response: %v", err)
	}
}

// encrypt puts an assertion into an EncryptedAssertion for our key.
func (i *idp) encrypt(e *etree.Element, cipher xmlenc.BlockCipher) *etree.Element {
	i.t.Helper()
	enc := xmlenc.OAEP()
	enc.BlockCipher, enc.DigestMethod = cipher, &xmlenc.SHA256
	data, err := enc.Encrypt(i.sp.sp.Certificate, []byte(text(i.t, e)), nil)
	if err != nil {
		i.t.Fatal(err)
	}
	data.CreateAttr("Type", "http://www.w3.org/2001/04/xmlenc#Element")
	out := i.element(`<EncryptedAssertion xmlns="` + nsAssertion + `"/>`)
	out.AddChild(data)
	return out
}

func TestSAMLEncryptedAssertion(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	signed := func() *etree.Element { return i.sign(i.assertion(said{}), dsig.RSASHA256SignatureMethod) }
	if a, err := i.read(text(t, i.response(said{}, i.encrypt(signed(), xmlenc.AES256GCM))), ""); err != nil || a.visitor.UserID != "sam@example.com" {
		t.Errorf("AES-GCM: got %+v (%v)", a, err)
	}
	for name, e := range map[string]*etree.Element{
		"encrypted and not signed":          i.encrypt(i.assertion(said{}), xmlenc.AES256GCM),
		"CBC in a response without a proof": i.encrypt(signed(), xmlenc.AES256CBC),
	} {
		if _, err := i.read(text(t, i.response(said{}, e)), ""); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSAMLRefuses(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	only := newIDP(t, func(p *Provider) { p.SPInitiatedOnly = true })
	sha256, sha1 := dsig.RSASHA256SignatureMethod, dsig.RSASHA1SignatureMethod
	stranger := newIDP(t)
	good := i.good(said{})
	evil := func() *etree.Element { return i.assertion(said{user: "admin@example.com", id: "evil"}) }
	signed := func() *etree.Element { return i.sign(i.assertion(said{}), sha256) }
	// move puts an element into another and answers the outer one.
	move := func(into *etree.Element, what ...*etree.Element) *etree.Element {
		for _, w := range what {
			into.AddChild(w)
		}
		return into
	}
	extensions := func(what *etree.Element) *etree.Element {
		return move(i.element(`<samlp:Extensions xmlns:samlp="`+nsProtocol+`"/>`), what)
	}
	object := func(what *etree.Element) *etree.Element {
		return move(i.element(`<ds:Object xmlns:ds="`+nsSignature+`"/>`), what)
	}
	signatureOf := func(e *etree.Element) *etree.Element { return e.SelectElement("Signature") }
	without := func(e *etree.Element) *etree.Element {
		e = e.Copy()
		e.RemoveChild(signatureOf(e))
		return e
	}
	signedResponse := func() *etree.Element { return i.sign(i.response(said{}, i.assertion(said{})), sha256) }
	for name, response := range map[string]string{
		"unsigned":              text(t, i.response(said{}, i.assertion(said{}))),
		"another key":           text(t, i.response(said{}, stranger.sign(i.assertion(said{}), sha256))),
		"SHA-1":                 text(t, i.response(said{}, i.sign(i.assertion(said{}), sha1))),
		"changed after signing": strings.Replace(good, "sam@example.com", "bob@example.com", 1),
		"a comment in NameID":   strings.Replace(good, "sam@example.com", "sam@example.com<!---->.evil.example", 1),
		"wrong audience":        i.good(said{audience: "https://other.example"}),
		"no audience":           i.good(said{audience: "-"}),
		"wrong recipient":       i.good(said{recipient: "https://other.example/acs"}),
		"wrong destination":     i.good(said{destination: "https://other.example/acs"}),
		"wrong issuer":          i.good(said{issuer: "https://other.example/metadata"}),
		"expired":               i.good(said{issued: time.Now().Add(-time.Hour)}),
		"not yet valid":         i.good(said{issued: time.Now().Add(time.Hour)}),
		"valid from later":      i.good(said{from: 10 * time.Minute, until: 20 * time.Minute}),
		"failed":                i.good(said{status: "urn:oasis:names:tc:SAML:2.0:status:Requester"}),
		"transient":             i.good(said{format: transientID}),
		"a user with spaces":    i.good(said{user: "sam smith"}),
		"no user":               i.good(said{user: "-"}),
		"another account's role": i.good(said{attributes: map[string]string{
			roleAttribute: "arn:aws:iam::999999999999:role/stream,arn:aws:iam::999999999999:saml-provider/corp",
		}}),
		"session too long": i.good(said{attributes: map[string]string{lifeAttribute: "999999"}}),
		"answers two requests": strings.Replace(i.good(said{inResponseTo: "one"}), `Destination="https://portal.example/federation/corp/acs" InResponseTo="one"`,
			`Destination="https://portal.example/federation/corp/acs" InResponseTo="two"`, 1),
		"nothing": "", "no XML": "{}", "another root": text(t, i.assertion(said{})),
		"a document type": `<!DOCTYPE x [<!ENTITY e "sam">]>` + good,
		"an entity bomb": `<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>` +
			strings.Replace(good, "sam@example.com", "&b;", 1),
		"an external entity":           `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + strings.Replace(good, "sam@example.com", "&e;", 1),
		"a processing instruction":     strings.Replace(good, "<samlp:Status", "<?x y?><samlp:Status", 1),
		"deep":                         strings.Replace(good, "<samlp:Status>", strings.Repeat("<a>", 5000)+strings.Repeat("</a>", 5000)+"<samlp:Status>", 1),
		"many":                         strings.Replace(good, "<samlp:Status>", strings.Repeat("<a/>", 5000)+"<samlp:Status>", 1),
		"two assertions":               text(t, i.response(said{}, signed(), i.sign(i.assertion(said{id: "a-2"}), sha256))),
		"an HMAC under the public key": strings.ReplaceAll(good, sha256, "http://www.w3.org/2000/09/xmldsig#hmac-sha1"),
		"an XPath transform":           strings.Replace(good, "http://www.w3.org/2000/09/xmldsig#enveloped-signature", "http://www.w3.org/TR/1999/REC-xpath-19991116", 1),
		"a reference to everything":    strings.Replace(good, `URI="#a-1"`, `URI=""`, 1),
		// The eight ways to wrap a signature of "On Breaking SAML" (Somorovsky et al., 2012).
		"XSW1": text(t, func() *etree.Element { // evil response around the signed one, which stands in the signature
			s := signedResponse()
			e := i.response(said{}, evil())
			e.CreateAttr("ID", "evil-response")
			sig := signatureOf(s).Copy()
			sig.AddChild(without(s))
			e.InsertChildAt(1, sig)
			return e
		}()),
		"XSW2": text(t, func() *etree.Element { // the signed response beside its detached signature
			s := signedResponse()
			e := i.response(said{}, evil())
			e.CreateAttr("ID", "evil-response")
			e.InsertChildAt(1, signatureOf(s).Copy())
			return move(e, without(s))
		}()),
		"XSW3": text(t, i.response(said{}, evil(), signed())),
		"XSW4": text(t, i.response(said{}, move(evil(), signed()))),
		"XSW5": text(t, func() *etree.Element { // evil assertion with the signature; the signed one at the end
			s := signed()
			return i.response(said{}, move(evil(), signatureOf(s).Copy()), without(s))
		}()),
		"XSW6": text(t, func() *etree.Element { // the signed assertion in the signature of the evil one
			s := signed()
			return i.response(said{}, move(evil(), move(signatureOf(s).Copy(), without(s))))
		}()),
		"XSW7": text(t, func() *etree.Element { // the evil assertion in Extensions, with the same ID
			e := evil()
			e.CreateAttr("ID", "a-1")
			return i.response(said{}, extensions(e), signed())
		}()),
		"XSW8": text(t, func() *etree.Element { // the signed assertion in an object of the signature
			s := signed()
			e := evil()
			e.CreateAttr("ID", "a-1")
			return i.response(said{}, move(e, move(signatureOf(s).Copy(), object(without(s)))))
		}()),
		"the same ID twice": text(t, i.response(said{}, extensions(i.element(`<x ID="a-1"/>`)), signed())),
	} {
		a, err := i.read(response, "")
		if err == nil {
			t.Errorf("%s: accepted as %s", name, a.visitor.UserID)
		} else if strings.Contains(err.Error(), "<samlp") {
			t.Errorf("%s: the response stands in the reason", name)
		}
		// Nor is it the proof of who assumes a role, whatever the portal alone asks for.
		if a, err := i.f.Assertion(t.Context(), i.sp.arn(), base64.StdEncoding.EncodeToString([]byte(response))); err == nil {
			t.Errorf("%s: proves %s to STS", name, a.Subject)
		}
	}
	for name, relay := range map[string]string{
		"a stack that is not the provider's": "stack=other", "another account": "stack=demo&accountId=999999999999",
	} {
		if _, err := i.read(good, relay); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	for _, relay := range []string{"https://evil.example/", "javascript:alert(1)", "//evil.example", "%zz"} {
		if a, err := i.read(good, relay); err != nil || a.visitor.Stack != "" {
			t.Errorf("RelayState %q: got %q (%v), want that it means nothing", relay, a.visitor.Stack, err)
		}
	}
	if _, err := only.read(only.good(said{}), ""); err == nil {
		t.Error("nobody asked, and the provider may not begin: accepted")
	}
	if _, err := only.read(only.good(said{inResponseTo: "id-1"}), ""); err != nil {
		t.Errorf("an answer, where the provider may not begin: %v", err)
	}
	// An answer whose envelope hides that it is one still waits for the browser that asked.
	hidden := text(t, i.response(said{}, i.sign(i.assertion(said{inResponseTo: "id-9"}), sha256)))
	if a, err := i.read(hidden, ""); err == nil && a.answers != "id-9" {
		t.Errorf("an answer in an envelope that hides it goes in without its browser: %+v", a)
	}
}

func TestSAMLKeyIsKept(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	one, cert, err := samlKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	two, _, err := samlKey(dir)
	if err != nil || !one.Equal(two) || !one.PublicKey.Equal(cert.PublicKey) {
		t.Errorf("the key is another after a restart (%v)", err)
	}
	info, err := os.Stat(filepath.Join(dir, keyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the key: got %v (%v)", info.Mode(), err)
	}
	if err := os.WriteFile(filepath.Join(dir, keyFile), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := samlKey(dir); err == nil {
		t.Error("a damaged key: no error")
	}
}

func FuzzCheckShape(f *testing.F) {
	f.Add([]byte(`<samlp:Response xmlns:samlp="` + nsProtocol + `" ID="r"><Assertion xmlns="` + nsAssertion + `" ID="a"/></samlp:Response>`))
	f.Add([]byte("<a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if checkShape(b) != nil {
			return
		}
		// What passes has exactly one assertion, and etree finds it below the root.
		d := etree.NewDocument()
		if err := d.ReadFromBytes(b); err != nil || d.Root() == nil {
			t.Skip() // etree is stricter
		}
		n := 0
		for _, c := range d.Root().ChildElements() {
			if c.Tag == "Assertion" || c.Tag == "EncryptedAssertion" {
				n++
			}
		}
		if n < 1 {
			t.Errorf("passed without an assertion below the root: %q", b)
		}
	})
}

// FuzzResponse changes a signed response: what is still taken says what was signed.
func FuzzResponse(f *testing.F) {
	i := newIDP(f)
	good := i.good(said{attributes: map[string]string{roleAttribute: "r,p", tagAttribute + "team": "blue"}})
	f.Add(good)
	f.Add(text(f, i.sign(i.response(said{}, i.assertion(said{})), dsig.RSASHA256SignatureMethod)))
	f.Add(strings.Replace(good, "</samlp:Response>", "<x/></samlp:Response>", 1))
	f.Fuzz(func(t *testing.T, response string) {
		got, _, err := i.sp.verify(base64.StdEncoding.EncodeToString([]byte(response)))
		if err != nil {
			if _, ok := errors.AsType[*refusal](err); !ok {
				t.Fatalf("an error of another type: %v", err)
			}
			return
		}
		if got.Subject.NameID.Value != "sam@example.com" || got.ID != "a-1" {
			t.Fatalf("taken as %s of assertion %s: %q", got.Subject.NameID.Value, got.ID, response)
		}
	})
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	good := `{"providers":[{"id":"a","type":"oidc","issuer":"https://i.example","clientId":"c","stacks":["s"]}]}`
	if _, err := parseConfig([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ from, to, want string }{
		"unknown member":   {`"clientId"`, `"clientID2":1,"clientId"`, "clientID2"},
		"no issuer":        {`"issuer":"https://i.example",`, ``, "issuer"},
		"plain issuer":     {`https://i.example`, `http://i.example`, "must be https"},
		"issuer's query":   {`https://i.example`, `https://i.example?x=1`, "issuer"},
		"no stacks":        {`["s"]`, `[]`, "stacks"},
		"bad stack":        {`["s"]`, `["a b"]`, "stacks"},
		"no client":        {`"clientId":"c",`, ``, "clientId"},
		"type":             {`"oidc"`, `"ldap"`, "type"},
		"id":               {`"id":"a"`, `"id":"A/.."`, "id"},
		"session":          {`"stacks"`, `"sessionSeconds":5,"stacks"`, "sessionSeconds"},
		"attribute":        {`"stacks"`, `"attributes":{"shoe":"x"},"stacks"`, "attributes"},
		"mixed":            {`"stacks"`, `"metadataFile":"x","stacks"`, "metadataFile"},
		"something behind": {`}]}`, `}]} x`, "follows"},
		"twice":            {`[{`, `[{"id":"a","type":"oidc","issuer":"https://i.example","clientId":"c","stacks":["s"]},{`, "twice"},
		"none":             {good, `{"providers":[]}`, "providers"},
	} {
		_, err := parseConfig([]byte(strings.Replace(good, tc.from, tc.to, 1)))
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error that names %s", name, err, tc.want)
		}
	}
}

const (
	trustCorp = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"Federated":"arn:aws:iam::` + account + `:saml-provider/corp"},` +
		`"Action":["sts:AssumeRoleWithSAML","sts:TagSession"],"Condition":{"StringEquals":{"SAML:aud":"https://portal.example/federation/corp/acs"}}}}`
	streamAll = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appstream:Stream","Resource":"*"}}`
)

// role makes a role in IAM.
func (i *idp) role(name, trust, policy string) {
	i.t.Helper()
	if _, err := i.iam.Create(i.t.Context(), access.Entity{Kind: access.Role, Name: name, Path: "/", Trust: trust}); err != nil {
		i.t.Fatal(err)
	}
	if err := i.iam.PutInline(i.t.Context(), access.Role, name, "stream", policy); err != nil {
		i.t.Fatal(err)
	}
}

// TestSAMLRoleBoundsAndIsAskedAgain: the role's MaxSessionDuration bounds the sign-in, and a launch asks the role again.
func TestSAMLRoleBoundsAndIsAskedAgain(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	ctx := t.Context()
	i.role("long", trustCorp, streamAll)
	i.role("short", trustCorp, streamAll)
	for name, d := range map[string]time.Duration{"long": 4 * time.Hour, "short": 2 * time.Hour} {
		if _, err := i.iam.Change(ctx, access.Role, name, func(e *access.Entity) error { e.MaxSession = d; return nil }); err != nil {
			t.Fatal(err)
		}
	}
	value := func(role string) string {
		return "arn:aws:iam::" + account + ":role/" + role + ",arn:aws:iam::" + account + ":saml-provider/corp"
	}
	for name, tc := range map[string]struct {
		roles, duration string
		want            time.Duration
	}{
		"of the role":            {value("long"), "", 4 * time.Hour},
		"of the assertion":       {value("long"), "1800", 30 * time.Minute},
		"longer than the role's": {value("short"), "43200", 2 * time.Hour},
		"of two roles":           {value("long") + `</AttributeValue><AttributeValue>` + value("short"), "", 2 * time.Hour},
	} {
		attributes := map[string]string{roleAttribute: tc.roles}
		if tc.duration != "" {
			attributes[lifeAttribute] = tc.duration
		}
		if a, err := i.read(i.good(said{attributes: attributes}), ""); err != nil || a.life != tc.want {
			t.Errorf("%s: got %v (%v), want %v", name, a.life, err, tc.want)
		}
	}
	a, err := i.read(i.good(said{attributes: map[string]string{roleAttribute: value("long"), tagAttribute + "groups": "staff"}}), "")
	if err != nil {
		t.Fatal(err)
	}
	may := func(stack string) error {
		return i.iam.MayStream(ctx, a.visitor, stack, iam.Request{SourceIP: "192.0.2.1"})
	}
	refused := func(why, stack string) {
		t.Helper()
		if err := may(stack); !fault.Is(err, fault.Denied) {
			t.Errorf("%s: got %v, want that a launch is refused", why, err)
		}
	}
	if err := may("demo"); err != nil {
		t.Errorf("a launch: %v", err)
	}
	set := func(policy string) {
		t.Helper()
		if err := i.iam.PutInline(ctx, access.Role, "long", "stream", policy); err != nil {
			t.Fatal(err)
		}
	}
	set(strings.Replace(streamAll, `"Resource":"*"`, `"Resource":"arn:aws:appstream:us-east-1:`+account+`:stack/lab"`, 1))
	refused("a stack taken away", "demo")
	if err := may("lab"); err != nil {
		t.Errorf("the other stack: %v", err)
	}
	set(strings.Replace(streamAll, `"Resource"`, `"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}},"Resource"`, 1))
	refused("from elsewhere", "demo")
	set(streamAll)
	if err := i.iam.SetTrust(ctx, "long", strings.Replace(trustCorp, "saml-provider/corp", "saml-provider/other", 1)); err != nil {
		t.Fatal(err)
	}
	refused("a provider that is trusted no more", "demo")
	if err := i.iam.SetTrust(ctx, "long", trustCorp); err != nil {
		t.Fatal(err)
	}
	if err := may("demo"); err != nil {
		t.Errorf("trusted again: %v", err)
	}
	if err := i.iam.DeleteInline(ctx, access.Role, "long", "stream"); err != nil {
		t.Fatal(err)
	}
	if err := i.iam.Delete(ctx, access.Role, "long"); err != nil {
		t.Fatal(err)
	}
	refused("a role that is gone", "demo")
}

// TestSAMLRole: the role in an assertion has to exist, to trust the provider, and to allow appstream:Stream on the stack.
func TestSAMLRole(t *testing.T) {
	t.Parallel()
	i := newIDP(t)
	const stacks = "arn:aws:appstream:us-east-1:" + account + ":stack/"
	// As AppStream's guide has it: the stack, and the user whom the assertion names.
	i.role("lab", trustCorp, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"appstream:Stream","Resource":"`+stacks+`lab",`+
		`"Condition":{"StringEquals":{"appstream:userId":"${saml:sub}"}}}}`)
	i.role("all", trustCorp, streamAll)
	i.role("demo", trustCorp, strings.Replace(streamAll, `"*"`, `"`+stacks+`demo"`, 1))
	i.role("untagged", strings.Replace(trustCorp, `,"sts:TagSession"`, "", 1), streamAll)
	i.role("other", strings.Replace(trustCorp, "saml-provider/corp", "saml-provider/elsewhere", 1), streamAll)
	i.role("aws", strings.Replace(trustCorp, "https://portal.example/federation/corp/acs", "https://signin.aws.amazon.com/saml", 1), streamAll)
	i.role("zoe", trustCorp, strings.Replace(streamAll, `"Resource"`, `"Condition":{"StringEquals":{"appstream:userId":"zoe@example.com"}},"Resource"`, 1))
	i.role("denied", trustCorp, `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"},{"Effect":"Deny","Action":"appstream:Stream","Resource":"`+stacks+`lab"}]}`)
	i.role("nothing", trustCorp, strings.Replace(streamAll, "appstream:Stream", "appstream:Describe*", 1))
	value := func(role string) string {
		return "arn:aws:iam::" + account + ":role/" + role + ",arn:aws:iam::" + account + ":saml-provider/corp"
	}
	for name, tc := range map[string]struct{ role, relay, tag, want string }{ // want: the stacks, or a part of the refusal
		"one stack":                 {value("lab"), "", "", "lab"},
		"one stack, asked for":      {value("lab"), "x?stack=lab", "", "lab"},
		"another one asked for":     {value("lab"), "x?stack=demo", "", `wrong-stack: no role in the assertion allows appstream:Stream on stack "demo"`},
		"every stack of the file":   {value("all"), "", "staff", "demo lab"},
		"provider before role":      {"arn:aws:iam::" + account + ":saml-provider/corp, arn:aws:iam::" + account + ":role/demo", "", "", "demo"},
		"two roles":                 {value("demo") + `</AttributeValue><AttributeValue>` + value("lab"), "", "", "demo lab"},
		"one of two that exists":    {value("none") + `</AttributeValue><AttributeValue>` + value("lab"), "", "", "lab"},
		"a deny":                    {value("denied"), "", "", "demo"},
		"no such role":              {value("none"), "", "", "bad-role: role arn:aws:iam::" + account + ":role/none does not exist"},
		"another path":              {value("team/lab"), "", "", "bad-role: role arn:aws:iam::" + account + ":role/team/lab does not exist"},
		"trusts another provider":   {value("other"), "", "", "bad-role: the trust policy of role arn:aws:iam::" + account + ":role/other does not allow sts:AssumeRoleWithSAML"},
		"wants another audience":    {value("aws"), "", "", "bad-role: the trust policy"},
		"tags without a right":      {value("untagged"), "", "staff", "does not allow sts:TagSession"},
		"no tags, no such right":    {value("untagged"), "", "", "demo lab"},
		"another user's":            {value("zoe"), "", "", "bad-role: role arn:aws:iam::" + account + ":role/zoe allows appstream:Stream on none"},
		"may not stream":            {value("nothing"), "", "", "allows appstream:Stream on none"},
		"another provider's name":   {strings.Replace(value("other"), "saml-provider/corp", "saml-provider/elsewhere", 1), "", "", "bad-role: no value of Role"},
		"another account's":         {strings.ReplaceAll(value("all"), account, "999999999999"), "", "", "bad-role: no value of Role"},
		"neither role nor provider": {"admin", "", "", "bad-role: no value of Role"},
		"no role at all":            {"", "", "staff", "demo lab"},
	} {
		attributes := map[string]string{}
		if tc.role != "" {
			attributes[roleAttribute] = tc.role
		}
		if tc.tag != "" {
			attributes[tagAttribute+"groups"] = tc.tag
		}
		a, err := i.read(i.good(said{attributes: attributes}), tc.relay)
		got := strings.Join(a.visitor.Stacks, " ")
		if x, ok := errors.AsType[*refusal](err); ok {
			got = x.code + ": " + x.reason
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got != tc.want && (err == nil || !strings.Contains(got, tc.want)) {
			t.Errorf("%s: got %s, want %s", name, got, tc.want)
		}
	}
}
