package adminapi

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// maxClientType bounds the name of a client type, in characters.
	maxClientType = 40
	// certificateValid is what Dovecot 2.3 tells of any certificate that it verified.
	certificateValid = "valid"
)

func viewClientType(t *store.ClientType) api.ClientType {
	v := api.ClientType{Type: string(t.Type), Unproven: t.Unproven, Evidence: make([]api.Evidence, len(t.Evidence))}
	for i, e := range t.Evidence {
		ports := make([]int, len(e.LocalPorts))
		for k, p := range e.LocalPorts {
			ports[k] = int(p)
		}
		v.Evidence[i] = api.Evidence{
			Networks: list(e.Networks), ClientCert: e.ClientCert, ServerNames: list(e.ServerNames),
			LocalPorts: ports, Services: list(e.Services),
		}
	}
	return v
}

func listClientTypes(c *call) (*answer, error) {
	return listed(c, c.Store.State.ClientTypes(), func(t *store.ClientType) string { return string(t.Type) }, viewClientType)
}

func getClientType(c *call) (*answer, error) {
	t, ok := c.Store.State.ClientType(access.ClientType(c.r.PathValue("type")))
	if !ok {
		return nil, api.NotFound("client type with evidence")
	}
	return found(t.Rev, viewClientType(t.Doc)), nil
}

