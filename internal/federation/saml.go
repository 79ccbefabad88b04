package federation

import (
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // nameQualifier
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/crewjam/saml"
	dsig "github.com/russellhaering/goxmldsig"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// What AppStream's federation reads of an assertion, below this prefix.
const (
	awsAttribute        = "https://aws.amazon.com/SAML/Attributes/"
	roleAttribute       = awsAttribute + "Role"
	sessionAttribute    = awsAttribute + "RoleSessionName"
	contextAttribute    = awsAttribute + "SessionContext"
	lifeAttribute       = awsAttribute + "SessionDuration"
	tagAttribute        = awsAttribute + "PrincipalTag:"
	sourceAttribute     = awsAttribute + "SourceIdentity"
	transitiveAttribute = awsAttribute + "TransitiveTagKeys"
)

const (
	maxMetadata = 1 << 20
	maxContext  = 1000 // characters, as of a streaming URL
	// replayMemory is longer than any assertion is taken after it was issued.
	replayMemory = time.Hour
	nameIDFormat = "urn:oasis:names:tc:SAML:2.0:nameid-format:"
	transientID  = "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"
)

// samlProvider is one SAML identity provider, and the service provider that we are to it.
type samlProvider struct {
	*Provider
	sp      saml.ServiceProvider
	login   string
	account string
	roles   roles
	now     func() time.Time
}

func (f *Federation) newSAML(p *Provider) (*samlProvider, error) {
	b, err := os.ReadFile(p.MetadataFile)
	if err != nil {
		return nil, fmt.Errorf("metadataFile: %w", err)
	}
	m, err := parseMetadata(b)
	if err != nil {
		return nil, fmt.Errorf("metadataFile %s: %w", p.MetadataFile, err)
	}
	key, cert, err := samlKey(f.KeyDir)
	if err != nil {
		return nil, err
	}
	own, err := url.Parse(f.base(p.ID))
	if err != nil {
		return nil, err
	}
	s := &samlProvider{Provider: p, account: f.AccountID, roles: f.Roles, now: f.Now, sp: saml.ServiceProvider{
		EntityID: own.JoinPath("metadata").String(), Key: key, Certificate: cert, MetadataURL: *own.JoinPath("metadata"), AcsURL: *own.JoinPath("acs"),
		IDPMetadata: m, SignatureMethod: dsig.RSASHA256SignatureMethod, AuthnNameIDFormat: saml.UnspecifiedNameIDFormat,
		AllowIDPInitiated: !p.SPInitiatedOnly, MetadataOmitValidUntil: true, AssertionConsumerServiceBindings: []string{saml.HTTPPostBinding},
		RejectSHA1Signatures: true, RejectUnknownConditions: true, RequireSignedResponseForCBC: true,
	}}
	if s.login = s.sp.GetSSOBindingLocation(saml.HTTPRedirectBinding); s.login == "" {
		return nil, fmt.Errorf("metadataFile %s: no single sign-on service with the HTTP-Redirect binding", p.MetadataFile)
	}
	u, err := url.Parse(s.login)
	if err != nil || u.Scheme != "https" && checkServer(u.Scheme+"://"+u.Host) != nil {
		return nil, fmt.Errorf("metadataFile %s: %q is not https", p.MetadataFile, s.login)
	}
	return s, nil
}

// parseMetadata reads what the provider says of itself. It is the operator's file, not the network's.
func parseMetadata(b []byte) (*saml.EntityDescriptor, error) {
	if len(b) > maxMetadata {
		return nil, fmt.Errorf("it is longer than %d bytes", maxMetadata)
	}
	var m saml.EntityDescriptor
	if err := xml.Unmarshal(b, &m); err != nil {
		return nil, err
	}
	if m.EntityID == "" || len(m.IDPSSODescriptors) == 0 {
		return nil, errors.New("it describes no identity provider (EntityDescriptor with IDPSSODescriptor)")
	}
	for _, d := range m.IDPSSODescriptors {
		for _, k := range d.KeyDescriptors {
			if k.Use != "encryption" && len(k.KeyInfo.X509Data.X509Certificates) > 0 {
				return &m, nil
			}
		}
	}
	return nil, errors.New("it names no signing certificate")
}

// start is where the browser goes to with a signed request.
func (s *samlProvider) start(p *pending) (string, error) {
	q, err := s.sp.MakeAuthenticationRequest(s.login, saml.HTTPRedirectBinding, saml.HTTPPostBinding)
	if err != nil {
		return "", fmt.Errorf("make a SAML request: %w", err)
	}
	p.State = q.ID
	relay := ""
	if p.Stack != "" {
		relay = url.Values{"stack": {p.Stack}, "accountId": {s.account}}.Encode()
	}
	u, err := q.Redirect(relay, &s.sp)
	if err != nil {
		return "", fmt.Errorf("sign a SAML request: %w", err)
	}
	return u.String(), nil
}

// metadata is what the provider's operator reads of us.
func (f *Federation) metadata(w http.ResponseWriter, r *http.Request) {
	s := f.saml[r.PathValue("id")]
	if s == nil {
		http.NotFound(w, r)
		return
	}
	b, err := xml.MarshalIndent(s.sp.Metadata(), "", "  ")
	if err != nil {
		f.Log.Error("metadata could not be written", "error", err)
		http.Error(w, "metadata could not be written", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/samlmetadata+xml")
	_, _ = w.Write(b)
}

// assertion is what an accepted one says.
type assertion struct {
	id      string
	answers string // ID of the request that it answers; empty: the provider began
	until   time.Time
	life    time.Duration
	visitor appstream.Visitor
}

// read checks a response and reads who the user is. The library verifies; checkShape has refused before whatever could make the library
// and us look at different things.
func (s *samlProvider) read(ctx context.Context, from iam.Request, encoded, relayState string) (a assertion, err error) {
	got, inResponseTo, err := s.verify(encoded)
	if err != nil {
		return a, err
	}
	return s.accept(ctx, from, got, inResponseTo, relayState)
}

// verify checks a response and answers its assertion, and which request it answers.
func (s *samlProvider) verify(encoded string) (got *saml.Assertion, inResponseTo string, err error) {
	// Some providers break the lines.
	body, err := base64.StdEncoding.DecodeString(strings.NewReplacer("\r", "", "\n", "", " ", "").Replace(encoded))
	if err != nil || len(body) == 0 {
		return nil, "", refused("bad-assertion", "SAMLResponse is missing or not base64")
	}
	if err := checkShape(body); err != nil {
		return nil, "", refused("bad-assertion", "the response: %v", err)
	}
	sp := s.sp
	sp.ValidateRequestID = func(r saml.Response, _ []string) error {
		switch {
		case r.InResponseTo == "" && !sp.AllowIDPInitiated:
			return errors.New("it answers no request, and this provider may not begin")
		case r.InResponseTo != "" && inResponseTo != "" && r.InResponseTo != inResponseTo:
			return errors.New("it answers two requests")
		case r.InResponseTo != "":
			inResponseTo = r.InResponseTo // the browser has to show it: finish
		}
		return nil
	}
	got, err = sp.ParseXMLResponse(body, nil, sp.AcsURL)
	if err != nil {
		reason := err
		if x, ok := errors.AsType[*saml.InvalidResponseError](err); ok {
			reason = x.PrivateErr // without the response's text
		}
		code := "bad-assertion"
		if errors.Is(reason, saml.ErrExpired) {
			code = expiredCode
		}
		return nil, "", refused(code, "the assertion: %.300v", reason)
	}
	if inResponseTo, err = answers(got, inResponseTo); err != nil {
		return nil, "", err
	}
	if got.ID == "" {
		return nil, "", refused("bad-assertion", "the assertion has no ID")
	}
	if len(got.AuthnStatements) == 0 {
		return nil, "", refused("bad-assertion", "the assertion says nothing of a sign-in")
	}
	return got, inResponseTo, nil
}

// expiredCode is of assertions that are too old.
const expiredCode = "expired-assertion"

// answers is the request that an assertion answers, as response and assertion say together.
func answers(got *saml.Assertion, inResponseTo string) (string, error) {
	for _, c := range got.Subject.SubjectConfirmations {
		if c.SubjectConfirmationData == nil || c.SubjectConfirmationData.InResponseTo == "" {
			continue
		}
		if inResponseTo != "" && inResponseTo != c.SubjectConfirmationData.InResponseTo {
			return "", refused("bad-assertion", "the assertion answers two requests")
		}
		inResponseTo = c.SubjectConfirmationData.InResponseTo
	}
	return inResponseTo, nil
}

// attributesOf are the values of each attribute of an assertion.
func attributesOf(got *saml.Assertion) map[string][]string {
	values := map[string][]string{}
	for _, st := range got.AttributeStatements {
		for _, at := range st.Attributes {
			for _, v := range at.Values {
				if len(values[at.Name]) < maxValues {
					values[at.Name] = append(values[at.Name], strings.TrimSpace(v.Value))
				}
			}
		}
	}
	return values
}

// accept reads an assertion that was verified.
func (s *samlProvider) accept(ctx context.Context, from iam.Request, got *saml.Assertion, inResponseTo, relayState string) (a assertion, err error) {
	a.id, a.answers, a.until = got.ID, inResponseTo, s.now().Add(replayMemory)
	values := attributesOf(got)
	user := ""
	if s.UserAttribute != "" {
		if len(values[s.UserAttribute]) == 1 {
			user = values[s.UserAttribute][0]
		}
	} else if id := got.Subject.NameID; id != nil {
		if id.Format == transientID {
			return a, refused("bad-user", "the NameID is transient: the same user would be somebody else each time; send another format or set userAttribute")
		}
		user = strings.TrimSpace(id.Value)
	}
	stack, err := s.relayedStack(relayState)
	if err != nil {
		return a, err
	}
	if a.visitor, err = s.visitor(user, stack, s.attributes(values)); err != nil {
		return a, err
	}
	most, err := s.allowed(ctx, from, got, values, &a.visitor)
	if err != nil {
		return a, err
	}
	if stack != "" && !slices.Contains(a.visitor.Stacks, stack) {
		return a, refused("wrong-stack", "no role in the assertion allows appstream:Stream on stack %.101q", stack)
	}
	if c := values[contextAttribute]; len(c) > 0 {
		if utf8.RuneCountInString(c[0]) > maxContext || strings.ContainsRune(c[0], 0) {
			return a, refused("bad-assertion", "SessionContext is longer than %d characters, or has a NUL", maxContext)
		}
		a.visitor.Context = c[0]
	}
	a.life = s.life()
	if most > 0 && (a.life == 0 || most < a.life) {
		a.life = most
	}
	if d := values[lifeAttribute]; len(d) > 0 {
		n, err := strconv.Atoi(d[0])
		if err != nil || n < minSession || n > maxSession {
			return a, refused("bad-assertion", "SessionDuration %.20q is not between %d and %d", d[0], minSession, maxSession)
		}
		if life := time.Duration(n) * time.Second; a.life == 0 || life < a.life {
			a.life = life
		}
	}
	for _, st := range got.AuthnStatements {
		if st.SessionNotOnOrAfter == nil {
			continue
		}
		left := st.SessionNotOnOrAfter.Sub(s.now())
		if left <= 0 {
			return a, refused("bad-assertion", "the provider's session has ended")
		}
		if a.life == 0 || left < a.life {
			a.life = left
		}
	}
	return a, nil
}

func (s *samlProvider) attributes(values map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, name := range appstream.EntitlementAttributes {
		from := tagAttribute + name
		if mapped, ok := s.Attributes[name]; ok {
			from = mapped
		} else if s.Attributes != nil {
			continue
		}
		if v := values[from]; len(v) > 0 {
			out[name] = v
		}
	}
	return out
}

// allowed says from which of the provider's stacks a visitor may stream, and bounds the sign-in; zero: not at all. Without a Role in the
// assertion the operator's file decides alone. With one, the roles decide as AppStream has it: each value is the ARNs of a role and of the
// provider, and a stack that one of them allows is. Of several roles the shortest MaxSessionDuration bounds the sign-in.
func (s *samlProvider) allowed(ctx context.Context, from iam.Request, got *saml.Assertion, values map[string][]string, v *appstream.Visitor) (most time.Duration, err error) {
	if len(values[roleAttribute]) == 0 {
		return 0, nil
	}
	a := s.asserted(got, values)
	a.UserID = v.UserID
	if a.Session == "" {
		a.Session = v.UserID
	}
	var out, roles []string
	denied := refused("bad-role", "no value of Role names a role of account %s and %s", s.account, a.ProviderARN)
	for _, role := range s.offered(values) {
		a.RoleARN = role
		stacks, longest, err := s.roles.StreamsAs(ctx, a, s.Stacks, from)
		switch f, ok := errors.AsType[*fault.Error](err); {
		case ok && f.Kind == fault.Denied:
			denied = refused("bad-role", "%s", f.Reason)
			continue
		case err != nil:
			return 0, err
		case len(stacks) == 0:
			denied = refused("bad-role", "role %s allows appstream:Stream on none of the provider's stacks", role)
			continue
		}
		roles = append(roles, role)
		if most == 0 || longest < most {
			most = longest
		}
		for _, stack := range stacks {
			if !slices.Contains(out, stack) {
				out = append(out, stack)
			}
		}
	}
	if len(out) == 0 {
		return 0, denied
	}
	v.Stacks, v.Asserted = out, &appstream.Asserted{
		Roles: roles, Provider: a.ProviderARN, Session: a.Session, Keys: a.Keys, Tags: a.Tags, Transitive: a.Transitive, SourceIdentity: a.SourceIdentity,
	}
	return most, nil
}

func (s *samlProvider) arn() string {
	return "arn:aws:iam::" + s.account + ":saml-provider/" + s.IAMName
}

// offered are the ARNs of the roles that an assertion names together with this provider.
func (s *samlProvider) offered(values map[string][]string) (out []string) {
	for _, r := range values[roleAttribute] {
		role, provider, _ := strings.Cut(r, ",")
		role, provider = strings.TrimSpace(role), strings.TrimSpace(provider)
		if role == s.arn() {
			role, provider = provider, role
		}
		if provider == s.arn() && strings.HasPrefix(role, "arn:aws:iam::"+s.account+":role/") {
			out = append(out, role)
		}
	}
	return out
}

// asserted is what an assertion says for the policies of roles.
func (s *samlProvider) asserted(got *saml.Assertion, values map[string][]string) access.Asserted {
	a := access.Asserted{
		ProviderARN: s.arn(), Tags: map[string]string{}, Keys: map[string][]string{
			"saml:aud": {s.sp.AcsURL.String()}, "saml:iss": {got.Issuer.Value}, "saml:doc": {s.account + "/" + s.IAMName},
			"saml:namequalifier": {nameQualifier(got.Issuer.Value, s.account, s.IAMName)},
		},
	}
	if v := values[sessionAttribute]; len(v) == 1 {
		a.Session = v[0]
	}
	if v := values[sourceAttribute]; len(v) == 1 {
		a.SourceIdentity = v[0]
	}
	if id := got.Subject.NameID; id != nil {
		a.Keys["saml:sub"], a.Keys["saml:sub_type"] = []string{strings.TrimSpace(id.Value)}, []string{strings.TrimPrefix(id.Format, nameIDFormat)}
	}
	for name, v := range values {
		if tag, ok := strings.CutPrefix(name, tagAttribute); ok && len(v) > 0 {
			a.Tags[tag] = v[0]
		}
	}
	a.Transitive = values[transitiveAttribute]
	return a
}

// nameQualifier is saml:namequalifier: with the subject it is unique among all providers of all accounts.
func nameQualifier(issuer, account, provider string) string {
	sum := sha1.Sum([]byte(issuer + account + "/" + provider)) //nolint:gosec // AWS's rule for a name, not a protection
	return base64.StdEncoding.EncodeToString(sum[:])
}

// relayedStack reads RelayState as AppStream has it: [anything?]stack=NAME&accountId=ID. It names a stack and never where to go.
func (s *samlProvider) relayedStack(relayState string) (string, error) {
	if relayState == "" {
		return "", nil
	}
	if _, query, ok := strings.Cut(relayState, "?"); ok {
		relayState = query
	}
	q, _ := url.ParseQuery(relayState) // what cannot be read is a provider's default, which means nothing here
	if !q.Has("stack") {
		return "", nil
	}
	if id := q.Get("accountId"); id != "" && strings.ReplaceAll(id, "-", "") != s.account {
		return "", refused("wrong-stack", "RelayState names account %.20q", id)
	}
	return q.Get("stack"), nil
}

const (
	nsProtocol  = "urn:oasis:names:tc:SAML:2.0:protocol"
	nsAssertion = "urn:oasis:names:tc:SAML:2.0:assertion"
	nsSignature = "http://www.w3.org/2000/09/xmldsig#"
	nsEncrypted = "http://www.w3.org/2001/04/xmlenc#"
	maxDepth    = 32
	maxElements = 4096
)

// signatureAlgorithms are what a signature may be made of: no SHA-1, no HMAC, no transforms that choose what is signed.
var signatureAlgorithms = map[string][]string{
	"CanonicalizationMethod": {"http://www.w3.org/2001/10/xml-exc-c14n#"},
	"Transform":              {"http://www.w3.org/2001/10/xml-exc-c14n#", "http://www.w3.org/2000/09/xmldsig#enveloped-signature"},
	"DigestMethod": {
		"http://www.w3.org/2001/04/xmlenc#sha256", "http://www.w3.org/2001/04/xmldsig-more#sha384", "http://www.w3.org/2001/04/xmlenc#sha512",
	},
	"SignatureMethod": {
		"http://www.w3.org/2001/04/xmldsig-more#rsa-sha256", "http://www.w3.org/2001/04/xmldsig-more#rsa-sha384", "http://www.w3.org/2001/04/xmldsig-more#rsa-sha512",
		"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha256", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384", "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha512",
	},
}

// rsa15 unwraps keys with padding that tells its errors apart.
const rsa15 = nsEncrypted + "rsa-1_5"

// open is an element that has begun.
type open struct {
	name       xml.Name
	id         string
	signatures int
	references int
}

// checkShape refuses responses that could mean different things to whoever verifies and to whoever reads: one assertion, in its place;
// signatures only where they sign their parent, which they name; every ID once; no comments, document types and instructions.
func checkShape(body []byte) error {
	d := xml.NewDecoder(bytes.NewReader(body))
	d.Strict = true
	var path []open
	ids := map[string]bool{}
	elements, assertions, roots := 0, 0, 0
	for {
		t, err := d.Token()
		if t == nil {
			if roots != 1 || assertions != 1 {
				return fmt.Errorf("it has %d assertions; one is wanted", assertions)
			}
			return nil
		}
		if err != nil {
			return fmt.Errorf("it is not XML: %w", err)
		}
		switch t := t.(type) {
		case xml.Directive:
			return errors.New("it has a document type")
		case xml.Comment:
			return errors.New("it has a comment")
		case xml.ProcInst:
			if t.Target != "xml" || elements > 0 {
				return errors.New("it has a processing instruction")
			}
		case xml.EndElement:
			path = path[:len(path)-1]
		case xml.StartElement:
			if elements++; elements > maxElements || len(path) >= maxDepth {
				return errors.New("it has too many elements")
			}
			e := open{name: t.Name}
			if len(path) == 0 {
				roots++
				if roots > 1 || t.Name != (xml.Name{Space: nsProtocol, Local: "Response"}) {
					return fmt.Errorf("its root is %s", t.Name.Local)
				}
			}
			for _, a := range t.Attr {
				if !strings.EqualFold(a.Name.Local, "id") {
					continue
				}
				if e.id != "" || ids[a.Value] || a.Value == "" {
					return errors.New("an ID stands twice or is empty")
				}
				ids[a.Value], e.id = true, a.Value
			}
			if isAssertion(t.Name) {
				if assertions++; len(path) != 1 || assertions > 1 {
					return errors.New("it has an assertion in a place where none belongs")
				}
			}
			if err := checkSignaturePart(t, path); err != nil {
				return err
			}
			path = append(path, e)
		}
	}
}

func isAssertion(n xml.Name) bool {
	return (n.Local == "Assertion" || n.Local == "EncryptedAssertion") && n.Space == nsAssertion
}

// checkSignaturePart judges an element of a signature or of an encryption by where it stands.
func checkSignaturePart(t xml.StartElement, path []open) error {
	attr := func(name string) string {
		for _, a := range t.Attr {
			if a.Name.Local == name && a.Name.Space == "" {
				return a.Value
			}
		}
		return ""
	}
	if t.Name.Space == nsEncrypted && t.Name.Local == "EncryptionMethod" && attr("Algorithm") == rsa15 {
		return errors.New("a key is wrapped by RSA 1.5")
	}
	if t.Name.Space != nsSignature {
		return nil
	}
	if allowed, ok := signatureAlgorithms[t.Name.Local]; ok && within(path, "SignedInfo") && !slices.Contains(allowed, attr("Algorithm")) {
		return fmt.Errorf("%s %.100q is not taken", t.Name.Local, attr("Algorithm"))
	}
	switch t.Name.Local {
	case "Signature":
		if len(path) == 0 {
			return errors.New("a signature stands where none belongs")
		}
		parent := &path[len(path)-1]
		if parent.signatures++; parent.signatures > 1 || len(path) > 2 || len(path) == 2 && !isAssertion(parent.name) {
			return errors.New("a signature stands where none belongs")
		}
	case "Reference":
		if len(path) < 3 || path[len(path)-1].name.Local != "SignedInfo" {
			return errors.New("a reference stands where none belongs")
		}
		signed, info := path[len(path)-3], &path[len(path)-1]
		if info.references++; info.references > 1 || signed.id == "" || attr("URI") != "#"+signed.id {
			return errors.New("a signature does not sign the element that it stands in")
		}
	case "Object":
		return errors.New("a signature brings an object of its own")
	}
	return nil
}

func within(path []open, local string) bool {
	return slices.ContainsFunc(path, func(o open) bool { return o.name.Local == local && o.name.Space == nsSignature })
}
