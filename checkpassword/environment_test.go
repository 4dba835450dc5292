package checkpassword

import "testing"

func TestAsker(t *testing.T) {
	const dovecotReply = "/usr/lib/dovecot/checkpassword-reply"
	login := Environment{"AUTH_PID=7", "AUTH_SESSION=x", "AUTH_LPORT=143"}
	other := Environment{"AUTH_PID=7", "AUTH_SESSION=", "AUTH_LPORT=0"} // Postfix, doveadm auth test
	tests := []struct {
		name  string
		reply string
		env   Environment
		want  Asker
	}{
		{"IMAP login", dovecotReply, login.with("AUTH_SERVICE=imap"), LoginProxy},
		{"POP3 login", dovecotReply, login.with("AUTH_SERVICE=pop3"), LoginProxy},
		{"ManageSieve login", dovecotReply, login.with("AUTH_SERVICE=sieve"), LoginProxy},
		{"submission login", dovecotReply, login.with("AUTH_SERVICE=submission"), Dovecot},
		{"Postfix", dovecotReply, other.with("AUTH_SERVICE=smtp"), SASL},
		{"Postfix on 587", dovecotReply, other.with("AUTH_SERVICE=submission587"), SASL},
		{"Postfix that calls itself imap", dovecotReply, other.with("AUTH_SERVICE=imap"), Dovecot},
		{"names are exact", dovecotReply, login.with("AUTH_SERVICE=IMAP"), SASL},
		{"SCRAM", dovecotReply, login.with("AUTH_SERVICE=imap", "AUTHORIZED=1", "CREDENTIALS_LOOKUP=1"), DovecotLookup},
		{"LMTP", dovecotReply, other.with("AUTH_SERVICE=lmtp", "AUTHORIZED=1"), DovecotLookup},
		{"a moved reply program", "/opt/reply", login.with("AUTH_SERVICE=imap"), LoginProxy},
		{"no reply program", "", login.with("AUTH_SERVICE=imap"), LoginProxy},
		{"reply program alone", "checkpassword-reply", Environment{"SERVICE=smtp"}, SASL},
		{"qmail-pop3d", "qmail-pop3d", Environment{"TCPREMOTEIP=203.0.113.9"}, Elsewhere},
		{"outside Dovecot AUTHORIZED means nothing", "prog", Environment{"SERVICE=pop3", "AUTHORIZED=1"}, Elsewhere},
		{"name only resembles", "/bin/my-checkpassword-reply", nil, Elsewhere},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.env.Asker(tt.reply); got != tt.want {
				t.Errorf("asker %d, want %d", got, tt.want)
			}
		})
	}
}

func TestEnvironmentGet(t *testing.T) {
	env := Environment{"AUTH_RIP2=no", "=x", "AUTH_RIP=", "AUTH_RIP=second", "EQUALS=a=b", "BARE"}
	for name, want := range map[string]string{"AUTH_RIP": "", "EQUALS": "a=b", "BARE": "", "AUTH": ""} {
		if got := env.Get(name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestTLS(t *testing.T) {
	for _, tt := range []struct {
		service, secured string
		want             bool
	}{
		{"imap", "TLS", true},
		{"imap", "secured", false},
		{"imap", "", false},
		{"submission", "secured", false},
		{"smtp", "secured", true},
		{"smtp", "", false},
		{"submission587", "secured", true},
		{"smtp", "perhaps", false},
	} {
		env := Environment{"AUTH_SERVICE=" + tt.service, "AUTH_SECURED=" + tt.secured}
		if got := env.tls(); got != tt.want {
			t.Errorf("%s, %q: TLS is %v", tt.service, tt.secured, got)
		}
	}
}
