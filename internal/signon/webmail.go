package signon

import (
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/drawbridge/drawbridge/internal/web"
)

const (
	// tokenFor bounds the validity of a token.
	tokenFor = time.Minute
	// clockSlack is how far the clock of the webmail may differ.
	clockSlack = 5 * time.Second
)

// Webmail hands users over who are logged in there.
type Webmail struct {
	Key    []byte // 32 bytes or more
	Origin string // of its pages, such as https://webmail.example.org
}

// handover takes over a user of the webmail.
func (p *Pages) handover(c *web.Call) error {
	if err := throttled(c); err != nil {
		return err
	}
	if err := c.Form(); err != nil {
		return err
	}
	arrival, err := p.Webmail.token(c)
	if err == nil && !p.Exists(arrival.Account) {
		err = refuse("the account has no record here: " + arrival.Account)
	}
	if err != nil {
		return p.failed(c, "hand-over from webmail", err)
	}
	return p.Arrived(c, arrival)
}

// token verifies the token of a form, and uses it up.
func (w *Webmail) token(c *web.Call) (*Arrival, error) {
	if origin := c.R.Header.Get("Origin"); origin != w.Origin {
		return nil, refuseStray("the form is not from the webmail's pages")
	}
	parsed, err := jwt.ParseSigned(c.Value("token"), []jose.SignatureAlgorithm{jose.HS256})
	if err != nil {
		return nil, refuse("the token cannot be read")
	}
	var claims jwt.Claims
	if err := parsed.Claims(w.Key, &claims); err != nil {
		return nil, refuse("the token is not signed with the key")
	}
	switch {
	case claims.ValidateWithLeeway(jwt.Expected{AnyAudience: jwt.Audience{c.Base()}, Time: c.Now}, clockSlack) != nil:
		return nil, refuse("the token has expired, or is for another site")
	case claims.Expiry == nil, claims.IssuedAt == nil, claims.Expiry.Time().Sub(claims.IssuedAt.Time()) > tokenFor, claims.Expiry.Time().Sub(c.Now) > tokenFor+clockSlack:
		return nil, refuse("the token is valid for longer than a minute")
	case claims.ID == "" || len(claims.ID) > 100:
		return nil, refuse("the token has no id")
	case !strings.Contains(claims.Subject, "@"):
		return nil, refuse("the token does not name an account")
	}
	first, err := c.Once("handover", claims.ID, tokenFor+3*clockSlack)
	if err != nil {
		return nil, err
	}
	if !first {
		return nil, refuse("the token was used before")
	}
	return &Arrival{Account: claims.Subject, Next: web.Local(c.R.PostFormValue("next")), How: "HANDOVER"}, nil
}
