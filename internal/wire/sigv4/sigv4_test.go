package sigv4_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"penstock.dev/penstock/internal/wire/sigv4"
)

// received is the request as a server sees it after it went over a real connection.
func received(t *testing.T, r *http.Request, body []byte) *http.Request {
	t.Helper()
	var got *http.Request
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, in *http.Request) {
		io.Copy(io.Discard, in.Body) //nolint:errcheck // the test compares what was signed
		got = in
	}))
	defer srv.Close()
	u, err := url.Parse(srv.URL)
	if err != nil {
		t.Fatal(err)
	}
	host := r.URL.Host
	if r.Host == "" {
		r.Host = host
	}
	r.URL.Host, r.URL.Scheme = u.Host, "http"
	r.Body = io.NopCloser(bytes.NewReader(body))
	r.ContentLength = int64(len(body))
	resp, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return got
}

var (
	key = sigv4.Key{AccessKeyID: "AKIDEXAMPLE", Secret: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
	at  = time.Date(2015, 8, 30, 12, 36, 0, 0, time.UTC)
)

func newRequest(t *testing.T, method, target string, body []byte, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// TestPublishedVectors signs requests of AWS's published test suite for Signature Version 4.
func TestPublishedVectors(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, method, target, body string
		header                     []string
		want                       string
	}{
		{"get-vanilla", "GET", "https://example.amazonaws.com/", "", nil, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"get-vanilla-query-order-key-case", "GET", "https://example.amazonaws.com/?Param2=value2&Param1=value1", "", nil, "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"},
		{"post-vanilla", "POST", "https://example.amazonaws.com/", "", nil, "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"},
		{"get-relative-relative", "GET", "https://example.amazonaws.com/example1/example2/../..", "", nil, "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"},
		{"post-x-www-form-urlencoded", "POST", "https://example.amazonaws.com/", "Param1=value1", []string{"Content-Type", "application/x-www-form-urlencoded"}, "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRequest(t, tc.method, tc.target, []byte(tc.body), tc.header...)
			sigv4.Sign(r, []byte(tc.body), key, "us-east-1", "service", at)
			auth := r.Header.Get("Authorization")
			if !strings.HasSuffix(auth, "Signature="+tc.want) {
				t.Errorf("got %s, want signature %s", auth, tc.want)
			}
		})
	}
}

