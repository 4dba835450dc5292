package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Severity is the consequence of a finding.
type Severity uint8

// The severities, worst first: the zero Severity is Fail.
const (
	Fail Severity = iota // logins bypass the rules, or none succeeds
	Warn                 // works, but not as one would expect, or only as long as others behave
	OK                   // checked, no fault
)

// String returns "fail", "warn" or "ok".
func (s Severity) String() string {
	switch s {
	case OK:
		return "ok"
	case Warn:
		return "warn"
	case Fail:
	}
	return "fail"
}

// MarshalText writes s as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(text []byte) error {
	switch string(text) {
	case "ok":
		*s = OK
	case "warn":
		*s = Warn
	case "fail":
		*s = Fail
	default:
		return fmt.Errorf("read a severity: %q is none of ok, warn, fail", text)
	}
	return nil
}

// A Finding is the result of one check. It never contains a secret: neither the key of the
// auth-policy server nor the args of a passdb that is not ours.
type Finding struct {
	Check    string   `json:"check"` // stable identifier, such as "dovecot.passdb.first"
	Severity Severity `json:"severity"`
	Where    string   `json:"where"`         // file, section and setting; or the path of a socket
	What     string   `json:"what"`          // the fault and its consequence
	Fix      string   `json:"fix,omitempty"` // the exact lines to write, or the command to run
}

// packageProgram is there where the package is installed.
const packageProgram = "/usr/lib/drawbridge/" + programName

// packagePaths are those of contrib/packaging/build.sh, in the place of those of an installation
// from source.
var packagePaths = strings.NewReplacer(
	shippedPath, packageProgram,
	"/etc/dovecot/drawbridge.lua", "/usr/share/drawbridge/drawbridge.lua",
	"private/drawbridge-auth", "drawbridge/auth",
	"private/drawbridge-milter", "drawbridge/milter",
	"private/drawbridge", "drawbridge/policy",
	`next = "/var/spool/postfix/private/auth"`, `next = "/run/dovecot/auth-drawbridge"`,
)

// usePackagePaths writes the fixes as a site with the package has to.
func (f findings) usePackagePaths() {
	for i := range f {
		f[i].Fix = packagePaths.Replace(f[i].Fix)
	}
}

// findings collects the findings of a round of checks.
type findings []Finding

func (f *findings) ok(check, where, format string, args ...any) {
	*f = append(*f, Finding{Check: check, Severity: OK, Where: where, What: fmt.Sprintf(format, args...)})
}

func (f *findings) warn(check, where, fix, format string, args ...any) {
	*f = append(*f, Finding{Check: check, Severity: Warn, Where: where, What: fmt.Sprintf(format, args...), Fix: fix})
}

func (f *findings) fail(check, where, fix, format string, args ...any) {
	*f = append(*f, Finding{Check: check, Severity: Fail, Where: where, What: fmt.Sprintf(format, args...), Fix: fix})
}

func (f findings) count(s Severity) (n int) {
	for _, finding := range f {
		if finding.Severity == s {
			n++
		}
	}
	return n
}

func (f findings) writeJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(struct {
		Items    findings `json:"items"`
		Failures int      `json:"failures"`
		Warnings int      `json:"warnings"`
	}{append(findings{}, f...), f.count(Fail), f.count(Warn)})
}

// writeTable prints one line for each passed check, and a paragraph with its fix for each fault.
func (f findings) writeTable(w io.Writer) error {
	var b strings.Builder
	width := 0
	for _, x := range f {
		width = max(width, len(x.Check))
	}
	for _, x := range f {
		if x.Severity == OK {
			fmt.Fprintf(&b, "ok    %-*s  %s\n", width, x.Check, x.What)
			continue
		}
		fmt.Fprintf(&b, "%-4s  %-*s  %s\n      %s\n", strings.ToUpper(x.Severity.String()), width, x.Check, x.Where, x.What)
		if x.Fix != "" {
			fmt.Fprintf(&b, "          %s\n", strings.ReplaceAll(x.Fix, "\n", "\n          "))
		}
	}
	fmt.Fprintf(&b, "failed: %d, warnings: %d, passed: %d\n", f.count(Fail), f.count(Warn), f.count(OK))
	_, err := io.WriteString(w, b.String())
	return err
}
