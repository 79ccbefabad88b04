// Package audit is what happened, as one line of JSON an event in CloudTrail's shape, and the chain that joins the lines.
//
// Whoever does something that must be on record fills an Event and gives it to a Recorder:
//
//	recorder.Record(audit.Event{
//		Source: audit.SignInSource, Name: "SignIn", Identity: audit.StreamingUser(user, "USERPOOL"),
//		SourceIP: ip, UserAgent: agent, Type: audit.SignIn, ErrorCode: "PasswordMismatch", Unproved: true,
//		Additional: map[string]any{"stack": stack},
//	})
//
// A member never holds a password, a key, a token, a ticket, a streaming URL or an assertion: names and reasons only.
package audit

import (
	"encoding/json"
	"strings"
	"time"
	"unicode/utf8"

	"penstock.dev/penstock/internal/iam"
)

// Recorder keeps events. It is safe for concurrent use.
type Recorder interface {
	// Ready fails when events cannot be written now. What would change something must not begin then; what only reads goes on.
	Ready() error
	// Record writes an event, and returns when it outlives this process. One that cannot be written waits in bounded memory, and is
	// counted where that is full; the caller goes on.
	Record(e Event)
}

// Discard is a Recorder that keeps nothing, for tests and for parts without a record.
type Discard struct{}

// Ready never fails.
func (Discard) Ready() error { return nil }

// Record forgets the event.
func (Discard) Record(Event) {}

// Or is r, or Discard for nil.
func Or(r Recorder) Recorder {
	if r == nil {
		return Discard{}
	}
	return r
}

// Kind is CloudTrail's eventType.
type Kind string

// The kinds. The zero value is ServiceEvent.
const (
	APICall      Kind = "AwsApiCall"
	ServiceEvent Kind = "AwsServiceEvent"     // Penstock did it: a session ended, a ticket was refused
	SignIn       Kind = "AwsConsoleSignIn"    // somebody signed in, or was refused
	Action       Kind = "AwsConsoleAction"    // a signed-in user did something at the portal
	Operator     Kind = "PenstockOperatorAct" // on the machine itself
)

// Sources of events beside the services of the API, which are "NAME.amazonaws.com".
const (
	AppStreamSource = "appstream.amazonaws.com" // sessions, tickets, streaming URLs
	SignInSource    = "signin.amazonaws.com"
	NetworkSource   = "ec2.amazonaws.com" // connections that rules refused
	PenstockSource  = "penstock"          // the log itself, keys, acts on the machine
)

// Event is one thing that happened. Who records sets what it knows; the Recorder adds ID, time, region and account.
type Event struct {
	Source     string // "appstream.amazonaws.com"
	Name       string // "CreateStack", "SignIn"
	Identity   Identity
	Time       time.Time // zero: now
	SourceIP   string
	UserAgent  string
	ErrorCode  string // of a refusal or failure; empty for success
	ErrorText  string
	Request    json.RawMessage // what was asked, without secrets; nil for nothing
	Response   json.RawMessage // what was answered, of changes only
	Additional map[string]any  // further facts: strings, numbers, booleans
	RequestID  string
	ReadOnly   bool
	Resources  []Resource
	Type       Kind
	TLS        *TLS
	// Unproved marks events that anybody can cause at will, such as requests with a wrong signature. They are written up to a bound a
	// second, and counted beyond it, so that a stranger cannot fill the disk.
	Unproved bool
}

// Identity is who did it, as CloudTrail's userIdentity.
type Identity struct {
	Type        string   `json:"type"` // Root, IAMUser, AssumedRole, SAMLUser, AWSService, AppStreamUser, Operator, Unknown
	PrincipalID string   `json:"principalId,omitempty"`
	ARN         string   `json:"arn,omitempty"`
	AccountID   string   `json:"accountId,omitempty"`
	AccessKeyID string   `json:"accessKeyId,omitempty"`
	UserName    string   `json:"userName,omitempty"`
	InvokedBy   string   `json:"invokedBy,omitempty"`
	Provider    string   `json:"identityProvider,omitempty"` // of a SAMLUser
	Session     *Session `json:"sessionContext,omitempty"`
}

// Session is what temporary credentials stand for.
type Session struct {
	Issuer     *Identity         `json:"sessionIssuer,omitempty"`
	Attributes map[string]string `json:"attributes,omitempty"`
	// SourceIdentity and Federation stay with a session whoever uses it.
	SourceIdentity string      `json:"sourceIdentity,omitempty"`
	Federation     *Federation `json:"webIdFederationData,omitempty"`
}

// Federation is who vouched for a session, and for whom.
type Federation struct {
	Provider   string            `json:"federatedProvider"`
	Attributes map[string]string `json:"attributes,omitempty"`
}

// TLS is how the request came, when it was encrypted.
type TLS struct {
	Version string `json:"tlsVersion"`
	Cipher  string `json:"cipherSuite"`
	Host    string `json:"clientProvidedHostHeader,omitempty"`
}

// Resource is something that the event is about.
type Resource struct {
	ARN       string `json:"ARN"`
	AccountID string `json:"accountId,omitempty"`
	Type      string `json:"type,omitempty"` // "AWS::AppStream::Stack"
}

