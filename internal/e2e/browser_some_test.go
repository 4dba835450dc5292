//go:build !pages

package e2e

// allPages: every page is inspected in the browser, and not only some.
const allPages = false
