// Package rest is the HTTP and JSON machinery of an API whose operations are a table: it decodes
// and validates bodies and queries, describes the operations as OpenAPI, responds with JSON,
// problems and streams, and limits how much runs at the same time. It knows no store and no
// operation.
//
// Bodies are parsed into nodes whose scalars are slices of the body, so that a secret is not
// copied. Schemas made from Go types validate them and are the documentation too. All faults of a
// request are collected (see [api.Faults]) and refused together.
package rest
