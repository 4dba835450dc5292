package loginapi

import (
	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
)

// Hypothetical reads the login of a policy test as POST /v1/login reads a real one. It adds faults
// under /login.
func Hypothetical(in *api.HypotheticalLogin, f *api.Faults) *access.Login {
	if in == nil { // reported by the schema
		return nil
	}
	r := Request{
		Account: in.Account, Service: in.Service, Protocol: in.Protocol, IP: in.IP, RealIP: in.RealIP, LocalIP: in.LocalIP,
		LocalPort:  uint16(in.LocalPort), //nolint:gosec // the schema bounds it
		ServerName: in.ServerName, TLS: in.TLS, ClientCert: in.ClientCert, Mechanism: in.Mechanism, Session: in.Session,
		MasterUser: in.MasterUser, Lookup: in.Lookup, ClientID: in.ClientID,
	}
	under := f.Under
	f.Under += "/login"
	defer func() { f.Under = under }()
	return r.Login(f)
}
