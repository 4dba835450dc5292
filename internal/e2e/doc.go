// Package e2e holds the end-to-end tests: what Drawbridge promises, seen by mail clients of a real
// Dovecot, Postfix and Redis, and by administrators through the API and the command. Nothing is
// exported.
package e2e