// TestVerifiesTheSDK takes requests that the official SDK signed, over a real connection.
func TestVerifiesTheSDK(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, method, target, body, token string
		header                            []string
		presign                           bool
	}{
		{"json", "POST", "http://appstream2.us-east-1.amazonaws.com/", `{"Names":["ü"]}`, "", []string{"Content-Type", "application/x-amz-json-1.1", "X-Amz-Target", "PhotonAdminProxyService.DescribeStacks"}, false},
		{"form", "POST", "http://127.0.0.1:4580/", "Action=DescribeVpcs&Version=2016-11-15", "", []string{"Content-Type", "application/x-www-form-urlencoded"}, false},
		{"session token", "POST", "http://localhost/", "Action=GetCallerIdentity", "to/ken+==", nil, false},
		{"spaces in headers", "POST", "http://localhost/", "x", "", []string{"X-Amz-Meta", "  a   b  ", "X-Amz-Meta", "c"}, false},
		{"query", "GET", "http://localhost/?b=2&a=1&a=%20x&a=&c=%2B%26&%C3%BC=1", "", "", nil, false},
		{"path", "GET", "http://localhost/a%20b/c+d/%C3%BC", "", "", nil, false},
		{"presigned", "GET", "http://localhost/?Action=GetCallerIdentity&Version=2011-06-15", "", "", nil, true},
		{"presigned with token", "GET", "http://localhost/?Action=GetCallerIdentity&Version=2011-06-15", "", "to/ken+==", nil, true},
		{"presigned with a signed header", "GET", "http://localhost/?Action=GetCallerIdentity", "", "", []string{"X-K8s-Aws-Id", "cluster"}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sum := sha256.Sum256([]byte(tc.body))
			hash := hex.EncodeToString(sum[:])
			creds := aws.Credentials{AccessKeyID: key.AccessKeyID, SecretAccessKey: key.Secret, SessionToken: tc.token}
			r := newRequest(t, tc.method, tc.target, []byte(tc.body), tc.header...)
			signer := v4.NewSigner()
			if tc.presign {
				r.URL.RawQuery += "&X-Amz-Expires=60"
				signed, header, err := signer.PresignHTTP(t.Context(), creds, r, hash, "sts", "eu-west-1", at)
				if err != nil {
					t.Fatal(err)
				}
				r = newRequest(t, tc.method, signed, nil)
				for name, values := range header {
					if name != "Host" {
						r.Header[name] = values
					}
				}
			} else if err := signer.SignHTTP(t.Context(), creds, r, hash, "sts", "eu-west-1", at); err != nil {
				t.Fatal(err)
			}
			got := received(t, r, []byte(tc.body))
			s, err := sigv4.Parse(got)
			if err != nil {
				t.Fatal(err)
			}
			if s.AccessKeyID != key.AccessKeyID || s.Region != "eu-west-1" || s.Service != "sts" || s.SessionToken != tc.token || s.Presigned != tc.presign {
				t.Errorf("parsed %+v", s)
			}
			if err := s.Verify(got, []byte(tc.body), key.Secret); err != nil {
				t.Error(err)
			}
			if err := s.Verify(got, []byte(tc.body), key.Secret+"x"); problem(err) != sigv4.Mismatch {
				t.Errorf("with another secret: got %v, want a mismatch", err)
			}
			if err := s.Verify(got, []byte(tc.body+"x"), key.Secret); problem(err) != sigv4.Mismatch {
				t.Errorf("with another body: got %v, want a mismatch", err)
			}
			for name, change := range map[string]func(*http.Request){
				"host":   func(r *http.Request) { r.Host = "other" },
				"method": func(r *http.Request) { r.Method = "PUT" },
				"path":   func(r *http.Request) { r.URL.Path += "x"; r.URL.RawPath = "" },
				"query":  func(r *http.Request) { r.URL.RawQuery += "&z=1" },
			} {
				other := got.Clone(context.Background())
				change(other)
				if err := s.Verify(other, []byte(tc.body), key.Secret); problem(err) != sigv4.Mismatch {
					t.Errorf("with another %s: got %v, want a mismatch", name, err)
				}
			}
		})
	}
}

func TestOwnSignaturesVerify(t *testing.T) {
	t.Parallel()
	temporary := key
	temporary.SessionToken = "token"
	for _, k := range []sigv4.Key{key, temporary} {
		body := []byte("Action=DescribeVpcs")
		r := newRequest(t, "POST", "http://localhost/?b=2&a=1", body, "X-Amz-Target", "T.Op", "Content-Type", "x/y")
		sigv4.Sign(r, body, k, "us-east-1", "ec2", at)
		got := received(t, r, body)
		s, err := sigv4.Parse(got)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(got, body, k.Secret); err != nil {
			t.Error(err)
		}
		r = newRequest(t, "GET", "http://localhost/?Action=X%20Y", nil)
		sigv4.Presign(r, nil, k, "us-east-1", "ec2", at, time.Hour)
		got = received(t, r, nil)
		if s, err = sigv4.Parse(got); err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(got, nil, k.Secret); err != nil || s.Expires != time.Hour {
			t.Errorf("presigned: %v, expires %s", err, s.Expires)
		}
	}
}

func problem(err error) sigv4.Problem {
	if e, ok := err.(*sigv4.Error); ok { //nolint:errorlint // returned bare
		return e.Problem
	}
	return 0
}

