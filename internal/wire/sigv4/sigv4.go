// Package sigv4 is AWS Signature Version 4: the canonical form of a request, its keys, signing and verification.
//
// It follows the rules of every service but S3: paths are encoded twice and normalised, and the payload is hashed. It is
// pure: no clock, no store of keys; nothing in it is kept between calls.
package sigv4

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Names and forms of the protocol.
const (
	Algorithm       = "AWS4-HMAC-SHA256"
	UnsignedPayload = "UNSIGNED-PAYLOAD"
	TimeFormat      = "20060102T150405Z" // X-Amz-Date, always UTC
	dateFormat      = "20060102"
	terminator      = "aws4_request"
	streamingPrefix = "STREAMING-" // signed chunk by chunk; no client of ours sends it
)

// MaxExpires is the longest validity of a presigned request: seven days. DefaultExpires is that of one which states
// none, as those that the SDKs make for STS.
const (
	MaxExpires     = 604_800 * time.Second
	DefaultExpires = 15 * time.Minute
)

// Problem is why a request is not authentic.
type Problem int

// The problems.
const (
	// Missing is a request without a signature.
	Missing Problem = iota + 1
	// Incomplete is a signature that cannot be read, or that does not cover what it must.
	Incomplete
	// Mismatch is a signature, scope or payload hash that is wrong.
	Mismatch
	// Skewed is a signature of another time: expired, or not yet valid.
	Skewed
)

// Error is a request that is not authentic. Its text may be shown to the caller.
type Error struct {
	Problem Problem
	Message string
}

func (e *Error) Error() string { return e.Message }

func fail(p Problem, format string, args ...any) error {
	return &Error{p, fmt.Sprintf(format, args...)}
}

// Signature is what a request says about its own signature. Nothing of it is proved until Verify.
type Signature struct {
	AccessKeyID  string
	Date         string // YYYYMMDD of the scope
	Region       string
	Service      string
	Time         time.Time     // when it was signed
	Expires      time.Duration // presigned: validity; otherwise 0
	Presigned    bool
	SessionToken string // of temporary credentials; empty for none

	signedHeaders []string // lower case, sorted
	signature     []byte
	payloadHash   string // stated by the request; empty when it states none
}

// Parse reads the signature of a request in header form or presigned query form, and checks that it is complete and
// covers what it must. Every error is an *Error.
func Parse(r *http.Request) (*Signature, error) {
	if auth := r.Header.Get("Authorization"); auth != "" {
		return parseHeader(r, auth)
	}
	if strings.Contains(r.URL.RawQuery, "X-Amz-Algorithm") {
		return parseQuery(r)
	}
	return nil, fail(Missing, "Request is missing Authentication Token")
}

func parseHeader(r *http.Request, auth string) (*Signature, error) {
	algorithm, rest, _ := strings.Cut(auth, " ")
	if algorithm != Algorithm {
		return nil, fail(Incomplete, "Unsupported AWS 'algorithm': the Authorization header must begin with '%s'", Algorithm)
	}
	var credential, signed, signature string
	for part := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch key {
		case "Credential":
			credential = value
		case "SignedHeaders":
			signed = value
		case "Signature":
			signature = value
		}
	}
	for _, p := range []struct{ name, value string }{
		{"Credential", credential},
		{"SignedHeaders", signed},
		{"Signature", signature},
	} {
		if p.value == "" {
			return nil, fail(Incomplete, "Authorization header requires '%s' parameter.", p.name)
		}
	}
	s := &Signature{SessionToken: r.Header.Get("X-Amz-Security-Token"), payloadHash: r.Header.Get("X-Amz-Content-Sha256")}
	var err error
	switch date := r.Header.Get("X-Amz-Date"); {
	case date != "":
		s.Time, err = time.Parse(TimeFormat, date)
	case r.Header.Get("Date") != "":
		if s.Time, err = http.ParseTime(r.Header.Get("Date")); err != nil {
			s.Time, err = time.Parse(TimeFormat, r.Header.Get("Date"))
		}
	default:
		return nil, fail(Incomplete, "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
	}
	if err != nil {
		return nil, fail(Incomplete, "Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
	}
	return s, s.fill(r, credential, signed, signature)
}

func parseQuery(r *http.Request) (*Signature, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, fail(Incomplete, "The query string is not URL-encoded.")
	}
	if q.Get("X-Amz-Algorithm") != Algorithm {
		return nil, fail(Incomplete, "Unsupported AWS 'algorithm': X-Amz-Algorithm must be '%s'", Algorithm)
	}
	for _, name := range []string{"X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Date"} {
		if len(q[name]) != 1 || q[name][0] == "" {
			return nil, fail(Incomplete, "AWS query-string parameters must include '%s' once.", name)
		}
	}
	s := &Signature{
		Presigned: true, SessionToken: q.Get("X-Amz-Security-Token"),
		payloadHash: r.Header.Get("X-Amz-Content-Sha256"),
	}
	if s.payloadHash == "" {
		s.payloadHash = q.Get("X-Amz-Content-Sha256")
	}
	if s.Time, err = time.Parse(TimeFormat, q.Get("X-Amz-Date")); err != nil {
		return nil, fail(Incomplete, "X-Amz-Date must be in ISO-8601 'basic format': YYYYMMDD'T'HHMMSS'Z'.")
	}
	seconds := int(DefaultExpires / time.Second)
	if q.Has("X-Amz-Expires") {
		seconds, err = strconv.Atoi(q.Get("X-Amz-Expires"))
	}
	if err != nil || seconds < 1 || seconds > int(MaxExpires/time.Second) {
		return nil, fail(Incomplete, "X-Amz-Expires must be a number of seconds from 1 to %d.", int(MaxExpires/time.Second))
	}
	s.Expires = time.Duration(seconds) * time.Second
	return s, s.fill(r, q.Get("X-Amz-Credential"), q.Get("X-Amz-SignedHeaders"), q.Get("X-Amz-Signature"))
}

