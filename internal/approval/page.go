package approval

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
)

// Decider knows held messages. The approver has proved to be one by a token.
type Decider interface {
	HeldForApprover(domain, id, approver string) (*api.Held, error)
	DecideAsApprover(ctx context.Context, domain, id, approver string, approve bool, text string) (*api.Held, error)
}

// maxForm bounds the body of a decision, in octets.
const maxForm = 16 << 10

// page is what the template shows.
type page struct {
	Title, Text string
	Held        *api.Held // nil for nothing to decide
}

var tmpl = template.Must(template.New("page").Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="robots" content="noindex">
<title>{{.Title}}</title>
</head>
<body>
<h1>{{.Title}}</h1>
{{with .Text}}<p>{{.}}</p>{{end}}
{{with .Held}}
<dl>
<dt>From</dt><dd>{{or .From "<>"}}</dd>
{{range .Recipients}}<dt>To</dt><dd>{{.}}</dd>{{end}}
<dt>Subject</dt><dd>{{.Subject}}</dd>
<dt>Size</dt><dd>{{.Size}} bytes</dd>
<dt>Rule</dt><dd>{{.Rule}}</dd>
<dt>Without a decision</dt><dd>{{if eq .Then "release"}}released{{else}}rejected{{end}} at {{.ExpiresAt.UTC.Format "2006-01-02 15:04 UTC"}}</dd>
</dl>
<form method="post"><button name="decision" value="approve">Approve</button></form>
<form method="post"><p><label>Reason, for the sender:<br><textarea name="text" rows="3" cols="60" maxlength="2000"></textarea></label></p>
<button name="decision" value="reject">Reject</button></form>
{{end}}
</body>
</html>
`))

// Handler serves the pages below [Path].
func Handler(links *Links, decider Decider, log hclog.Logger) http.Handler {
	show := func(w http.ResponseWriter, status int, p page) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", "default-src 'none'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("Referrer-Policy", "no-referrer") // the address is the key
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		w.WriteHeader(status)
		if err := tmpl.Execute(w, p); err != nil {
			log.Debug("approval page", "error", err)
		}
	}
	fail := func(w http.ResponseWriter, err error) {
		problem := new(api.Problem)
		switch {
		case errors.As(err, &problem) && problem.Status == http.StatusConflict:
			show(w, http.StatusConflict, page{Title: "Already decided", Text: problem.Detail})
		case errors.As(err, &problem) && problem.Status == http.StatusUnprocessableEntity:
			show(w, problem.Status, page{Title: "Not accepted", Text: "The text is too long, or has characters that do not print. Go back and change it."})
		case errors.As(err, &problem) && problem.Status < http.StatusInternalServerError, errors.Is(err, errToken):
			show(w, http.StatusNotFound, page{Title: "Nothing to decide", Text: "The address is not complete, or has expired, or the message has been decided."})
		default:
			log.Warn("approval page", "error", err)
			show(w, http.StatusServiceUnavailable, page{Title: "Not now", Text: "The decision could not be stored. Try again later."})
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := links.verify(strings.TrimPrefix(r.URL.Path, Path), time.Now())
		switch {
		case err != nil:
			fail(w, err)
		case r.Method == http.MethodGet, r.Method == http.MethodHead:
			held, err := decider.HeldForApprover(c.domain, c.id, c.approver)
			if err != nil {
				fail(w, err)
				return
			}
			show(w, http.StatusOK, page{Title: "Approve this message?", Held: held})
		case r.Method == http.MethodPost:
			r.Body = http.MaxBytesReader(w, r.Body, maxForm)
			decision := r.PostFormValue("decision")
			if decision != "approve" && decision != "reject" {
				show(w, http.StatusBadRequest, page{Title: "Nothing decided", Text: "Choose approve or reject."})
				return
			}
			held, err := decider.DecideAsApprover(r.Context(), c.domain, c.id, c.approver, decision == "approve", r.PostFormValue("text"))
			if err != nil {
				fail(w, err)
				return
			}
			log.Info("held message decided by mail", "id", c.id, "approver", c.approver, "decision", decision, "state", held.State)
			text := "Your approval was recorded. Other approvers must approve, too."
			switch held.State {
			case "approved":
				text = "The message will be sent."
			case "rejected":
				text = "The message will not be sent."
			}
			show(w, http.StatusOK, page{Title: "Decided", Text: text})
		default:
			w.Header().Set("Allow", "GET, HEAD, POST")
			show(w, http.StatusMethodNotAllowed, page{Title: "Not possible"})
		}
	})
}
