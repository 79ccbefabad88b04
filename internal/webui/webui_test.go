package webui

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

func TestCachingAndCompression(t *testing.T) {
	t.Parallel()
	body := []byte("export const answer = 42;")
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	_, _ = w.Write(body)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := &site{name: "viewer", files: map[string]file{
		"index.html":              {body: []byte("<!doctype html>"), contentType: "text/html"},
		"assets/page-Ab3_-xYz.js": {body: body, packed: packed.Bytes(), contentType: "text/javascript", forever: hashed.MatchString("assets/page-Ab3_-xYz.js")},
		"licenses.txt":            {body: []byte("MIT"), contentType: "text/plain", forever: hashed.MatchString("licenses.txt")},
	}}
	for _, tc := range []struct {
		name, path, accept, requested string
		wantCache, wantEncoding       string
		want                          []byte
	}{
		{"document", "/", "gzip", "", "no-store", "", []byte("<!doctype html>")},
		{"file without a hash", "/licenses.txt", "gzip", "", "no-store", "", []byte("MIT")},
		{"script", "/assets/page-Ab3_-xYz.js", "br, gzip;q=0.8", "", forever, "gzip", body},
		{"script, plain", "/assets/page-Ab3_-xYz.js", "", "", forever, "", body},
		{"script, gzip refused", "/assets/page-Ab3_-xYz.js", "gzip;q=0, br", "", forever, "", body},
		{"script, gzip refused with zeros", "/assets/page-Ab3_-xYz.js", "gzip; q=0.00", "", forever, "", body},
		{"part of a script", "/assets/page-Ab3_-xYz.js", "gzip", "bytes=0-5", forever, "", body[:6]},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, tc.path, http.NoBody)
			if tc.accept != "" {
				r.Header.Set("Accept-Encoding", tc.accept)
			}
			if tc.requested != "" {
				r.Header.Set("Range", tc.requested)
			}
			rec := httptest.NewRecorder()
			rec.Header().Set("Cache-Control", "no-store") // as both planes have it
			s.ServeHTTP(rec, r)
			if got := rec.Header().Get("Cache-Control"); got != tc.wantCache {
				t.Errorf("Cache-Control: got %q, want %q", got, tc.wantCache)
			}
			if got := rec.Header().Get("Content-Encoding"); got != tc.wantEncoding {
				t.Errorf("Content-Encoding: got %q, want %q", got, tc.wantEncoding)
			}
			var in io.Reader = rec.Body
			if tc.wantEncoding == "gzip" {
				var err error
				if in, err = gzip.NewReader(rec.Body); err != nil {
					t.Fatal(err)
				}
			}
			got, err := io.ReadAll(in)
			if err != nil || !bytes.Equal(got, tc.want) {
				t.Errorf("body: got %q, %v; want %q", got, err, tc.want)
			}
		})
	}
}

// TestBuiltFiles: the build names everything that a page loads by its content, and packs it.
func TestBuiltFiles(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"viewer", "portal"} {
		s := newSite(name)
		if len(s.files) == 0 {
			t.Skip("the web applications are not built (make build)")
		}
		for path, f := range s.files {
			if f.forever && len(f.body) >= 1024 && f.packed == nil {
				t.Errorf("%s/%s is not packed", name, path)
			}
			if !f.forever && f.contentType == "text/javascript; charset=utf-8" {
				t.Errorf("%s/%s has no hash in its name", name, path)
			}
			if f.packed == nil {
				continue
			}
			r, err := gzip.NewReader(bytes.NewReader(f.packed))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, f.body) {
				t.Errorf("%s/%s: what is packed is another file (%v)", name, path, err)
			}
		}
	}
}