// mustSign are the headers that steer a request; one that is present has to be covered by the signature.
var mustSign = []string{"x-amz-content-sha256", "x-amz-date", "x-amz-security-token", "x-amz-target"}

func (s *Signature) fill(r *http.Request, credential, signed, signature string) error {
	scope := strings.Split(credential, "/")
	if len(scope) != 5 || scope[0] == "" {
		return fail(Incomplete, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term.")
	}
	s.AccessKeyID, s.Date, s.Region, s.Service = scope[0], scope[1], scope[2], scope[3]
	if scope[4] != terminator {
		return fail(Mismatch, "Credential should be scoped with a valid terminator: '%s'.", terminator)
	}
	if want := s.Time.Format(dateFormat); s.Date != want {
		return fail(Mismatch, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s'.", clip(s.Date), want)
	}
	raw, err := hex.DecodeString(signature)
	if err != nil || len(raw) != sha256.Size {
		return fail(Incomplete, "Signature must be %d hexadecimal digits.", 2*sha256.Size)
	}
	s.signature = raw
	s.signedHeaders = strings.Split(signed, ";")
	for i, h := range s.signedHeaders {
		if h == "" || h != strings.ToLower(h) || i > 0 && s.signedHeaders[i-1] >= h {
			return fail(Incomplete, "SignedHeaders must be lower-case names in order, separated by semicolons.")
		}
	}
	if !slices.Contains(s.signedHeaders, "host") {
		return fail(Incomplete, "'Host' must be a 'SignedHeader' in the AWS Authorization.")
	}
	for _, h := range mustSign {
		if r.Header.Get(h) != "" && !slices.Contains(s.signedHeaders, h) {
			return fail(Incomplete, "'%s' must be a 'SignedHeader' in the AWS Authorization.", h)
		}
	}
	return nil
}

// Unsigned reports whether the signature leaves the payload out.
func (s *Signature) Unsigned() bool { return s.payloadHash == UnsignedPayload }

// CheckTime refuses a signature that is not of the time now: a presigned one lasts from its time, less skew, until it
// expires; any other may be skew old or early.
func (s *Signature) CheckTime(now time.Time, skew time.Duration) error {
	now = now.UTC()
	at := s.Time.Format(TimeFormat)
	minutes := int(skew / time.Minute)
	switch {
	case s.Time.After(now.Add(skew)):
		return fail(Skewed, "Signature not yet current: %s is still later than %s (%s + %d min.)",
			at, now.Add(skew).Format(TimeFormat), now.Format(TimeFormat), minutes)
	case s.Presigned && now.After(s.Time.Add(s.Expires)):
		return fail(Skewed, "Signature expired: the request signed at %s was valid for %d s; it is now %s",
			at, int(s.Expires/time.Second), now.Format(TimeFormat))
	case !s.Presigned && s.Time.Before(now.Add(-skew)):
		return fail(Skewed, "Signature expired: %s is now earlier than %s (%s - %d min.)",
			at, now.Add(-skew).Format(TimeFormat), now.Format(TimeFormat), minutes)
	}
	return nil
}

// Verify proves that the holder of secret signed this request with this body.
func (s *Signature) Verify(r *http.Request, body []byte, secret string) error {
	hash := s.payloadHash
	switch {
	case hash == UnsignedPayload:
	case strings.HasPrefix(hash, streamingPrefix):
		return fail(Incomplete, "The payload form '%s' is Amazon S3's; sign the payload's hash.", clip(hash))
	case hash == "":
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:])
	default:
		sum := sha256.Sum256(body)
		if !hmac.Equal([]byte(hash), []byte(hex.EncodeToString(sum[:]))) {
			return fail(Mismatch, "The value of 'X-Amz-Content-Sha256' does not match the payload.")
		}
	}
	want := s.compute(r, hash, secret)
	if !hmac.Equal(want, s.signature) {
		return fail(Mismatch, "The request signature we calculated does not match the signature you provided. "+
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// compute is the signature that the request must carry.
func (s *Signature) compute(r *http.Request, payloadHash, secret string) []byte {
	canonical := canonicalRequest(r, s.signedHeaders, payloadHash)
	sum := sha256.Sum256(canonical)
	b := make([]byte, 0, 160)
	b = append(b, Algorithm+"\n"...)
	b = s.Time.AppendFormat(b, TimeFormat)
	b = append(b, '\n')
	b = append(b, s.Date+"/"+s.Region+"/"+s.Service+"/"+terminator+"\n"...)
	b = hex.AppendEncode(b, sum[:])
	return mac(signingKey(secret, s.Date, s.Region, s.Service), b)
}

func signingKey(secret, date, region, service string) []byte {
	key := mac([]byte("AWS4"+secret), []byte(date))
	key = mac(key, []byte(region))
	key = mac(key, []byte(service))
	return mac(key, []byte(terminator))
}

func mac(key, text []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(text)
	return h.Sum(nil)
}

// canonicalRequest is the text whose hash is signed.
func canonicalRequest(r *http.Request, signedHeaders []string, payloadHash string) []byte {
	b := make([]byte, 0, 512)
	b = append(b, r.Method...)
	b = append(b, '\n')
	b = appendPath(b, r.URL.EscapedPath())
	b = append(b, '\n')
	b = appendQuery(b, r.URL.RawQuery)
	b = append(b, '\n')
	for _, name := range signedHeaders {
		b = append(b, name...)
		b = append(b, ':')
		switch name {
		case "host":
			b = appendTrimmed(b, r.Host)
		case "content-length":
			if v := r.Header.Get("Content-Length"); v != "" {
				b = appendTrimmed(b, v)
			} else {
				b = strconv.AppendInt(b, r.ContentLength, 10)
			}
		default:
			for i, v := range r.Header[http.CanonicalHeaderKey(name)] {
				if i > 0 {
					b = append(b, ',')
				}
				b = appendTrimmed(b, v)
			}
		}
		b = append(b, '\n')
	}
	b = append(b, '\n')
	for i, name := range signedHeaders {
		if i > 0 {
			b = append(b, ';')
		}
		b = append(b, name...)
	}
	b = append(b, '\n')
	return append(b, payloadHash...)
}

// appendTrimmed writes a header value without outer spaces, runs of spaces as one.
func appendTrimmed(b []byte, v string) []byte {
	v = strings.Trim(v, " \t")
	space := false
	for i := range len(v) {
		if v[i] == ' ' {
			if space {
				continue
			}
			space = true
		} else {
			space = false
		}
		b = append(b, v[i])
	}
	return b
}

// appendPath writes a path, which is encoded once on the wire, normalised and encoded again.
func appendPath(b []byte, path string) []byte {
	if path == "" || path == "/" {
		return append(b, '/')
	}
	var parts []string
	for p := range strings.SplitSeq(path, "/") {
		switch p {
		case "", ".":
		case "..":
			if len(parts) > 0 {
				parts = parts[:len(parts)-1]
			}
		default:
			parts = append(parts, p)
		}
	}
	for _, p := range parts {
		b = append(b, '/')
		b = appendEncoded(b, p)
	}
	if len(parts) == 0 || strings.HasSuffix(path, "/") {
		b = append(b, '/')
	}
	return b
}

// appendQuery writes the parameters sorted by encoded name, then value, without the signature itself.
func appendQuery(b []byte, raw string) []byte {
	if raw == "" {
		return b
	}
	var pairs []string
	for part := range strings.SplitSeq(raw, "&") {
		if part == "" {
			continue
		}
		key, value, _ := strings.Cut(part, "=")
		key, value = reencode(key), reencode(value)
		if key == "X-Amz-Signature" {
			continue
		}
		// NUL sorts below every encoded byte, so that names compare before values.
		pairs = append(pairs, key+"\x00"+value)
	}
	slices.Sort(pairs)
	for i, p := range pairs {
		if i > 0 {
			b = append(b, '&')
		}
		key, value, _ := strings.Cut(p, "\x00")
		b = append(b, key...)
		b = append(b, '=')
		b = append(b, value...)
	}
	return b
}

func reencode(s string) string {
	plain, err := url.QueryUnescape(s)
	if err != nil {
		plain = s
	}
	return string(appendEncoded(make([]byte, 0, len(plain)), plain))
}

// appendEncoded writes RFC 3986 percent encoding: letters, digits and -._~ stand for themselves.
func appendEncoded(b []byte, s string) []byte {
	const digits = "0123456789ABCDEF"
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~' {
			b = append(b, c)
			continue
		}
		b = append(b, '%', digits[c>>4], digits[c&15])
	}
	return b
}

func clip(s string) string {
	if len(s) > 40 {
		s = s[:40] + "…"
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
