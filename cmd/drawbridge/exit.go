package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// The exit statuses, of sysexits.h.
const (
	exitUsage       = 64
	exitInvalid     = 65
	exitNotFound    = 66
	exitUnreachable = 69
	exitInternal    = 70
	exitConflict    = 73
	exitTryLater    = 75
	exitNotAllowed  = 77
)

// statusOf is the one table that turns the API's refusals into exit statuses.
func statusOf(httpStatus int) int {
	switch httpStatus {
	case http.StatusBadRequest, http.StatusUnprocessableEntity:
		return exitInvalid
	case http.StatusUnauthorized, http.StatusForbidden:
		return exitNotAllowed
	case http.StatusNotFound:
		return exitNotFound
	case http.StatusConflict, http.StatusPreconditionFailed:
		return exitConflict
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		return exitTryLater
	default:
		return exitInternal
	}
}

// ender is an error of a command that has exit statuses of its own, such as doctor.
type ender interface {
	error
	ExitStatus() int
}

// invalidError is something invalid that the command itself found.
type invalidError struct{ error }

// ExitStatus implements ender.
func (invalidError) ExitStatus() int { return exitInvalid }

func invalid(format string, args ...any) error { return invalidError{fmt.Errorf(format, args...)} }

// report prints an error and returns the exit status.
func (c *cli) report(cmd *cobra.Command, err error) int {
	if err == nil {
		return 0
	}
	out := cmd.ErrOrStderr()
	problem, argument := new(adminclient.Problem), new(adminclient.ArgumentError)
	unreachable := new(adminclient.UnreachableError)
	var end ender
	switch {
	case errors.As(err, &end):
		c.printError(out, "failed", err.Error())
		return end.ExitStatus()
	case errors.As(err, &problem):
		c.printProblem(cmd, out, problem)
		return statusOf(problem.Status)
	case errors.As(err, new(usageError)), errors.As(err, &argument), !c.started:
		c.printError(out, "usage", err.Error())
		return exitUsage
	case errors.Is(err, context.Canceled):
		c.printError(out, "interrupted", "interrupted: a change may already have been made")
		return exitInternal
	case errors.As(err, &unreachable):
		c.printError(out, "unreachable", err.Error())
		return exitUnreachable
	default:
		c.printError(out, "internal", err.Error())
		return exitInternal
	}
}

func (c *cli) printProblem(cmd *cobra.Command, out io.Writer, p *adminclient.Problem) {
	code := p.Code
	switch {
	case code == "":
		code = "internal"
	case c.output == outputJSON && len(p.Body) > 0:
		_ = printJSON(out, p.Body) // nowhere to report a failing standard error
		return
	}
	for _, f := range p.Errors {
		c.printError(out, code, faultText(cmd, f))
	}
	if len(p.Errors) > 0 {
		return
	}
	if code == "lockout" && c.printLockout(out, &p.Problem) {
		return
	}
	if p.Status == http.StatusPreconditionFailed && (p.Detail == "" || strings.Contains(p.Detail, "If-Match")) {
		p.Detail = "somebody else changed it meanwhile: look at it again, then repeat the command"
	}
	text := p.Error()
	if p.Status == http.StatusNotFound {
		text = named(cmd, text)
	}
	if len(p.RepeatWith) > 0 {
		text = strings.TrimSuffix(text, ".") + "; to go ahead, repeat with " + flagsOf(cmd, p.RepeatWith)
	}
	if hint := hintOf(p); hint != "" {
		text += ": " + hint
	}
	c.printError(out, code, text)
}

// named puts the last argument of a command before a text that names no argument: what was not found.
func named(cmd *cobra.Command, text string) string {
	args := cmd.Flags().Args()
	if strings.HasSuffix(cmd.Use, " CODE") { // a secret
		args = args[:len(args)-1]
	}
	if cmd.Name() == "api" || len(args) == 0 || slices.ContainsFunc(args, func(arg string) bool { return strings.Contains(text, arg) }) {
		return text
	}
	return args[len(args)-1] + ": " + text
}

// flagsOf returns the flags for parameters of the API: "--confirm, or with --revert-after=10m".
func flagsOf(cmd *cobra.Command, parameters []string) string {
	flags := make([]string, len(parameters))
	for i, p := range parameters {
		flag := strings.ReplaceAll(strings.TrimSuffix(p, "=true"), "_", "-")
		without, no := strings.CutSuffix(flag, "=false")
		switch {
		case cmd.Name() == "api": // a user of the API's paths reads its names
			flags[i] = "?" + p
		case no:
			flags[i] = "--no-" + without
		default:
			flags[i] = "--" + flag
		}
	}
	return strings.Join(flags, ", or with ")
}

// hintOf says what to do about a refusal in this command's own words.
func hintOf(p *adminclient.Problem) string {
	switch {
	case p.Status == http.StatusUnauthorized:
		return "give the file of an API key with --key-file"
	case p.RetryAfter != "":
		return "try again in " + p.RetryAfter + " s"
	}
	return ""
}

// printError prints one line. With -o json it has the form of a problem document.
func (c *cli) printError(out io.Writer, code, text string) {
	if c.output != outputJSON {
		_, _ = fmt.Fprintf(out, "drawbridge: %s\n", printable(text))
		return
	}
	doc, err := json.Marshal(map[string]string{"code": code, "detail": text})
	if err == nil {
		_, _ = fmt.Fprintf(out, "%s\n", printableJSON(doc))
	}
}

// note prints a remark for people on standard error; with -o json it prints nothing.
func (c *cli) note(cmd *cobra.Command, format string, args ...any) {
	if c.output == outputTable {
		_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "drawbridge: %s\n", printable(fmt.Sprintf(format, args...)))
	}
}