// Identify is the identity of a proved credential.
func Identify(c iam.Credential) Identity {
	p := c.Principal
	id := Identity{PrincipalID: p.UserID(), ARN: p.ARN(), AccountID: p.AccountID, AccessKeyID: c.AccessKeyID}
	switch p.Kind {
	case iam.Root:
		id.Type = "Root"
	case iam.User:
		id.Type, id.UserName = "IAMUser", p.Name
	case iam.RoleSession:
		id.Type = "AssumedRole"
		id.Session = &Session{Issuer: &Identity{Type: "Role", PrincipalID: p.ID, ARN: iam.RoleARN(p.AccountID, p.Path, p.Name), AccountID: p.AccountID, UserName: p.Name}}
	case iam.Service:
		id.Type, id.InvokedBy = "AWSService", p.Name
	case iam.Federated:
		id.Type = "SAMLUser"
	case iam.Anonymous:
		id.Type = "Unknown"
	}
	if c.Session != nil {
		if id.Session == nil {
			id.Session = &Session{}
		}
		id.Session.Attributes = map[string]string{"creationDate": c.Session.Issued.UTC().Format(time.RFC3339), "mfaAuthenticated": "false"}
		id.Session.SourceIdentity = c.Session.SourceIdentity
		if p := c.Session.Keys["aws:federatedprovider"]; len(p) > 0 {
			id.Session.Federation = &Federation{Provider: p[0], Attributes: map[string]string{}}
			for k, v := range c.Session.Keys {
				if name, ok := strings.CutPrefix(k, "saml:"); ok && len(v) > 0 {
					id.Session.Federation.Attributes[name] = v[0]
				}
			}
		}
	}
	return id
}

// SAMLUser is somebody for whom a SAML provider vouches, as CloudTrail names it: the provider by saml:namequalifier.
func SAMLUser(qualifier, subject string) Identity {
	return Identity{Type: "SAMLUser", PrincipalID: qualifier + ":" + subject, UserName: subject, Provider: qualifier}
}

// StreamingUser is a user of the portal; method is how it signed in: API (streaming URL), USERPOOL, SAML, OIDC.
func StreamingUser(name, method string) Identity {
	id := Identity{Type: "AppStreamUser", UserName: name}
	if method != "" {
		id.Session = &Session{Attributes: map[string]string{"authenticationType": method}}
	}
	return id
}

// Itself is Penstock, acting on its own.
func Itself() Identity { return Identity{Type: "AWSService", InvokedBy: iam.AppStreamService} }

// OnMachine is somebody who acts on the machine itself, with the rights of the data directory.
func OnMachine(user string) Identity { return Identity{Type: "Operator", UserName: user} }

// Bounds of one event; what is longer is cut, and says so.
const (
	maxText     = 2 << 10
	maxDocument = 64 << 10
	maxUnproved = 256 // of each text that a stranger chose
)

// Origin is what a Recorder adds to every event.
type Origin struct {
	ID      string // UUID
	Now     time.Time
	Region  string
	Account string
}

// record is an event's form on the line. The names are CloudTrail's.
type record struct {
	Version    string          `json:"eventVersion"`
	Identity   Identity        `json:"userIdentity"`
	Time       string          `json:"eventTime"`
	Source     string          `json:"eventSource"`
	Name       string          `json:"eventName"`
	Region     string          `json:"awsRegion"`
	SourceIP   string          `json:"sourceIPAddress"`
	UserAgent  string          `json:"userAgent"`
	ErrorCode  string          `json:"errorCode,omitempty"`
	ErrorText  string          `json:"errorMessage,omitempty"`
	Request    json.RawMessage `json:"requestParameters"`
	Response   json.RawMessage `json:"responseElements"`
	Additional map[string]any  `json:"additionalEventData,omitempty"`
	RequestID  string          `json:"requestID,omitempty"`
	ID         string          `json:"eventID"`
	ReadOnly   bool            `json:"readOnly"`
	Resources  []Resource      `json:"resources,omitempty"`
	Type       Kind            `json:"eventType"`
	Management bool            `json:"managementEvent"`
	Account    string          `json:"recipientAccountId"`
	Category   string          `json:"eventCategory"`
	TLS        *TLS            `json:"tlsDetails,omitempty"`
}

// Encode is the event as one JSON object without a line feed.
func (e *Event) Encode(o Origin) ([]byte, error) {
	n := maxText
	if e.Unproved {
		n = maxUnproved
	}
	at := e.Time
	if at.IsZero() {
		at = o.Now
	}
	r := record{
		Version: "1.11", Identity: e.Identity, Time: at.UTC().Format(time.RFC3339), Source: clip(e.Source, n), Name: clip(e.Name, n), Region: o.Region,
		SourceIP: clip(e.SourceIP, n), UserAgent: clip(e.UserAgent, n), ErrorCode: clip(e.ErrorCode, n), ErrorText: clip(e.ErrorText, n),
		Request: bounded(e.Request), Response: bounded(e.Response), Additional: e.Additional, RequestID: clip(e.RequestID, n), ID: o.ID,
		ReadOnly: e.ReadOnly, Resources: e.Resources, Type: e.Type, Management: true, Account: o.Account, Category: "Management", TLS: e.TLS,
	}
	if r.Type == "" {
		r.Type = ServiceEvent
	}
	if r.Identity.Type == "" {
		r.Identity.Type = "Unknown"
	}
	r.Identity.UserName, r.Identity.AccessKeyID = clip(r.Identity.UserName, n), clip(r.Identity.AccessKeyID, n)
	if len(r.Resources) > 100 {
		r.Resources = r.Resources[:100]
	}
	return json.Marshal(r)
}

func clip(s string, n int) string {
	if len(s) > n {
		for n > 0 && !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

func bounded(m json.RawMessage) json.RawMessage {
	if len(m) > maxDocument {
		return json.RawMessage(`{"omitted":"it is larger than 64 KiB"}`)
	}
	return m
}