func putClientType(c *call) (*answer, error) {
	name := c.r.PathValue("type")
	var f api.Faults
	in := rest.Decode[api.ClientType](c.schemas, c.body, &f)
	switch {
	case name == string(access.ClientThirdParty):
		f.Parameter("type", "conflict", "third-party is what gave no proof: it can have no evidence")
	case name == "" || len(name) > maxClientType || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		f.Parameter("type", "invalid_name", "must be 1 to %d small letters, digits and hyphens", maxClientType)
	case in.Type != "" && in.Type != name:
		f.Add("/type", "conflict", "is not the one in the URL")
	}
	next := &store.ClientType{Type: access.ClientType(name), Evidence: []access.Evidence{}}
	for i, e := range in.Evidence {
		pointer := api.At("/evidence", i)
		evidence := readEvidence(&e, pointer, &f)
		if !evidence.Proves() && !f.Has(pointer+"/networks") {
			next.Unproven = true
			if !in.Unproven {
				f.Add(pointer, "proves_nothing", `has neither networks nor client_cert, so that anybody can pass for this type: add one of them, or insist with "unproven":true`)
			}
		}
		next.Evidence = append(next.Evidence, evidence)
	}
	if len(in.Evidence) == 0 {
		f.Add("/evidence", "required", "has none: nothing would ever be of this type; DELETE forgets a type")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	view := viewClientType(next)
	view.Warnings = c.evidenceWarnings(next.Evidence)
	ans := &answer{etag: true, body: view}
	err := c.change(store.Global, func(ch *store.Change) error {
		cur, exists := c.Store.State.ClientType(next.Type)
		if err := c.match(exists, cur.Rev); err != nil {
			return err
		}
		ans.status, ans.rev = 0, ch.Rev
		if exists && same(cur.Doc, next) {
			ans.rev = cur.Rev
			return nil
		}
		audit(ch, "client_type.update", "", name)
		if !exists {
			ans.status, ans.location = http.StatusCreated, "/v1/client-types/"+url.PathEscape(name)
			audit(ch, "client_type.create", "", name)
		}
		ch.Diff(cur.Doc, next)
		ch.PutClientType(next)
		return nil
	})
	return ans, err
}

// read holds one evidence against what it may be.
func readEvidence(e *api.Evidence, pointer string, f *api.Faults) access.Evidence {
	checkNetworks(e.Networks, pointer+"/networks", f)
	for i, name := range e.ServerNames {
		if _, err := address.ParseDomain(name); err != nil {
			f.Add(api.At(pointer+"/server_names", i), "invalid_domain", "%v", err)
		}
	}
	for i, name := range e.Services {
		if name == "" || strings.ContainsFunc(name, unprintable) {
			f.Add(api.At(pointer+"/services", i), "unprintable", "is empty, or has a character that does not print")
		}
	}
	if strings.ContainsFunc(e.ClientCert, unprintable) {
		f.Add(pointer+"/client_cert", "unprintable", "has a character that does not print")
	}
	if len(e.Networks)+len(e.ClientCert)+len(e.ServerNames)+len(e.LocalPorts)+len(e.Services) == 0 && !f.Has(pointer+"/networks") {
		f.Add(pointer, "required", "is empty and would never match: leave it out, or say what proves the type")
	}
	evidence := access.Evidence{Networks: list(e.Networks), ClientCert: e.ClientCert, ServerNames: list(e.ServerNames), LocalPorts: []uint16{}, Services: list(e.Services)}
	for _, p := range e.LocalPorts {
		evidence.LocalPorts = append(evidence.LocalPorts, uint16(p)) //nolint:gosec // the schema bounds it
	}
	return evidence
}

// evidenceWarnings tells which evidence the mail servers do not carry, so that it never matches
// there, and what brings it back.
func (c *call) evidenceWarnings(evidence []access.Evidence) []api.Warning {
	var list []api.Warning
	warn := func(i int, code, format string, args ...any) {
		list = append(list, api.Warning{Code: code, Detail: fmt.Sprintf("Evidence %d: ", i+1) + fmt.Sprintf(format, args...)})
	}
	for i := range evidence {
		e := &evidence[i]
		atPostfix := len(e.Services) == 0
		for _, service := range e.Services {
			switch access.ProtocolOfService(service, c.Services) {
			case 0:
				warn(i, "unmapped_service", "the service %s is mapped to no protocol, and logins that name it are refused: add it to services in [login] of the settings", service)
			case access.SMTP:
				atPostfix = atPostfix || service != "submission" // which is Dovecot's own
			case access.IMAP, access.POP3, access.Sieve, access.Web:
			}
		}
		switch {
		case !atPostfix:
		case len(e.LocalPorts)+len(e.ServerNames) > 0:
			warn(i, "not_at_postfix", "Postfix tells neither the port nor the name that a client asked for, so that no client of its listeners is of this type by it. "+
				`Give the listener a service name (master.cf: -o smtpd_sasl_service=submission587; [login] of the settings: services = {"submission587" = "smtp"}) `+
				"and add an evidence with services in place of local_ports and server_names")
		case e.ClientCert != "":
			warn(i, "not_at_postfix", "Postfix tells nothing of a client's certificate, so that no client of its listeners is of this type by it: add an evidence with networks")
		}
		if e.ClientCert != "" && e.ClientCert != certificateValid {
			warn(i, "certificate_not_told", "Dovecot 2.3 tells of a certificate that it verified only that it is %s: say that in client_cert, unless the logins come by POST /v1/login with what is there", certificateValid)
		}
	}
	return list
}

func deleteClientType(c *call) (*answer, error) {
	name := access.ClientType(c.r.PathValue("type"))
	ans := &answer{}
	err := c.change(store.Global, func(ch *store.Change) error {
		cur, ok := c.Store.State.ClientType(name)
		if !ok {
			return api.NotFound("client type with evidence")
		}
		if err := c.match(true, cur.Rev); err != nil {
			return err
		}
		if n := c.policiesNaming(name); n > 0 && !slices.Contains(access.KnownClientTypes[:], name) && !c.flag("confirm") {
			p := api.Conflict("in_use", "policies name this type of the site's own, and what they select of it they would not any more: take it out of them first, or repeat with ?confirm=true")
			p.Referrers = map[string]int{"policies": n}
			return p
		}
		ans.body = viewClientType(cur.Doc)
		audit(ch, "client_type.delete", "", string(name))
		ch.Diff(cur.Doc, nil)
		ch.DeleteClientType(name)
		return nil
	})
	return ans, err
}

// policiesNaming counts the policies of all domains that select a client type by its name.
func (c *call) policiesNaming(name access.ClientType) (n int) {
	for _, d := range c.Store.State.Domains("", 0) {
		for _, p := range c.Store.State.Policies(d.Doc.Name) {
			if slices.Contains(p.Doc.Clients, name) {
				n++
			}
		}
	}
	return n
}
