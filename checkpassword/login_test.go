package checkpassword

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

// dovecotIMAP is the environment of an IMAP login over TLS, as Dovecot 2.3 sets it.
var dovecotIMAP = Environment{
	"AUTH_USER=ann@example.org", "AUTH_ORIG_USER=Ann@Example.org", "AUTH_SERVICE=imap", "SERVICE=imap",
	"AUTH_MECH=PLAIN", "AUTH_SECURED=TLS", "AUTH_CERT=", "AUTH_PID=7", "AUTH_RIP=203.0.113.9",
	"AUTH_REAL_RIP=192.0.2.80", "AUTH_LIP=192.0.2.1", "AUTH_LPORT=993", "AUTH_RPORT=40000", "AUTH_SESSION=t7OTfdlg",
	"AUTH_LOCAL_NAME=imap.example.org", "AUTH_MASTER_USER=", "AUTH_LOGIN_USER=", "TCPREMOTEIP=203.0.113.9",
	"TCPLOCALIP=192.0.2.1", "TCPLOCALPORT=993", "PROTO=TCP", `AUTH_CLIENT_ID="name" "Thunderbird"`,
}

// with returns env with the given variables set or changed.
func (env Environment) with(entries ...string) Environment {
	result := Environment(entries)
	for _, entry := range env {
		name, _, _ := strings.Cut(entry, "=")
		if !slices.ContainsFunc(entries, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
			result = append(result, entry)
		}
	}
	return result
}

