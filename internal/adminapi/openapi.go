package adminapi

import (
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/drawbridge/drawbridge/internal/api"
)

var pathParameter = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

// openAPI documents the operations, OpenAPI 3.1.
func (s *server) openAPI(ops []operation) *huma.OpenAPI {
	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Drawbridge", Version: orUnknown(s.Version),
			Description: "Rules, credentials and records of who may log in to mail. Errors are RFC 9457 problem documents with a stable code.",
		},
		Servers: []*huma.Server{{URL: "/"}},
		Components: &huma.Components{
			Schemas: s.schemas.Registry,
			SecuritySchemes: map[string]*huma.SecurityScheme{
				"key": {Type: "http", Scheme: "bearer", Description: "An API key. On the unix socket, root and the daemon's own user need none."},
			},
		},
		Security: []map[string][]string{{"key": {}}},
	}
	problem := s.schemas.of(reflect.TypeFor[api.Problem]())
	seen := map[reflect.Type]bool{}
	s.schemas.settle(reflect.TypeFor[api.Problem](), seen)
	for i := range ops {
		op := &ops[i]
		o := &huma.Operation{
			Method: op.method, Path: pathParameter.ReplaceAllString(op.path, "{$1}"), OperationID: op.id, Summary: op.summary,
			Responses: map[string]*huma.Response{
				"default": {Description: "Refused", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}},
			},
		}
		if op.roles&forAnyone != 0 {
			o.Security = []map[string][]string{{}}
		} else {
			o.Description = "Roles: " + op.roles.String() + "."
		}
		o.Parameters = s.documentParameters(op)
		switch {
		case op.csv():
			o.RequestBody = &huma.RequestBody{
				Required: true,
				Description: "A header line names the columns: address, departments, aliases (several separated by semicolons), imap, pop3, smtp, sieve, " +
					"suspended (true or false, empty to inherit), preset, secure_passwords. What has no column stays as it is. At most 16 MiB and 100 000 accounts.",
				Content: map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}},
			}
		case op.in != nil:
			t := reflect.TypeOf(op.in)
			schema := s.schemas.of(t)
			s.schemas.settle(t, seen)
			content := map[string]*huma.MediaType{"application/json": {Schema: schema}}
			if op.method == http.MethodPatch {
				// The resource's schema holds for what the patch makes of it; the patch may leave
				// out anything.
				content = map[string]*huma.MediaType{"application/merge-patch+json": {Schema: &huma.Schema{Type: huma.TypeObject, Description: "RFC 7396, over " + t.Name() + "."}}}
			}
			o.RequestBody = &huma.RequestBody{Required: true, Content: content}
			if op.large {
				o.RequestBody.Description = "At most 16 MiB."
			}
		}
		s.documentAnswer(op, o, seen)
		doc.AddOperation(o)
	}
	return doc
}

func (s *server) documentParameters(op *operation) []*huma.Param {
	var list []*huma.Param
	text := func() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }
	for _, m := range pathParameter.FindAllStringSubmatch(op.path, -1) {
		p := &huma.Param{Name: m[1], In: "path", Required: true, Schema: text()}
		if m[2] != "" {
			p.Description, p.AllowReserved = "May hold slashes.", true
		}
		list = append(list, p)
	}
	for _, name := range op.parameters() {
		known := parameter(name)
		schema := text()
		switch known.kind {
		case paramFlag:
			schema.Type = huma.TypeBoolean
		case paramLimit:
			low, high := 1.0, float64(maxLimit)
			schema = &huma.Schema{Type: huma.TypeInteger, Minimum: &low, Maximum: &high}
		case paramTime:
			schema.Format = "date-time"
		case paramIP:
			schema.Format = "ip"
		case paramSpan, paramText:
			for _, word := range known.enum {
				schema.Enum = append(schema.Enum, word)
			}
		}
		list = append(list, &huma.Param{Name: name, In: "query", Description: known.doc, Schema: schema})
	}
	if op.serve != nil && op.method != http.MethodGet {
		list = append(list, &huma.Param{Name: "If-Match", In: "header", Description: "Only if the resource's ETag is this.", Schema: text()})
	}
	return list
}

func (s *server) documentAnswer(op *operation, o *huma.Operation, seen map[reflect.Type]bool) {
	status := op.status()
	r := &huma.Response{Description: http.StatusText(status)}
	if op.out != nil {
		t := reflect.TypeOf(op.out)
		kind := "application/json"
		if t.Kind() == reflect.String {
			kind = "text/plain"
		}
		r.Content = map[string]*huma.MediaType{kind: {Schema: s.schemas.of(t)}}
		s.schemas.settle(t, seen)
	}
	if slices.Contains(op.query, "revert_after") {
		r.Headers = map[string]*huma.Param{
			"Revert": {Description: "With revert_after: what is to be confirmed, by POST to /confirm below it.", Schema: &huma.Schema{Type: huma.TypeString}},
		}
	}
	if op.line != nil {
		t := reflect.TypeOf(op.line)
		r.Content[linesType] = &huma.MediaType{Schema: s.schemas.of(t)}
		s.schemas.settle(t, seen)
	}
	o.Responses[strconv.Itoa(status)] = r
	if op.method == http.MethodPut && strings.HasSuffix(op.path, "}") || op.id == "patch-account" { // these create as well
		o.Responses["201"] = &huma.Response{Description: "Created", Content: r.Content}
	}
	if op.id == "readyz" {
		o.Responses["503"] = &huma.Response{Description: "Decisions are not possible", Content: r.Content}
	}
}

// String names the roles, admin first.
func (r roles) String() string {
	names := []string{"admin"}
	for _, x := range []struct {
		role roles
		name string
	}{{forRead, "read"}, {forLogin, "login"}, {forDomain, "domain"}, {forSelf, "self"}} {
		if r&x.role != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ", ")
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}
