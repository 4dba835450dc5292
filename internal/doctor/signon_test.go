package doctor

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestIssuer(t *testing.T) {
	var text string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if text == "" || r.URL.Path != "/x/.well-known/openid-configuration" {
			w.WriteHeader(http.StatusNotFound)
		}
		_, _ = io.WriteString(w, text)
	}))
	defer s.Close()
	for want, answer := range map[string]string{
		"":                     `{"issuer":"` + s.URL + `/x"}`,
		"calls itself":         `{"issuer":"https://evil.example"}`,
		"404":                  "",
		"reading the metadata": "<html>",
	} {
		text = answer
		if err := checkIssuer(t.Context(), s.URL+"/x"); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", answer, err)
		}
	}
}