func TestLogin(t *testing.T) {
	tests := []struct {
		name         string
		user, secret string
		env          Environment
		want         string
	}{
		{
			name: "IMAP", user: "ann@example.org", secret: `open "ses\ame"`, env: dovecotIMAP,
			want: `{"account":"ann@example.org","secret":"open \"ses\\ame\"","service":"imap","ip":"203.0.113.9","real_ip":"192.0.2.80",` +
				`"local_ip":"192.0.2.1","local_port":993,"server_name":"imap.example.org","tls":true,"mechanism":"PLAIN",` +
				`"session":"t7OTfdlg","client_id":"\"name\" \"Thunderbird\""}`,
		},
		{
			name: "Postfix", user: "ann@example.org", secret: "pw",
			env: Environment{
				"AUTH_SERVICE=smtp", "AUTH_PID=7", "AUTH_SECURED=secured", "AUTH_RIP=203.0.113.9", "AUTH_REAL_RIP=203.0.113.9",
				"AUTH_LIP=192.0.2.1", "AUTH_LPORT=0", "AUTH_MECH=LOGIN",
			},
			want: `{"account":"ann@example.org","secret":"pw","service":"smtp","ip":"203.0.113.9","real_ip":"203.0.113.9","local_ip":"192.0.2.1","tls":true,"mechanism":"LOGIN"}`,
		},
		{
			name: "without TLS from the same host", user: "ann", secret: "pw",
			env:  Environment{"AUTH_SERVICE=pop3", "AUTH_SECURED=secured"},
			want: `{"account":"ann","secret":"pw","service":"pop3"}`,
		},
		{
			name: "client certificate", user: "ann", secret: "pw",
			env:  Environment{"AUTH_SERVICE=imap", "AUTH_SECURED=TLS", "AUTH_CERT=valid"},
			want: `{"account":"ann","secret":"pw","service":"imap","tls":true,"client_cert":"valid"}`,
		},
		{
			name: "Latin-1 password", user: "ann", secret: "p\xe4ss", env: Environment{"AUTH_SERVICE=imap"},
			want: `{"account":"ann","secret_b64":"cORzcw==","service":"imap"}`,
		},
		{
			name: "master's second call", user: "ann", secret: "the master's", env: Environment{"AUTH_SERVICE=imap", "AUTH_MASTER_USER=boss"},
			want: `{"account":"ann","service":"imap","master_user":"boss"}`,
		},
		{
			name: "look-up of credentials", user: "ann", env: Environment{"AUTH_SERVICE=imap", "AUTHORIZED=1", "CREDENTIALS_LOOKUP=1"},
			want: `{"account":"ann","service":"imap","lookup":"credentials"}`,
		},
		{
			name: "look-up of a user", user: "ann", env: Environment{"AUTH_SERVICE=lmtp", "AUTHORIZED=1"},
			want: `{"account":"ann","service":"lmtp","lookup":"user"}`,
		},
		{
			name: "outside Dovecot", user: "ann", secret: "pw",
			env:  Environment{"SERVICE=pop3", "TCPREMOTEIP=203.0.113.9", "TCPLOCALIP=192.0.2.1", "TCPLOCALPORT=110"},
			want: `{"account":"ann","secret":"pw","service":"pop3","ip":"203.0.113.9","real_ip":"203.0.113.9","local_ip":"192.0.2.1","local_port":110}`,
		},
		{name: "absurd port", user: "ann", env: Environment{"AUTH_LPORT=65536"}, want: `{"account":"ann"}`},
		{
			name: "what the client chose is cut and mended", user: "ann",
			env:  Environment{"AUTH_LOCAL_NAME=a\xffb\tc", "AUTH_CLIENT_ID=" + strings.Repeat("ä", 600), "AUTH_SESSION=" + strings.Repeat("s", 300)},
			want: `{"account":"ann","server_name":"a\ufffdb\tc","session":"` + strings.Repeat("s", 256) + `","client_id":"` + strings.Repeat("ä", 512) + `"}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			body := body(t, NewLogin(Credentials{User: []byte(tt.user), Secret: []byte(tt.secret)}, tt.env))
			var got, want map[string]any
			if err := json.Unmarshal(body, &got); err != nil {
				t.Fatalf("%q: %v", body, err)
			}
			if err := json.Unmarshal([]byte(tt.want), &want); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// body sends l through net/http's parser and returns the body that comes out.
func body(t *testing.T, l Login) []byte {
	t.Helper()
	request, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(l.Request())))
	if err != nil {
		t.Fatal(err)
	}
	if request.Method != http.MethodPost || request.URL.Path != "/v1/login" || request.Header.Get("Content-Type") != "application/json" || !request.Close {
		t.Errorf("request %s %s, %v", request.Method, request.URL, request.Header)
	}
	b, err := io.ReadAll(request.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestLargestRequest(t *testing.T) {
	bell := func(n int) string { return strings.Repeat("\a", n) } // six bytes each in JSON
	l := Login{
		Account: bell(maxCredentials), Secret: []byte(bell(maxCredentials)), Service: bell(maxName), IP: bell(maxName),
		RealIP: bell(maxName), LocalIP: bell(maxName), LocalPort: 65535, ServerName: bell(maxName), TLS: true,
		ClientCert: bell(maxName), Mechanism: bell(maxName), Session: bell(maxName), MasterUser: bell(maxName),
		Lookup: LookupCredentials, ClientID: bell(maxClientID),
	}
	if request := l.Request(); cap(request) != maxRequest {
		t.Errorf("the buffer grew from %d to %d bytes and left a copy of the secret", maxRequest, cap(request))
	}
	if got := body(t, l); !json.Valid(got) {
		t.Errorf("not JSON: %.100q", got)
	}
}

// FuzzRequest compares the JSON that is written with what encoding/json reads.
func FuzzRequest(f *testing.F) {
	f.Add("ann@example.org", []byte("opensesame"), `"name" "x"`)
	f.Add("ä\u2028\U0001F600", []byte("p\xe4ss"), "\x00\x1f\x7f\\\"</script>")
	f.Add("\xff\xc3", []byte("\xed\xa0\x80"), "a\xf0\x9f")
	f.Fuzz(func(t *testing.T, account string, secret []byte, id string) {
		if len(account) > maxCredentials || len(secret) > maxCredentials {
			return
		}
		b := body(t, Login{Account: account, Secret: secret, ClientID: id})
		var got struct {
			Account   string
			Secret    string
			SecretB64 string `json:"secret_b64"`
			ClientID  string `json:"client_id"`
		}
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		if !utf8.Valid(b) {
			t.Errorf("%q is not UTF-8", b)
		}
		// encoding/json mends what is not UTF-8 in the same way.
		mended := func(s string) string {
			encoded, err := json.Marshal(s)
			if err != nil {
				t.Fatal(err)
			}
			var back string
			if err := json.Unmarshal(encoded, &back); err != nil {
				t.Fatal(err)
			}
			return back
		}
		if got.Account != mended(account) {
			t.Errorf("account %q became %q", account, got.Account)
		}
		if len(id) <= maxClientID && got.ClientID != mended(id) {
			t.Errorf("client id %q became %q", id, got.ClientID)
		}
		if utf8.Valid(secret) != (got.SecretB64 == "") && len(secret) > 0 {
			t.Errorf("secret %q became %q", secret, b)
		}
		if got.SecretB64 != "" {
			decoded, err := base64.StdEncoding.DecodeString(got.SecretB64)
			if err != nil {
				t.Fatal(err)
			}
			got.Secret = string(decoded)
		}
		if got.Secret != string(secret) {
			t.Errorf("secret %q became %q", secret, got.Secret)
		}
	})
}
