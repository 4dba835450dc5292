package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// status runs drawbridge at the first daemon and returns its exit status and both outputs.
func (s *site) status(args ...string) (status int, stdout, stderr string) {
	s.t.Helper()
	cmd := s.Daemons[0].Command(s.ctx, args...)
	var out, errs strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		s.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// F32: a domain is a file.
func TestRulesAsCode(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	pw := s.passwords[ann]
	s.want("before", s.imap(outside, ann, pw), "OK ")
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		s.must(os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	status, exported, errs := s.status("export", "example.org")
	if status != 0 || !strings.Contains(exported, "\npolicies:\n") {
		t.Fatalf("export: %d %s %s", status, exported, errs)
	}
	// Readers of YAML 1.1 take bare words such as "no" for other types: exported texts are quoted.
	odd := []string{"no", "on", "0o17", "1_0", "12:30", "1e3", "~", "2026-01-01", "=", "0x1f"}
	for i, name := range odd {
		s.api("PUT", fmt.Sprintf("/v1/domains/example.org/departments/d%d", i), object{"name": name})
	}
	status, exported, errs = s.status("export", "example.org")
	if status != 0 {
		t.Fatalf("export: %d %s", status, errs)
	}
	reader := exec.CommandContext(s.ctx, "python3", "-c", `import json, sys, yaml
for d in yaml.safe_load(sys.stdin)["departments"]: print(json.dumps(d["name"]))`)
	reader.Stdin = strings.NewReader(exported)
	names, err := reader.CombinedOutput()
	if want := `"` + strings.Join(odd, "\"\n\"") + "\"\n"; err != nil || string(names) != want {
		t.Errorf("PyYAML (Debian package python3-yaml) reads %s %v, want %s", names, err, want)
	}
	old := write("old.yaml", exported)
	edited := write("edited.yaml", strings.Replace(exported, "\npolicies:\n", `
policies:
- id: office
  name: Only from the office
  type: whitelist
  scope: {all: true}
  ips: [127.0.1.0/24]
`, 1))

	if status, _, errs := s.status("apply", edited); status != 73 || !strings.Contains(errs, ann) {
		t.Errorf("it locks out who has just come in, and is not refused: %d %s", status, errs)
	}
	if status, plan, errs := s.status("apply", edited, "--confirm", "--dry-run"); status != 0 || plan != "+ policy  office\n" {
		t.Errorf("the plan: %d %q %s", status, plan, errs)
	}
	s.want("a plan changes nothing", s.imap(outside, ann, pw), "OK ")
	open, r := s.submit(outside, ann, pw)
	s.want("auth", r, "235 ")
	if status, plan, errs := s.status("apply", edited, "--confirm"); status != 0 || plan != "+ policy  office\n" {
		t.Errorf("apply: %d %q %s", status, plan, errs)
	}
	s.refuse("from outside", s.imap(outside, ann, pw), "OK ")
	s.want("from the office", s.imap(office, ann, pw), "OK ")
	r, err = open.Mail(ann)
	if err == nil && strings.HasPrefix(r, "250 ") {
		r, err = open.Recipient(bob)
	}
	s.must(err)
	s.want("an open session from outside", r, "554 5.7.1 ")

	if status, _, errs := s.status("apply", old); status != 73 || !strings.Contains(errs, "policies: was changed in the domain") {
		t.Errorf("the old file: %d %s", status, errs)
	}
	s.refuse("the old file undid nothing", s.imap(outside, ann, pw), "OK ")
	if status, plan, errs := s.status("apply", edited); status != 0 || plan != "" {
		t.Errorf("once more: %d %q %s", status, plan, errs)
	}
	// Whoever means it takes the revision out.
	_, rest, _ := strings.Cut(exported, "\nrevision: ")
	_, rest, _ = strings.Cut(rest, "\n")
	if status, plan, errs := s.status("apply", write("old.yaml", rest)); status != 0 || plan != "- policy  office\n" {
		t.Errorf("the old file without its revision: %d %q %s", status, plan, errs)
	}
	s.want("as it was", s.imap(outside, ann, pw), "OK ")
}