func TestPayloadHash(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, hash string
		want       sigv4.Problem
	}{
		{"right", "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881", 0}, // of "x"
		{"of another body", "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447", sigv4.Mismatch},
		{"unsigned", sigv4.UnsignedPayload, 0},
		{"streaming", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", sigv4.Incomplete},
		{"streaming, unsigned", "STREAMING-UNSIGNED-PAYLOAD-TRAILER", sigv4.Incomplete},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRequest(t, "POST", "http://localhost/", []byte("x"), "X-Amz-Content-Sha256", tc.hash)
			sigv4.Sign(r, []byte("x"), key, "us-east-1", "ec2", at)
			s, err := sigv4.Parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if got := problem(s.Verify(r, []byte("x"), key.Secret)); got != tc.want {
				t.Errorf("got problem %d, want %d", got, tc.want)
			}
			if s.Unsigned() != (tc.hash == sigv4.UnsignedPayload) {
				t.Errorf("Unsigned is %t", s.Unsigned())
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	const (
		date = "20150830T123600Z"
		good = "AWS4-HMAC-SHA256 Credential=AK/20150830/us-east-1/ec2/aws4_request, SignedHeaders=host;x-amz-date, Signature=" +
			"5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
	)
	edit := func(old, with string) []string {
		return []string{"X-Amz-Date", date, "Authorization", strings.Replace(good, old, with, 1)}
	}
	for _, tc := range []struct {
		name   string
		query  string
		header []string
		want   sigv4.Problem
		says   string
	}{
		{"nothing", "", nil, sigv4.Missing, "missing"},
		{"good", "", edit("", ""), 0, ""},
		{"another algorithm", "", edit("AWS4-HMAC-SHA256", "AWS4-ECDSA-P256-SHA256"), sigv4.Incomplete, "AWS4-HMAC-SHA256"},
		{"a bearer token", "", []string{"Authorization", "Bearer x"}, sigv4.Incomplete, "AWS4-HMAC-SHA256"},
		{"no credential", "", edit("Credential=", "C="), sigv4.Incomplete, "'Credential'"},
		{"no signed headers", "", edit("SignedHeaders=", "S="), sigv4.Incomplete, "'SignedHeaders'"},
		{"no signature", "", edit("Signature=", "S="), sigv4.Incomplete, "'Signature'"},
		{"short scope", "", edit("/ec2/", "/"), sigv4.Incomplete, "5 slash-delimited"},
		{"no key", "", edit("=AK/", "=/"), sigv4.Incomplete, "5 slash-delimited"},
		{"another terminator", "", edit("aws4_request", "aws5_request"), sigv4.Mismatch, "valid terminator"},
		{"another date", "", edit("/20150830/", "/20150831/"), sigv4.Mismatch, "does not match YYYYMMDD"},
		{"signature not hexadecimal", "", edit("Signature=5f", "Signature=zz"), sigv4.Incomplete, "64 hexadecimal"},
		{"short signature", "", edit("Signature=5f", "Signature="), sigv4.Incomplete, "64 hexadecimal"},
		{"host not signed", "", edit("=host;", "="), sigv4.Incomplete, "'Host'"},
		{"headers out of order", "", edit("host;x-amz-date", "x-amz-date;host"), sigv4.Incomplete, "in order"},
		{"a header twice", "", edit("host;", "host;host;"), sigv4.Incomplete, "in order"},
		{"upper case", "", edit("host;", "Host;"), sigv4.Incomplete, "lower-case"},
		{"date not signed", "", edit(";x-amz-date", ""), sigv4.Incomplete, "'x-amz-date'"},
		{"target not signed", "", append(edit("", ""), "X-Amz-Target", "T.Op"), sigv4.Incomplete, "'x-amz-target'"},
		{"token not signed", "", append(edit("", ""), "X-Amz-Security-Token", "t"), sigv4.Incomplete, "'x-amz-security-token'"},
		{"no date", "", []string{"Authorization", good}, sigv4.Incomplete, "'X-Amz-Date'"},
		{"date in another form", "", []string{"Authorization", good, "X-Amz-Date", "2015-08-30"}, sigv4.Incomplete, "ISO-8601"},
		{"presigned without a signature", "X-Amz-Algorithm=AWS4-HMAC-SHA256", nil, sigv4.Incomplete, "X-Amz-Credential"},
		{"presigned, another algorithm", "X-Amz-Algorithm=x", nil, sigv4.Incomplete, "X-Amz-Algorithm"},
		{"presigned, bad query", "X-Amz-Algorithm=%zz", nil, sigv4.Incomplete, "URL-encoded"},
		{"presigned, valid for too long", presigned("604801", date), nil, sigv4.Incomplete, "604800"},
		{"presigned, valid for nothing", presigned("0", date), nil, sigv4.Incomplete, "604800"},
		{"presigned, no validity", strings.Replace(presigned("60", date), "X-Amz-Expires=60&", "", 1), nil, 0, ""},
		{"presigned, bad validity", presigned("x", date), nil, sigv4.Incomplete, "604800"},
		{"presigned, bad date", presigned("60", "x"), nil, sigv4.Incomplete, "ISO-8601"},
		{"presigned, date twice", presigned("60", date) + "&X-Amz-Date=" + date, nil, sigv4.Incomplete, "X-Amz-Date"},
		{"presigned, good", presigned("60", date), nil, 0, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := newRequest(t, "POST", "http://localhost/", nil, tc.header...)
			r.URL.RawQuery = tc.query
			_, err := sigv4.Parse(r)
			if got := problem(err); got != tc.want {
				t.Fatalf("got %v (problem %d), want problem %d", err, got, tc.want)
			}
			if err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %q, want it to say %q", err, tc.says)
			}
		})
	}
}

