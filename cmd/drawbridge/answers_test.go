package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
)

// answers maps operations to the type of their response. A script whose response has a field that
// the API does not have, or a field of another type, fails: handwritten responses cannot drift.
var answers = routesOf(map[string]any{
	"GET /v1/domains":                                      api.List[api.Domain]{},
	"POST /v1/domains":                                     api.Domain{},
	"/v1/domains/{domain}":                                 api.Domain{},
	"GET /v1/domains/{domain}/export":                      api.DomainDocument{},
	"POST /v1/domains/{domain}/apply":                      api.Plan{},
	"/v1/domains/{domain}/third-party-access":              api.ThirdPartyAccess{},
	"/v1/domains/{domain}/secure-password-policy":          api.SecurePasswordPolicy{},
	"/v1/domains/{domain}/secure-password-policy/progress": api.EnforcementProgress{},
	"GET /v1/domains/{domain}/policies":                    api.List[api.Policy]{},
	"POST /v1/domains/{domain}/policies":                   api.Policy{},
	"POST /v1/domains/{domain}/policies/test":              api.PolicyTested{},
	"POST /v1/domains/{domain}/policies/preview":           api.PolicyPreviewLine{},
	"POST /v1/domains/{domain}/policies/migrate":           api.Migrated{},
	"/v1/domains/{domain}/policies/{id}":                   api.Policy{},
	"POST /v1/domains/{domain}/policies/{id}/test":         api.PolicyTested{},
	"GET /v1/domains/{domain}/ip-blocks":                   api.List[api.IPBlock]{},
	"POST /v1/domains/{domain}/ip-blocks":                  api.IPBlock{},
	"DELETE /v1/domains/{domain}/ip-blocks/{id}":           api.IPBlock{},
	"GET /v1/domains/{domain}/reverts":                     api.List[api.Revert]{},
	"/v1/domains/{domain}/reverts/{id}":                    api.Revert{},
	"POST /v1/domains/{domain}/reverts/{id}/confirm":       api.Revert{},
	"GET /v1/domains/{domain}/departments":                 api.List[api.Department]{},
	"/v1/domains/{domain}/departments/{path...}":           api.Department{},
	"GET /v1/domains/{domain}/accounts":                    api.List[api.Account]{},
	"POST /v1/domains/{domain}/accounts/batch":             api.BatchLine{},
	"POST /v1/domains/{domain}/accounts/import":            api.ImportResult{},
	"/v1/accounts/{address}":                               api.Account{},
	"GET /v1/accounts/{address}/effective":                 api.Effective{},
	"PUT /v1/accounts/{address}/mailbox-password":          api.MailboxPasswordSet{},
	"GET /v1/accounts/{address}/secure-passwords":          api.List[api.SecurePassword]{},
	"POST /v1/accounts/{address}/secure-passwords":         api.CreatedSecurePassword{},
	"/v1/accounts/{address}/secure-passwords/{id}":         api.SecurePassword{},
	"GET /v1/domains/{domain}/logins":                      api.List[api.LoginRecord]{},
	"GET /v1/domains/{domain}/logins/{id}":                 api.LoginRecord{},
	"GET /v1/domains/{domain}/logins/{id}/explain":         api.ExplainedLogin{},
	"GET /v1/domains/{domain}/sessions":                    api.Sessions{},
	"GET /v1/accounts/{address}/sessions":                  api.Sessions{},
	"POST /v1/accounts/{address}/secure":                   api.Secured{},
	"POST /v1/domains/{domain}/logins/{id}/it-was-me":      api.LoginRecord{},
	"GET /v1/domains/{domain}/inspection":                  api.Inspection{},
	"POST /v1/domains/{domain}/inspection/reclaim":         api.Reclaimed{},
	"POST /v1/domains/{domain}/withdraw":                   api.Withdrawn{},
	"GET /v1/domains/{domain}/logins/export":               nil,
	"GET /v1/throttle":                                     api.Throttle{},
	"DELETE /v1/sessions/{id}":                             api.Session{},
	"GET /v1/audit":                                        api.List[api.AuditEntry]{},
	"GET /v1/audit/verify":                                 api.AuditVerification{},
	"GET /v1/audit/export":                                 api.AuditExportLine{},
	"GET /v1/client-types":                                 api.List[api.ClientType]{},
	"/v1/client-types/{type}":                              api.ClientType{},
	"GET /v1/keys":                                         api.List[api.Key]{},
	"POST /v1/keys":                                        api.CreatedKey{},
	"DELETE /v1/keys/{id}":                                 api.Key{},
	"GET /v1/regions":                                      api.RegionStatus{},
	"GET /v1/regions/codes":                                api.List[api.Region]{},
	"GET /v1/regions/{ip}":                                 api.AddressRegion{},
	"/v1/store":                                            api.StoreStatus{},
	"POST /v1/store/adopt":                                 api.StoreStatus{},
	"POST /v1/login":                                       access.Decision{},
	"POST /v1/domains/{domain}/mail-rules":                 api.MailRule{},
	"/v1/domains/{domain}/mail-rules/{id}":                 api.MailRule{},
	"GET /v1/domains/{domain}/mail-rules":                  api.List[api.MailRule]{},
	"POST /v1/domains/{domain}/mail-rules/test":            api.MailDecision{},
	"POST /v1/domains/{domain}/mail-rules/preview":         api.MailRulePreviewed{},
	"POST /v1/domains/{domain}/mail-rules/{id}/test":       api.MailDecision{},
	"GET /v1/domains/{domain}/groups":                      api.List[api.Group]{},
	"/v1/groups/{address}":                                 api.Group{},
	"GET /v1/domains/{domain}/held":                        api.List[api.Held]{},
	"/v1/held/{id}":                                        api.Held{},
	"POST /v1/held/{id}/approve":                           api.Held{},
	"POST /v1/held/{id}/reject":                            api.Held{},
	"GET /v1/domains/{domain}/suspensions":                 api.List[api.Suspension]{},
	"DELETE /v1/domains/{domain}/suspensions/{id}":         nil,
	"GET /v1/domains/{domain}/messages":                    api.List[api.MessageRecord]{},
	"GET /v1/domains/{domain}/messages/explain":            api.ExplainedMessages{},
	"POST /v1/store/backup":                                api.StoreBackupLine{},
	"POST /v1/store/restore":                               api.StoreRestored{},
	"GET /livez":                                           api.Health{},
	"GET /readyz":                                          api.Health{},
	"GET /metrics":                                         nil,
	"GET /openapi.json":                                    nil,
	"GET /v1/domains/{domain}/inspection/report":           api.InspectionReport{},
})

