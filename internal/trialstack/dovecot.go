package trialstack

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
)

// DovecotSeries returns the series of the installed Dovecot, "2.3" or "2.4". Their settings have
// different names; any other series is an error.
func DovecotSeries() (string, error) {
	out, err := exec.Command(dovecotProgram, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("read the version of %s: %w", dovecotProgram, err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	for _, series := range []string{"2.3", "2.4"} {
		if strings.HasPrefix(version, series+".") {
			return series, nil
		}
	}
	return "", fmt.Errorf("the installed Dovecot is %q: the trial stack needs 2.3 (Debian 12) or 2.4 (Debian 13 and later)", version)
}

// writeSnippet writes the shipped configuration of Drawbridge for the installed Dovecot, with the
// stack's paths and addresses.
func (s *Stack) writeSnippet(key, nonce string) error {
	first := s.Daemons[0]
	address := change{"http://127.0.0.1:8481/", "http://" + first.LoginAddr + "/"}
	scriptPath := s.path("etc", "drawbridge.lua")
	var conf, script string
	var err, scriptErr error
	switch {
	case s.opts.PolicyOnly && s.series == "2.3":
		conf, err = edit(dovecot.Policy23(), address)
	case s.opts.PolicyOnly:
		conf, err = edit(dovecot.Policy24(), address)
	case s.series == "2.4":
		conf, err = edit(dovecot.Conf24(), address, change{"lua_file = /etc/dovecot/drawbridge.lua", "lua_file = " + scriptPath})
	case s.opts.Lua:
		conf, err = edit(dovecot.Conf23(), address, change{"driver = checkpassword", "driver = lua"},
			change{"/usr/local/lib/drawbridge/drawbridge-checkpassword", "file=" + scriptPath})
	default:
		conf, err = edit(dovecot.Conf23(), address,
			change{"/usr/local/lib/drawbridge/drawbridge-checkpassword", s.path("bin", "drawbridge-checkpassword") + " -s " + first.LoginSocket})
	}
	lua := s.series == "2.4" || s.opts.Lua
	if lua && !s.opts.PolicyOnly {
		script, scriptErr = edit(dovecot.Script(), address, change{"/etc/dovecot/drawbridge.key", s.path("etc", "drawbridge.key")})
	}
	if s.opts.DoorAlone && err == nil {
		conf, err = s.doorAlone(conf)
	}
	if err := errors.Join(err, scriptErr); err != nil {
		return fmt.Errorf("write the snippet for Dovecot: %w", err)
	}
	keyConf := fmt.Sprintf("auth_policy_server_api_header = Authorization: Bearer %s\nauth_policy_hash_nonce = %s\n", key, nonce)
	faults := []error{
		writeFile(s.path("etc", "drawbridge.conf.ext"), 0o644, 0, []byte(conf)),
		writeFile(s.path("etc", "drawbridge-key.conf.ext"), 0o600, 0, []byte(keyConf)),
	}
	if script != "" {
		mode, group := os.FileMode(0o600), 0
		if s.series == "2.3" { // the auth process reads the script, too, and is not root
			_, gid, err := lookUp("dovecot")
			if err != nil {
				return err
			}
			mode, group = 0o640, gid
		}
		faults = append(faults,
			writeFile(scriptPath, 0o644, 0, []byte(script)),
			writeFile(s.path("etc", "drawbridge.key"), mode, group, []byte(key+"\n")))
	}
	if s.opts.Verified {
		faults = append(faults, s.writeVerified(lua, scriptPath))
	}
	return errors.Join(faults...)
}

// writeVerified writes the snippet of the second passdb.
func (s *Stack) writeVerified(lua bool, scriptPath string) error {
	const program = "/usr/local/lib/drawbridge/drawbridge-checkpassword"
	path := s.path("etc", "drawbridge-verified.lua")
	text, changes := dovecot.Verified23(), []change{{program, s.path("bin", "drawbridge-checkpassword") + " -s " + s.Daemons[0].LoginSocket}}
	switch {
	case s.series == "2.4":
		text, changes = dovecot.Verified24(), []change{{"lua_file = /etc/dovecot/drawbridge-verified.lua", "lua_file = " + path}}
	case lua:
		changes = []change{{"driver = checkpassword", "driver = lua"}, {program + " --verified", "file=" + path}}
	}
	conf, err := edit(text, changes...)
	if err != nil {
		return fmt.Errorf("drawbridge-verified.conf.ext: %w", err)
	}
	err = writeFile(s.path("etc", "drawbridge-verified.conf.ext"), 0o644, 0, []byte(conf))
	if !lua || err != nil {
		return err
	}
	script, err := edit(dovecot.VerifiedScript(), change{"/etc/dovecot/drawbridge.lua", scriptPath})
	if err != nil {
		return fmt.Errorf("drawbridge-verified.lua: %w", err)
	}
	return writeFile(path, 0o644, 0, []byte(script))
}

// doorAlone makes the edits that the snippet describes for sites whose Postfix asks Drawbridge
// itself.
func (s *Stack) doorAlone(conf string) (string, error) {
	changes := []change{
		{"\npassdb ", "\nprotocol !smtp {\npassdb "},
		{"  result_internalfail = return-fail\n}\n", "  result_internalfail = return-fail\n}\n}\n"},
	}
	if s.series == "2.4" {
		changes = append(changes, change{
			"# protocol smtp {\n#   auth_policy_check_after_auth = no\n#   auth_policy_report_after_auth = no\n# }\n",
			"protocol smtp {\n  auth_policy_check_after_auth = no\n  auth_policy_report_after_auth = no\n}\n",
		})
	}
	return edit(conf, changes...)
}
