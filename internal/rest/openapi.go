package rest

import (
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/drawbridge/drawbridge/internal/api"
)

// document makes an OpenAPI document.
type document struct {
	schemas Schemas
	params  Params
}

var pathParameter = regexp.MustCompile(`\{(\w+)(\.\.\.)?\}`)

// Document describes operations as OpenAPI 3.1, and completes the schemas of their types.
func Document(ops []*Operation, params Params, schemas Schemas, version string) any {
	s := document{schemas, params}

	doc := &huma.OpenAPI{
		OpenAPI: "3.1.0",
		Info: &huma.Info{
			Title: "Drawbridge", Version: version,
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
	problem := s.schemas.Of(reflect.TypeFor[api.Problem]())
	seen := map[reflect.Type]bool{}
	s.schemas.settle(reflect.TypeFor[api.Problem](), seen)
	for _, op := range ops {
		o := &huma.Operation{
			Method: op.Method, Path: pathParameter.ReplaceAllString(op.Path, "{$1}"), OperationID: op.ID, Summary: op.Summary, Description: op.Description,
			Responses: map[string]*huma.Response{
				"default": {Description: "Refused", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: problem}}},
			},
		}
		if op.Public {
			o.Security = []map[string][]string{{}}
		}
		o.Parameters = s.parameters(op)
		switch {
		case op.CSV():
			o.RequestBody = &huma.RequestBody{
				Required:    true,
				Description: op.InDoc,
				Content:     map[string]*huma.MediaType{"text/csv": {Schema: &huma.Schema{Type: huma.TypeString}}},
			}
		case op.In != nil:
			t := reflect.TypeOf(op.In)
			schema := s.schemas.Of(t)
			s.schemas.settle(t, seen)
			content := map[string]*huma.MediaType{"application/json": {Schema: schema}}
			if op.Method == http.MethodPatch {
				// The resource's schema applies to the patched resource; the patch may omit
				// any part of it.
				content = map[string]*huma.MediaType{"application/merge-patch+json": {Schema: &huma.Schema{Type: huma.TypeObject, Description: "RFC 7396, over " + t.Name() + "."}}}
			}
			o.RequestBody = &huma.RequestBody{Required: true, Content: content}
			if op.Large {
				o.RequestBody.Description = "At most 16 MiB."
			}
		}
		s.answer(op, o, seen)
		doc.AddOperation(o)
	}
	return doc
}

func (s *document) parameters(op *Operation) []*huma.Param {
	var list []*huma.Param
	text := func() *huma.Schema { return &huma.Schema{Type: huma.TypeString} }
	for _, m := range pathParameter.FindAllStringSubmatch(op.Path, -1) {
		p := &huma.Param{Name: m[1], In: "path", Required: true, Schema: text()}
		if m[2] != "" {
			p.Description, p.AllowReserved = "May hold slashes.", true
		}
		list = append(list, p)
	}
	for _, name := range op.Parameters() {
		known := s.params(name)
		schema := text()
		switch known.Kind {
		case Flag:
			schema.Type = huma.TypeBoolean
		case Limit:
			low, high := 1.0, float64(MaxLimit)
			schema = &huma.Schema{Type: huma.TypeInteger, Minimum: &low, Maximum: &high}
		case Time:
			schema.Format = "date-time"
		case IP:
			schema.Format = "ip"
		case Span, Text:
			for _, word := range known.Enum {
				schema.Enum = append(schema.Enum, word)
			}
		}
		list = append(list, &huma.Param{Name: name, In: "query", Description: known.Doc, Schema: schema})
	}
	if !op.External && op.Method != http.MethodGet {
		list = append(list, &huma.Param{Name: "If-Match", In: "header", Description: "Only if the resource's ETag is this.", Schema: text()})
	}
	return list
}

func (s *document) answer(op *Operation, o *huma.Operation, seen map[reflect.Type]bool) {
	status := op.Status()
	r := &huma.Response{Description: http.StatusText(status)}
	if op.Out != nil {
		t := reflect.TypeOf(op.Out)
		kind := "application/json"
		if t.Kind() == reflect.String {
			kind = "text/plain"
		}
		r.Content = map[string]*huma.MediaType{kind: {Schema: s.schemas.Of(t)}}
		s.schemas.settle(t, seen)
	}
	for _, name := range op.Query {
		if p := s.params(name); p.Header != "" {
			r.Headers = map[string]*huma.Param{p.Header: {Description: p.HeaderDoc, Schema: &huma.Schema{Type: huma.TypeString}}}
		}
	}
	if op.Line != nil {
		t := reflect.TypeOf(op.Line)
		r.Content[LinesType] = &huma.MediaType{Schema: s.schemas.Of(t)}
		s.schemas.settle(t, seen)
	}
	o.Responses[strconv.Itoa(status)] = r
	if op.Method == http.MethodPut && strings.HasSuffix(op.Path, "}") || op.Creates {
		o.Responses["201"] = &huma.Response{Description: "Created", Content: r.Content}
	}
	if op.Unavailable {
		o.Responses["503"] = &huma.Response{Description: "Decisions are not possible", Content: r.Content}
	}
}
