package rest

import (
	"encoding/json"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"
)

// WriteProblem responds with a problem document (application/problem+json, RFC 9457) and its
// status. It must come before any other part of the response.
func WriteProblem(w http.ResponseWriter, p *api.Problem) {
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "5")
	}
	WriteJSON(w, "application/problem+json", p.Status, p)
}

// WriteJSON responds with a JSON body. Write errors concern the client only, which is gone.
func WriteJSON(w http.ResponseWriter, contentType string, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body)
}
