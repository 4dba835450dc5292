package daemon

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/console"
	"github.com/drawbridge/drawbridge/internal/phonesetup"
	"github.com/drawbridge/drawbridge/internal/saslauth"
	"github.com/drawbridge/drawbridge/internal/selfservice"
	"github.com/drawbridge/drawbridge/internal/signon"
	"github.com/drawbridge/drawbridge/internal/web"
)

// newPages returns a function that creates the handler of a listener of pages, and one that ends
// what they keep open.
func newPages(p *parts, a *admin.Admin) (handler func(tls bool) http.Handler, closePages func(), err error) {
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
	if users.Servers.Signer, err = profileSigner(&p.cfg.Console); err != nil {
		return nil, nil, err
	}
	others, err := signOns(&p.cfg.Console)
	if err != nil {
		return nil, nil, err
	}
	if others.Provider != nil {
		users.Other = p.cfg.Console.OIDCName
	}
	others.Exists = func(account string) bool {
		addr, err := address.Parse(account, "")
		if err != nil {
			return false
		}
		_, ok := p.store.State.Account(p.store.State.Canonical(addr))
		return ok
	}
	others.Arrived = func(c *web.Call, in *signon.Arrival) error {
		return users.Arrived(c, &selfservice.Arrival{Account: in.Account, Next: in.Next, How: in.How, Proven: in.Proven, LogOut: in.LogOut})
	}
	administrators := &console.Pages{
		Admin: a, Open: opensessions.Site{Live: p.live}, Mail: mailSite(p), Factors: factors.Site{Verifier: p.factors},
		TestPolicy: testPolicy, Withdraw: withdrawer(p),
	}
	return func(tls bool) http.Handler {
		mux, s := http.NewServeMux(), site.Secure(tls)
		administrators.Register(mux, s)
		users.Register(mux, s)
		others.Register(mux, s)
		return s.Handler(mux)
	}, verifier.Close, nil
}

// profileSigner returns what signs profiles, nil for none.
func profileSigner(c *config.Console) (*phonesetup.Signer, error) {
	if c.ProfileCertificate == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.ProfileCertificate, c.ProfileKey)
	if err != nil {
		return nil, fmt.Errorf("console.profile_certificate: %w", err)
	}
	key, ok := pair.PrivateKey.(crypto.Signer)
	if !ok {
		return nil, errors.New("console.profile_key: the key cannot sign")
	}
	s := &phonesetup.Signer{Key: key}
	for _, der := range pair.Certificate {
		certificate, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("console.profile_certificate: %w", err)
		}
		s.Chain = append(s.Chain, certificate)
	}
	return s, nil
}

// minHandoverKey is the size of the key that a webmail signs with, in bytes.
const minHandoverKey = 32

// signOns returns the log-ins to the users' page that others verify.
func signOns(c *config.Console) (*signon.Pages, error) {
	p := new(signon.Pages)
	if c.OIDCIssuer != "" {
		secret, err := config.ReadSecret(c.OIDCClientSecretFile)
		if err != nil {
			return nil, fmt.Errorf("console.oidc_client_secret_file: %w", err)
		}
		p.Provider = &signon.Provider{
			Issuer: c.OIDCIssuer, ClientID: c.OIDCClientID, Secret: secret, Claim: c.OIDCClaim, Domains: c.OIDCDomains, Factors: c.OIDCFactors,
		}
	}
	if c.HandoverOrigin != "" {
		key, err := config.ReadSecret(c.HandoverKeyFile)
		if err == nil && len(key) < minHandoverKey {
			err = fmt.Errorf("the key has %d bytes: write %d or more", len(key), minHandoverKey)
		}
		if err != nil {
			return nil, fmt.Errorf("console.handover_key_file: %w", err)
		}
		p.Webmail = &signon.Webmail{Key: key, Origin: strings.TrimSuffix(c.HandoverOrigin, "/")}
	}
	return p, nil
}
