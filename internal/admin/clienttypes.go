package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// maxClientType is the length of the name of a client type, in characters.
	maxClientType = 40
	// certificateValid is what Dovecot 2.3 reports about any certificate that it verified.
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

// ClientTypes returns one page of the client types that have evidence.
func (r *Request) ClientTypes(p Page) (*api.List[api.ClientType], error) {
	if err := r.Caller.May(ForRead); err != nil {
		return nil, err
	}
	return PageOf(p, r.Store.State.ClientTypes(), func(t *store.ClientType) string { return string(t.Type) }, viewClientType)
}

// ClientType returns a client type that has evidence.
func (r *Request) ClientType(name string) (*Result[api.ClientType], error) {
	if err := r.Caller.May(ForRead); err != nil {
		return nil, err
	}
	t, ok := r.Store.State.ClientType(access.ClientType(name))
	if !ok {
		return nil, api.NotFound("client type with evidence")
	}
	return &Result[api.ClientType]{View: viewClientType(t.Doc), Rev: t.Rev}, nil
}

// PutClientType creates or replaces the evidence of a client type.
func (r *Request) PutClientType(ctx context.Context, name string, in *api.ClientType, f *api.Faults) (*Result[api.ClientType], error) {
	next := readClientType(name, in, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	res := &Result[api.ClientType]{View: viewClientType(next)}
	res.View.Warnings = r.evidenceWarnings(next.Evidence)
	err := r.change(ctx, ForAdmin, store.Global, func(ch *store.Change) error {
		cur, exists := r.Store.State.ClientType(next.Type)
		if err := r.Match(exists, cur.Rev); err != nil {
			return err
		}
		res.Created, res.Rev = !exists, ch.Rev
		if exists && Same(cur.Doc, next) {
			res.Rev = cur.Rev
			return nil
		}
		Describe(ch, "client_type.update", "", name)
		if !exists {
			Describe(ch, "client_type.create", "", name)
		}
		ch.Diff(cur.Doc, next)
		ch.PutClientType(next)
		return nil
	})
	return res, err
}

func readClientType(name string, in *api.ClientType, f *api.Faults) *store.ClientType {
	switch {
	case name == string(access.ClientThirdParty):
		f.Parameter("type", "conflict", "third-party is the type of clients without evidence: it can have none")
	case name == "" || len(name) > maxClientType || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "":
		f.Parameter("type", "invalid_name", "must be 1 to %d lower-case letters, digits and hyphens", maxClientType)
	case in.Type != "" && in.Type != name:
		f.Add("/type", "conflict", "is not the one in the URL")
	}
	next := &store.ClientType{Type: access.ClientType(name), Evidence: []access.Evidence{}}
	for i, e := range in.Evidence {
		pointer := api.At("/evidence", i)
		evidence := readEvidence(&e, pointer, f)
		if !evidence.Proves() && !f.Has(pointer+"/networks") {
			next.Unproven = true
			if !in.Unproven {
				f.Add(pointer, "proves_nothing", `has neither networks nor client_cert, so that any client can claim this type: add one of them, or accept it with "unproven":true`)
			}
		}
		next.Evidence = append(next.Evidence, evidence)
	}
	if len(in.Evidence) == 0 {
		f.Add("/evidence", "required", "is empty, so that no client would be of this type: add evidence, or delete the type")
	}
	return next
}

// readEvidence validates one piece of evidence.
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
		f.Add(pointer, "required", "is empty and would never match: leave it out, or name networks or a client certificate")
	}
	evidence := access.Evidence{Networks: list(e.Networks), ClientCert: e.ClientCert, ServerNames: list(e.ServerNames), LocalPorts: []uint16{}, Services: list(e.Services)}
	for _, p := range e.LocalPorts {
		evidence.LocalPorts = append(evidence.LocalPorts, uint16(p)) //nolint:gosec // the schema bounds it
	}
	return evidence
}

// evidenceWarnings reports evidence that the mail servers do not pass on, so that it never matches.
func (r *Request) evidenceWarnings(evidence []access.Evidence) []api.Warning {
	var list []api.Warning
	warn := func(i int, code, format string, args ...any) {
		list = append(list, api.Warning{Code: code, Detail: fmt.Sprintf("Evidence %d: ", i+1) + fmt.Sprintf(format, args...)})
	}
	for i := range evidence {
		e := &evidence[i]
		atPostfix := len(e.Services) == 0
		for _, service := range e.Services {
			switch access.ProtocolOfService(service, r.Services) {
			case 0:
				warn(i, "unmapped_service", "the service %s is mapped to no protocol, so that its logins are refused: add it to services in [login] of the settings", service)
			case access.SMTP:
				atPostfix = atPostfix || service != "submission" // which is Dovecot's own
			case access.IMAP, access.POP3, access.Sieve, access.Web:
			}
		}
		switch {
		case !atPostfix:
		case len(e.LocalPorts)+len(e.ServerNames) > 0:
			warn(i, "not_at_postfix", "Postfix reports neither the port nor the server name that a client requested, so that this evidence never matches at its listeners. "+
				`Give the listener a service name (master.cf: -o smtpd_sasl_service=submission587; [login] of the settings: services = {"submission587" = "smtp"}) `+
				"and add evidence with services in place of local_ports and server_names")
		case e.ClientCert != "":
			warn(i, "not_at_postfix", "Postfix does not report client certificates, so that this evidence never matches at its listeners: add evidence with networks")
		}
		if e.ClientCert != "" && e.ClientCert != certificateValid {
			warn(i, "certificate_not_reported", "Dovecot 2.3 reports of a verified certificate only that it is %s: use that in client_cert, unless the logins come through the API with this value", certificateValid)
		}
	}
	return list
}

// DeleteClientType deletes the evidence of a client type and returns its last state.
func (r *Request) DeleteClientType(ctx context.Context, name string) (*Result[api.ClientType], error) {
	t := access.ClientType(name)
	res := &Result[api.ClientType]{}
	err := r.change(ctx, ForAdmin, store.Global, func(ch *store.Change) error {
		cur, ok := r.Store.State.ClientType(t)
		if err := r.Existing(ok, cur.Rev, "client type with evidence"); err != nil {
			return err
		}
		if n := r.policiesNaming(t); n > 0 && !slices.Contains(access.KnownClientTypes[:], t) && !r.Confirm {
			p := api.Conflict("in_use", "policies select this client type, and would match nothing in its place: remove it from them first").OrRepeat("confirm=true")
			p.Referrers = map[string]int{"policies": n}
			return p
		}
		res.View = viewClientType(cur.Doc)
		Describe(ch, "client_type.delete", "", name)
		ch.Diff(cur.Doc, nil)
		ch.DeleteClientType(t)
		return nil
	})
	return res, err
}

// policiesNaming counts the policies of all domains that select a client type.
func (r *Request) policiesNaming(name access.ClientType) (n int) {
	for _, d := range r.Store.State.Domains("", 0) {
		for _, p := range r.Store.State.Policies(d.Doc.Name) {
			if slices.Contains(p.Doc.Clients, name) {
				n++
			}
		}
	}
	return n
}

// clientTypes returns the known client types and those of the site.
func (r *Request) clientTypes() []access.ClientType {
	known := slices.Clone(access.KnownClientTypes[:])
	for _, t := range r.Store.State.ClientTypes() {
		if !slices.Contains(known, t.Doc.Type) {
			known = append(known, t.Doc.Type)
		}
	}
	return known
}

func texts(types []access.ClientType) []string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = string(t)
	}
	return names
}