type routes struct {
	*http.ServeMux
	types map[string]reflect.Type
}

func routesOf(table map[string]any) routes {
	r := routes{http.NewServeMux(), map[string]reflect.Type{}}
	for pattern, v := range table {
		r.HandleFunc(pattern, func(http.ResponseWriter, *http.Request) {})
		r.types[pattern] = reflect.TypeOf(v)
	}
	return r
}

// check decodes the response of a script strictly into the type that the API answers. A response
// with a Server header or HTML, which Drawbridge never sends, plays another server.
func (r routes) check(s *step) error {
	if strings.TrimSpace(s.content) == "" || s.answer.Get("Server") != "" || strings.HasPrefix(s.answer.Get("Content-Type"), "text/html") {
		return nil
	}
	method, target, _ := strings.Cut(s.request, " ")
	req, err := http.NewRequest(method, target, nil)
	if err != nil {
		return err
	}
	_, pattern := r.Handler(req)
	t := r.types[pattern]
	switch {
	case s.status >= http.StatusBadRequest && pattern != "GET /readyz":
		t = reflect.TypeFor[api.Problem]()
	case pattern == "":
		return fmt.Errorf("%s: the API has no such operation", s.request)
	case t == nil:
		return nil
	}
	d := json.NewDecoder(bytes.NewReader([]byte(s.content)))
	d.DisallowUnknownFields()
	for {
		if err := d.Decode(reflect.New(t).Interface()); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("the response to %s is not one of the API's: %w", s.request, err)
		}
	}
}
