package doctor

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
)

// A site without a Drawbridge passdb, as the snippet for it makes one.
func TestPolicyOnly(t *testing.T) {
	text := strings.Replace(strings.Replace(dovecotSite, "%DRAWBRIDGE%", dovecot.Policy23(), 1), "!include_try drawbridge-key.conf.ext",
		"auth_policy_server_api_header = Authorization: Bearer KEY\nauth_policy_hash_nonce = x", 1)
	expectWell(t, Dovecot(dovecotOf(t, text), site(t)), 6)
	for name, c := range map[string]struct {
		old, new    string
		severity    Severity
		where, what string
	}{
		"not asked":              {"check_after_auth = yes", "check_after_auth = no", Fail, "check_after_auth", "not asked about logins"},
		"accepted unanswered":    {"reject_on_fail = yes", "reject_on_fail = no", Fail, "reject_on_fail", "accepted if Drawbridge does not answer"},
		"only logged":            {"log_only = no", "log_only = yes", Fail, "log_only", "the logins succeed"},
		"not reported":           {"report_after_auth = yes", "report_after_auth = no", Fail, "report_after_auth", "not recorded"},
		"told before":            {"check_before_auth = no", "check_before_auth = yes", Fail, "request_attributes", "whoever guesses"},
		"before, and silent":     {"check_before_auth = no", "check_before_auth = yes\n# ", OK, "", ""},
		"clients not recognised": {" client_cert=%{cert}", "", Warn, "request_attributes", "not recognised"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(text, c.old) {
				t.Fatalf("the snippet has no %q", c.old)
			}
			broken := strings.Replace(text, c.old, c.new, 1)
			if c.severity == OK {
				expectWell(t, Dovecot(dovecotOf(t, strings.Replace(broken, "%{cert} verified=yes", "%{cert}", 1)), site(t)), 6)
				return
			}
			expect(t, Dovecot(dovecotOf(t, broken), site(t)), c.severity, "dovecot.auth_policy", c.where, c.what)
		})
	}
	// With the snippet for a passdb, a passdb is expected.
	lost := strings.Replace(text, "%{cert} verified=yes", "%{cert} judged=yes", 1)
	expect(t, Dovecot(dovecotOf(t, lost), site(t)), Fail, "dovecot.passdb.present", "passdb", "no passdb runs Drawbridge")
}
