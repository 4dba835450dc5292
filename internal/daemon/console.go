package daemon

import (
	"net/http"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/console"
	"github.com/drawbridge/drawbridge/internal/phonesetup"
	"github.com/drawbridge/drawbridge/internal/saslauth"
	"github.com/drawbridge/drawbridge/internal/selfservice"
	"github.com/drawbridge/drawbridge/internal/web"
)

// newPages returns a function that creates the handler of a listener of pages, and one that ends
// what they keep open.
func newPages(p *parts, a *admin.Admin) (handler func(tls bool) http.Handler, closePages func()) {
	log := p.log.Named("pages")
	verifier := saslauth.NewVerifier(p.gate, log, p.cfg.SASL.Next)
	proxies, _ := address.ParseNetworks(p.cfg.Console.TrustedProxies) // validated when the settings were read
	site := web.New(web.Options{Store: p.redis, PublicURL: p.cfg.Console.PublicURL, Proxies: proxies, Log: log, ProblemOf: admin.ProblemOf})
	users := &selfservice.Pages{
		Admin: a, Open: opensessions.Site{Live: p.live}, Factors: factors.Site{Verifier: p.factors}, Login: verifier.Login, Resume: p.gate.Resume,
		Servers: phonesetup.Settings{
			IMAP: phonesetup.ParseServer(p.cfg.Console.IMAP), POP3: phonesetup.ParseServer(p.cfg.Console.POP3),
			SMTP: phonesetup.ParseServer(p.cfg.Console.SMTP),
		},
	}
	administrators := &console.Pages{
		Admin: a, Open: opensessions.Site{Live: p.live}, Mail: mailSite(p), Factors: factors.Site{Verifier: p.factors},
		TestPolicy: testPolicy, Withdraw: withdrawer(p),
	}
	return func(tls bool) http.Handler {
		mux, s := http.NewServeMux(), site.Secure(tls)
		administrators.Register(mux, s)
		users.Register(mux, s)
		return s.Handler(mux)
	}, verifier.Close
}
