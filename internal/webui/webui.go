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
	"strconv"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// Viewer serves the viewer's page and assets. Caching is the caller's: the private plane forbids it.
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
	contentType string
}

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
		s.files[p] = file{body, contentType(p)}
		return nil
	})
	return s
}

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
	w.Header().Set("Content-Type", f.contentType)
	w.Header().Set("Content-Length", strconv.Itoa(len(f.body)))
	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(f.body))
}
