package apiserver

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"penstock.dev/penstock/internal/audit"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/shape"
)

// readOnly reports whether an operation changes nothing, as CloudTrail's readOnly says.
func readOnly(operation string) bool {
	for _, verb := range []string{"Describe", "List", "Get", "Simulate"} {
		if strings.HasPrefix(operation, verb) {
			return true
		}
	}
	return operation == "AssumeRole" || operation == "AssumeRoleWithSAML"
}

// record puts the request and its outcome on record. It goes before the answer: what a caller saw happen is on record.
func (x *exchange) record(a answer) {
	r := x.request
	e := audit.Event{
		Name: x.operation, Time: x.started, SourceIP: sourceIP(r), UserAgent: r.UserAgent(), RequestID: x.requestID, Type: audit.APICall,
		ErrorCode: a.code, ErrorText: x.refusalText, ReadOnly: readOnly(x.operation), TLS: tlsOf(r),
	}
	e.Source = "unknown"
	if x.service != 0 {
		e.Source = x.service.signingName() + ".amazonaws.com"
	}
	if x.proof != nil && x.proof.identity.Type != "" {
		e.Identity, e.Request = x.proof.identity, redact(x.input.shape, x.input.value)
		for _, arn := range x.named {
			e.Resources = append(e.Resources, audit.Resource{ARN: arn, AccountID: x.server.options.AccountID, Type: resourceType(arn)})
		}
	} else if x.principal.Kind == iam.Anonymous {
		e.Unproved = true
		if x.signature != nil {
			e.Identity.AccessKeyID = x.signature.AccessKeyID
		}
	} else {
		e.Identity = audit.Identify(x.credential)
		e.Request = redact(x.input.shape, x.input.value)
		for _, arn := range x.named {
			e.Resources = append(e.Resources, audit.Resource{ARN: arn, AccountID: x.server.options.AccountID, Type: resourceType(arn)})
		}
	}
	if a.code == "" && !e.ReadOnly {
		e.Response = redact(x.output.shape, x.output.value)
	}
	x.server.options.Audit.Record(e)
}

// shaped is an input or output with its form; zero for none.
type shaped struct {
	shape *shape.Type
	value any
}

// ready refuses to begin a change that could not go on record.
func (x *exchange) ready() error {
	if readOnly(x.operation) {
		return nil
	}
	if err := x.server.options.Audit.Ready(); err != nil {
		x.server.log.Warn("a change was refused, since the audit log cannot be written", "operation", x.operation, "error", err)
		const message = "The audit log cannot be written now, so nothing may be changed. The server's log says why."
		return x.byProtocol(
			apiError{"ServiceUnavailableException", message, http.StatusServiceUnavailable},
			apiError{"ServiceUnavailable", message, http.StatusServiceUnavailable},
			apiError{"ServiceUnavailable", message, http.StatusServiceUnavailable})
	}
	return nil
}

func tlsOf(r *http.Request) *audit.TLS {
	if r.TLS == nil {
		return nil
	}
	return &audit.TLS{Version: strings.ReplaceAll(tls.VersionName(r.TLS.Version), " ", "v"), Cipher: tls.CipherSuiteName(r.TLS.CipherSuite), Host: r.Host}
}

// resourceType is a resource's type in CloudFormation's words, which CloudTrail uses.
func resourceType(arn string) string {
	p := strings.SplitN(arn, ":", 6)
	if len(p) < 6 {
		return ""
	}
	service := map[string]string{"appstream": "AppStream", "ec2": "EC2", "iam": "IAM", "sts": "STS"}[p[2]]
	kind, _, _ := strings.Cut(p[5], "/")
	if service == "" || kind == "" || kind == "*" {
		return ""
	}
	var name strings.Builder
	for word := range strings.SplitSeq(kind, "-") {
		if word == "vpc" {
			word = "VPC"
		}
		name.WriteString(upperFirst(word))
	}
	return "AWS::" + service + "::" + name.String()
}

func upperFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToUpper(r)) + s[n:]
}

func lowerFirst(s string) string {
	r, n := utf8.DecodeRuneInString(s)
	return string(unicode.ToLower(r)) + s[n:]
}

// hidden is what stands in the record for a secret, as in CloudTrail.
const hidden = "HIDDEN_DUE_TO_SECURITY_REASONS"

// secretName are the members that carry a secret whatever the model says of them.
var secretName = regexp.MustCompile(`(?i)secret|password|sessiontoken|streamingurl|presigned|tokencode|samlassertion|sessioncontext|privatekey|certificatebody`)

// isSecret: the names of users are marked in the model, and a record without them would be of little use.
func isSecret(f *shape.Field) bool {
	return secretName.MatchString(f.Name) || f.Secret && f.Name != "UserName"
}

// Bounds of what is copied into the record.
const (
	maxRecordedText  = 8 << 10
	maxRecordedItems = 100
)

// redact is an input or output as JSON with CloudTrail's member names and without secrets; nil for nothing.
func redact(t *shape.Type, v any) json.RawMessage {
	if t == nil || v == nil {
		return nil
	}
	out, ok := plain(t, reflect.Indirect(reflect.ValueOf(v))).(map[string]any)
	if !ok || len(out) == 0 {
		return nil
	}
	b, err := json.Marshal(out)
	if err != nil {
		return nil
	}
	return b
}

func plain(t *shape.Type, v reflect.Value) any {
	switch t.Kind {
	case shape.Struct:
		out := map[string]any{}
		for i := range t.Fields {
			f := &t.Fields[i]
			fv, ok := f.Value(v)
			switch {
			case !ok:
			case isSecret(f):
				out[lowerFirst(f.Name)] = hidden
			default:
				out[lowerFirst(f.Name)] = plain(f.Type, fv)
			}
		}
		return out
	case shape.List:
		out := make([]any, 0, min(v.Len(), maxRecordedItems))
		for i := range min(v.Len(), maxRecordedItems) {
			out = append(out, plain(t.Elem, v.Index(i)))
		}
		return out
	case shape.Map:
		out := map[string]any{}
		for k, e := range v.Seq2() {
			if len(out) == maxRecordedItems {
				break
			}
			out[k.String()] = plain(t.Elem, e)
		}
		return out
	case shape.Time:
		return shape.TimeOf(v).UTC().Format(time.RFC3339)
	case shape.Blob:
		return base64.StdEncoding.EncodeToString(v.Bytes()[:min(v.Len(), maxRecordedText)])
	case shape.String:
		s := v.String()
		if len(s) > maxRecordedText {
			s = strings.ToValidUTF8(s[:maxRecordedText], "") + "…"
		}
		return s
	case shape.Int32, shape.Int64, shape.Float64, shape.Bool:
	}
	return v.Interface()
}
