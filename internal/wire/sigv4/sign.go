package sigv4

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Key is what a caller signs with.
type Key struct {
	AccessKeyID  string
	Secret       string
	SessionToken string // of temporary credentials
}

// Sign adds the header form of a signature to r, which is to be sent with body. It covers the host, the content type
// and every X-Amz header.
func Sign(r *http.Request, body []byte, key Key, region, service string, at time.Time) {
	at = at.UTC()
	r.Header.Set("X-Amz-Date", at.Format(TimeFormat))
	r.Header.Del("X-Amz-Security-Token")
	if key.SessionToken != "" {
		r.Header.Set("X-Amz-Security-Token", key.SessionToken)
	}
	s := Signature{Date: at.Format(dateFormat), Region: region, Service: service, Time: at, signedHeaders: []string{"host"}}
	for name := range r.Header {
		name = strings.ToLower(name)
		if name == "content-type" || strings.HasPrefix(name, "x-amz-") {
			s.signedHeaders = append(s.signedHeaders, name)
		}
	}
	slices.Sort(s.signedHeaders)
	hash := r.Header.Get("X-Amz-Content-Sha256")
	if hash == "" {
		sum := sha256.Sum256(body)
		hash = hex.EncodeToString(sum[:])
	}
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	signature := s.compute(r, hash, key.Secret)
	r.Header.Set("Authorization", Algorithm+" Credential="+key.AccessKeyID+"/"+s.scope()+
		", SignedHeaders="+strings.Join(s.signedHeaders, ";")+", Signature="+hex.EncodeToString(signature))
}

// Presign adds the query form of a signature to r's URL, valid for expires from at on.
func Presign(r *http.Request, body []byte, key Key, region, service string, at time.Time, expires time.Duration) {
	at = at.UTC()
	if r.Host == "" {
		r.Host = r.URL.Host
	}
	s := Signature{Date: at.Format(dateFormat), Region: region, Service: service, Time: at, signedHeaders: []string{"host"}}
	q := url.Values{}
	q.Set("X-Amz-Algorithm", Algorithm)
	q.Set("X-Amz-Credential", key.AccessKeyID+"/"+s.scope())
	q.Set("X-Amz-Date", at.Format(TimeFormat))
	q.Set("X-Amz-Expires", strconv.Itoa(int(expires/time.Second)))
	q.Set("X-Amz-SignedHeaders", "host")
	if key.SessionToken != "" {
		q.Set("X-Amz-Security-Token", key.SessionToken)
	}
	if r.URL.RawQuery != "" {
		r.URL.RawQuery += "&"
	}
	r.URL.RawQuery += q.Encode()
	sum := sha256.Sum256(body)
	signature := s.compute(r, hex.EncodeToString(sum[:]), key.Secret)
	r.URL.RawQuery += "&X-Amz-Signature=" + hex.EncodeToString(signature)
}

func (s *Signature) scope() string {
	return s.Date + "/" + s.Region + "/" + s.Service + "/" + terminator
}
