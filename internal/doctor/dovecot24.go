package doctor

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/doveconf"
)

// from24 translates the names of Dovecot 2.4 into those of 2.3, as far as the checks read them:
//
//	passdb lua { lua_file = F }           passdb { driver = lua  args = file=F }
//	passdb_result_failure = X             in every passdb that does not set it
//	fields { nopassword = yes }           default_fields = nopassword=yes
//	auth_policy { server_url = U }        auth_policy_server_url = U
//	protocols { imap = yes }              protocols = imap
//	ssl_server { require_crl = no }       ssl_require_crl = no
//	auth_allow_cleartext = yes            disable_plaintext_auth = no
//	auth_username_format = %{user | …}    %u, %n, %d
func from24(all doveconf.Section) doveconf.Section {
	out := doveconf.Section{Settings: maps.Clone(all.Settings)}
	if out.Settings == nil {
		out.Settings = make(map[string]string)
	}
	for _, s := range all.Sections {
		switch s.Kind {
		case "passdb", "userdb":
			out.Sections = append(out.Sections, database24(all, s))
		case "auth_policy":
			for name, value := range s.Settings {
				out.Settings["auth_policy_"+name] = value
			}
			if fields := s.One("request_attributes", ""); len(fields.Settings) > 0 {
				out.Settings["auth_policy_request_attributes"] = pairs(fields.Settings)
			}
		case "protocols":
			var names []string
			for name, on := range s.Settings {
				if on == "yes" {
					names = append(names, name)
				}
			}
			slices.Sort(names)
			out.Settings["protocols"] = strings.Join(names, " ")
		case "ssl_server":
			for name, old := range map[string]string{"request_client_cert": "ssl_verify_client_cert", "require_crl": "ssl_require_crl"} {
				if v, ok := s.Settings[name]; ok {
					out.Settings[old] = v
				}
			}
		default:
			out.Sections = append(out.Sections, s)
		}
	}
	for _, name := range []string{"auth_policy_request_attributes", "auth_mechanisms", "protocols"} {
		if out.Settings[name] == "" { // "doveconf -a" prints lists that keep their default so
			delete(out.Settings, name)
		}
	}
	if all.Get("auth_allow_cleartext", "no") == "yes" {
		out.Settings["disable_plaintext_auth"] = "no"
	}
	out.Settings["auth_username_format"] = format24(all.Get("auth_username_format", "%{user | lower}"))
	return out
}

// database24 translates one passdb or userdb. A setting that it lacks may stand at the top, with
// the section's kind before its name.
func database24(all, s doveconf.Section) doveconf.Section {
	out := doveconf.Section{Kind: s.Kind, Settings: maps.Clone(s.Settings), Sections: s.Sections}
	for _, name := range []string{"result_success", "result_failure", "result_internalfail", "skip", "deny", "master", "mechanisms_filter", "username_filter"} {
		if v, ok := all.Settings[s.Kind+"_"+name]; ok && out.Settings[name] == "" {
			out.Settings[name] = v
		}
	}
	out.Settings["driver"] = cmp.Or(s.Settings["driver"], s.Name)
	out.Settings["mechanisms"] = out.Settings["mechanisms_filter"]
	var args []string
	if file := s.Settings["lua_file"]; file != "" {
		args = append(args, "file="+file)
	}
	if file := s.Settings["passwd_file_path"]; file != "" {
		args = append(args, file)
	}
	if _, ok := s.Settings["password"]; ok {
		args = append(args, "password=hidden")
	}
	out.Settings["args"] = strings.Join(args, " ")
	out.Settings["default_fields"] = pairs(s.One("fields", "").Settings)
	return out
}

func pairs(settings map[string]string) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		list = append(list, name+"="+settings[name])
	}
	return strings.Join(list, " ")
}

// format24 translates the variables of a user name. Others stay as they are.
func format24(text string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(text, "%{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		inner, after, _ := strings.Cut(rest, "}")
		words := strings.Fields(strings.ReplaceAll(inner, "|", " "))
		letter := "{" + inner + "}"
		switch {
		case len(words) == 0:
		case words[0] == "user" && slices.Contains(words, "username"):
			letter = "n"
		case words[0] == "user" && slices.Contains(words, "domain"), words[0] == "domain":
			letter = "d"
		case words[0] == "user":
			letter = "u"
		case words[0] == "username":
			letter = "n"
		}
		b.WriteString("%" + letter)
		text = after
	}
}

const luaBlock24 = "passdb lua {\n  lua_file = /etc/dovecot/drawbridge.lua\n  result_success = return-ok\n  result_failure = return-fail\n  result_internalfail = return-fail\n}"

// version24 checks what has no counterpart in 2.3.
func (d *dovecotChecks) version24(original doveconf.Section) {
	for _, p := range original.All("passdb") {
		if p.Get("driver", p.Name) == "checkpassword" {
			d.fail("dovecot.version", d.at(p.Title()), "# above every other passdb\n"+luaBlock24,
				"Dovecot %s has no checkpassword passdb and does not start with one: Drawbridge is asked by a Lua passdb", d.version)
		}
	}
	for _, protocol := range original.All("protocol") {
		for _, p := range protocol.All("passdb") {
			if isOurs(database24(original, p)) {
				continue
			}
			d.fail("dovecot.passdb.first", d.at(protocol.Title(), p.Title()), "# move this passdb out of "+protocol.Title()+" { }, below Drawbridge's",
				"a passdb of one protocol: Dovecot asks it before Drawbridge, wherever it stands")
		}
	}
	if limit := original.One("service", "auth-worker").Get("process_limit", ""); limit != "" {
		d.warn("dovecot.auth_worker", d.at("service auth-worker", "process_limit"), "# remove process_limit",
			"is %s: a Lua passdb needs one worker for each login in progress, and 2.4.5 refuses logins beyond the limit instead of letting them wait", limit)
	}
}