func presigned(expires, date string) string {
	return "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AK/20150830/us-east-1/ec2/aws4_request&X-Amz-SignedHeaders=host&X-Amz-Expires=" +
		expires + "&X-Amz-Date=" + date + "&X-Amz-Signature=5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"
}

func TestCheckTime(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name string
		s    sigv4.Signature
		now  time.Duration // after at
		says string
	}{
		{"now", sigv4.Signature{Time: at}, 0, ""},
		{"five minutes old", sigv4.Signature{Time: at}, 5 * time.Minute, ""},
		{"older", sigv4.Signature{Time: at}, 5*time.Minute + time.Second, "Signature expired: 20150830T123600Z is now earlier than 20150830T123601Z (20150830T124101Z - 5 min.)"},
		{"five minutes early", sigv4.Signature{Time: at}, -5 * time.Minute, ""},
		{"earlier", sigv4.Signature{Time: at}, -5*time.Minute - time.Second, "Signature not yet current: 20150830T123600Z is still later than 20150830T123559Z (20150830T123059Z + 5 min.)"},
		{"presigned, in its time", sigv4.Signature{Time: at, Presigned: true, Expires: time.Hour}, time.Hour, ""},
		{"presigned, after its time", sigv4.Signature{Time: at, Presigned: true, Expires: time.Hour}, time.Hour + time.Second, "Signature expired"},
		{"presigned, early", sigv4.Signature{Time: at, Presigned: true, Expires: time.Hour}, -6 * time.Minute, "not yet current"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			err := tc.s.CheckTime(at.Add(tc.now), 5*time.Minute)
			if (err == nil) != (tc.says == "") || err != nil && (!strings.Contains(err.Error(), tc.says) || problem(err) != sigv4.Skewed) {
				t.Errorf("got %v, want %q", err, tc.says)
			}
		})
	}
}

// FuzzParse looks for panics and for a signature that verifies although nobody signed it.
func FuzzParse(f *testing.F) {
	r, _ := http.NewRequest(http.MethodPost, "http://localhost/?a=1", nil)
	sigv4.Sign(r, nil, key, "us-east-1", "ec2", at)
	f.Add(r.Header.Get("Authorization"), r.Header.Get("X-Amz-Date"), "a=1", "")
	f.Add("", "", presigned("60", "20150830T123600Z"), "")
	f.Add("AWS4-HMAC-SHA256 ,=,Credential=////", "", "%", "UNSIGNED-PAYLOAD")
	f.Fuzz(func(t *testing.T, auth, date, query, hash string) {
		r := &http.Request{Method: "POST", Host: "localhost", URL: &url.URL{Path: "/", RawQuery: query}, Header: http.Header{
			"Authorization": {auth}, "X-Amz-Date": {date}, "X-Amz-Content-Sha256": {hash},
		}}
		s, err := sigv4.Parse(r)
		if err != nil {
			if problem(err) == 0 {
				t.Fatalf("error of another type: %T", err)
			}
			return
		}
		_ = s.CheckTime(at, time.Minute)
		if err := s.Verify(r, nil, "a secret that signed nothing"); err == nil {
			t.Fatal("verified with a secret that signed nothing")
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	body := []byte(`{"Names":["stack"]}`)
	r, _ := http.NewRequest(http.MethodPost, "http://127.0.0.1:4580/", bytes.NewReader(body))
	r.Header.Set("Content-Type", "application/x-amz-json-1.1")
	r.Header.Set("X-Amz-Target", "PhotonAdminProxyService.DescribeStacks")
	sigv4.Sign(r, body, key, "us-east-1", "appstream", at)
	b.ReportAllocs()
	for b.Loop() {
		s, err := sigv4.Parse(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := s.Verify(r, body, key.Secret); err != nil {
			b.Fatal(err)
		}
	}
}
