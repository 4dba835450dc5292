package web

import (
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"path"
	"strings"
)

// Files of others: htmx 2.0.11 (0BSD) and Pico 2.1.1 (MIT); their licences are beside them.
//
//go:embed static/*.js static/*.css
var static embed.FS

const staticPath = "/static/"

// asset is a static file.
type asset struct {
	kind    string
	content []byte
	path    string // with a version, so that a browser may keep it
}

var assets = func() map[string]asset {
	list := map[string]asset{}
	entries, _ := static.ReadDir("static") // embedded
	for _, e := range entries {
		b, _ := static.ReadFile("static/" + e.Name())
		sum := sha256.Sum256(b)
		kind := "text/css; charset=utf-8"
		if path.Ext(e.Name()) == ".js" {
			kind = "text/javascript; charset=utf-8"
		}
		list[e.Name()] = asset{kind, b, staticPath + e.Name() + "?v=" + hex.EncodeToString(sum[:6])}
	}
	return list
}()

// staticURL returns the path of a static file.
func staticURL(name string) string { return assets[name].path }

func serveStatic(w http.ResponseWriter, r *http.Request) {
	a, ok := assets[strings.TrimPrefix(r.URL.Path, staticPath)]
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	_, _ = w.Write(a.content) // the browser is gone
}
