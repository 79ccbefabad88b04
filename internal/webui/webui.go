// Package webui embeds the built web applications and serves them.
//
// The bundles are built from web/ by `make build`; a binary built without them says so on every page.
package webui

import (
	"bytes"
	"embed"
	"errors"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// Viewer serves the viewer's page and assets. The caller forbids caching; files whose name is the hash of their content are the exception: the
// browser of one user keeps them (docs/adr/0038).
func Viewer() http.Handler { return newSite("viewer") }

// Portal serves the portal's page and assets.
func Portal() http.Handler { return newSite("portal") }

// site is one bundle, read once.
type site struct {
	name  string
	files map[string]file
}

type file struct {
	body        []byte
	packed      []byte // the body by gzip; nil: not worth it
	contentType string
	forever     bool // the name is the hash of the content
}

// forever is for the browser alone: what stands between it and us must keep nothing (AWS forbids proxies to cache endpoints).
const forever = "private, max-age=31536000, immutable"

// hashed are the names that the build gives to files by their content.
var hashed = regexp.MustCompile(`^assets/.+-[A-Za-z0-9_-]{8}\.[a-z]+$`)

func newSite(name string) *site {
	s := &site{name: name, files: map[string]file{}}
	root, err := fs.Sub(dist, path.Join("dist", name))
	if err != nil {
		return s
	}
	_ = fs.WalkDir(root, ".", func(p string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || d == nil || d.IsDir() {
			return nil
		}
		body, err := fs.ReadFile(root, p)
		if err != nil {
			return nil //nolint:nilerr // an embedded file can be read
		}
		s.files[p] = file{body: body, contentType: contentType(p), forever: hashed.MatchString(p)}
		return nil
	})
	for name, f := range s.files {
		if packed, ok := s.files[name+packedExt]; ok {
			f.packed = packed.body
			s.files[name] = f
			delete(s.files, name+packedExt)
		}
	}
	return s
}

const packedExt = ".gz"

func contentType(name string) string {
	switch ext := path.Ext(name); ext {
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".wasm":
		return "application/wasm"
	case ".svg":
		return "image/svg+xml"
	default:
		return mime.TypeByExtension(ext)
	}
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if len(s.files) == 0 {
		http.Error(w, "The "+s.name+" is not part of this build. Run make build.", http.StatusNotImplemented)
		return
	}
	name := strings.TrimPrefix(path.Clean("/"+r.URL.Path), "/")
	if name == "" {
		name = "index.html"
	}
	f, ok := s.files[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Type", f.contentType)
	if f.forever {
		h.Set("Cache-Control", forever)
	}
	body := f.body
	if f.packed != nil {
		h.Set("Vary", "Accept-Encoding")
		if r.Header.Get("Range") == "" && acceptsGzip(r) {
			h.Set("Content-Encoding", "gzip")
			body = f.packed
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(body))
}

// acceptsGzip says whether the client lists gzip without refusing it.
func acceptsGzip(r *http.Request) bool {
	for _, line := range r.Header.Values("Accept-Encoding") {
		for item := range strings.SplitSeq(line, ",") {
			coding, quality, _ := strings.Cut(strings.TrimSpace(item), ";")
			if q := strings.ReplaceAll(quality, " ", ""); strings.EqualFold(strings.TrimSpace(coding), "gzip") && q != "q=0" && !strings.HasPrefix(q, "q=0.0") {
				return true
			}
		}
	}
	return false
}
