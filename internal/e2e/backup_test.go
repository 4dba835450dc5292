package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"

	"github.com/drawbridge/drawbridge/internal/redistest"
)

// A backup, restored into an empty Redis, decides logins as before: secure passwords open, revoked
// ones do not. Into a store in use, with another pepper, passphrase or a damaged file it changes
// nothing.
func TestBackup(t *testing.T) {
	t.Parallel()
	daemon := func(pepper []byte) *lone {
		redis := redistest.Start(t)
		d := &lone{t: t, dir: t.TempDir()}
		if err := os.Mkdir(filepath.Join(d.dir, "state"), 0o700); err != nil {
			t.Fatal(err)
		}
		if pepper != nil {
			d.write("state/pepper", string(pepper))
		}
		d.write("drawbridge.toml", fmt.Sprintf(`
state_dir = "%[1]s/state"
login.listen = []
policyd.listen = []
milter.listen = []
api.listen = ["unix:%[1]s/api.sock"]
console.listen = []
store.url = "unix://%[2]s"
`, d.dir, redis.Socket))
		d.run()
		d.ready()
		return d
	}
	command := func(d *lone, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "drawbridge"), append([]string{"--api", "unix:" + d.dir + "/api.sock"}, args...)...)
		cmd.Stdin = strings.NewReader("too short\n")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	const ann = "/v1/accounts/ann@example.org"
	key := func() (public, file string) {
		identity, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(t.TempDir(), "key.txt")
		if err := os.WriteFile(file, []byte(identity.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return identity.Recipient().String(), file
	}
	public, private := key()
	_, another := key()
	from := daemon(nil)
	want := func(d *lone, status int, method, path, body string) object {
		t.Helper()
		got, m := d.call(method, path, body)
		if got != status {
			t.Fatalf("%s %s: %d %v", method, path, got, m)
		}
		return m
	}
	want(from, 201, "POST", "/v1/domains", `{"name":"example.org","third_party_access":{"allow":true}}`)
	want(from, 201, "PATCH", ann+"?create=true", `{"protocols":{"pop3":false}}`)
	var secrets [2]string
	for i := range secrets {
		m := want(from, 201, "POST", ann+"/secure-passwords", fmt.Sprintf(`{"label":"device %d"}`, i))
		secrets[i] = m["secret"].(string)
		if i == 1 {
			want(from, 204, "DELETE", ann+"/secure-passwords/"+m["id"].(string), "")
		}
	}
	decided := func(d *lone) string {
		said := ""
		for _, protocol := range []string{"imap", "pop3"} {
			for _, secret := range secrets {
				m := want(d, 200, "POST", "/v1/login", fmt.Sprintf(`{"account":"ann@example.org","secret":%q,"protocol":%q,"ip":"203.0.113.9"}`, secret, protocol))
				said += fmt.Sprint(protocol, " ", m["outcome"], " ", m["reason"], "; ")
			}
		}
		return said
	}
	before := decided(from)
	if !strings.HasPrefix(before, "imap allow") || !strings.Contains(before, "revoked_secret") {
		t.Fatalf("before the backup: %s", before)
	}
	file := filepath.Join(t.TempDir(), "backup.age")
	if out, err := command(from, "backup", "--recipient", public, file); err != nil || !strings.Contains(out, "keep a copy of state_dir/pepper") {
		t.Fatalf("%v %s", err, out)
	}
	if out, err := command(from, "backup", file+"2"); err == nil || !strings.Contains(out, "the passphrase is shorter than") {
		t.Errorf("a short passphrase: %v %s", err, out)
	}
	if out, err := command(from, "backup", "--recipient", public, file); err == nil {
		t.Errorf("a file was replaced: %s", out)
	}
	whole, err := os.ReadFile(file)
	if err != nil || strings.Contains(string(whole), "example") {
		t.Errorf("the file is readable: %v", err)
	}
	pepper, err := os.ReadFile(filepath.Join(from.dir, "state/pepper"))
	if err != nil {
		t.Fatal(err)
	}
	refuse := func(d *lone, private, file, words string) {
		t.Helper()
		_, had := d.call("GET", "/v1/domains", "")
		if out, err := command(d, "restore", "--identity", private, file); err == nil || !strings.Contains(out, words) {
			t.Errorf("want %q: %v %s", words, err, out)
		}
		if _, has := d.call("GET", "/v1/domains", ""); fmt.Sprint(had) != fmt.Sprint(has) {
			t.Errorf("%s: the domains changed: %v", words, has)
		}
	}
	refuse(from, private, file, "the store has domains")
	stranger := daemon(nil)
	want(stranger, 201, "POST", "/v1/domains", `{"name":"gone.example"}`)
	want(stranger, 201, "POST", "/v1/accounts/x@gone.example/secure-passwords?create=true", `{"label":"x"}`)
	want(stranger, 204, "DELETE", "/v1/domains/gone.example?confirm=true", "")
	refuse(stranger, private, file, "made with the pepper of fingerprint")

	to := daemon(pepper)
	refuse(to, another, file, "does not open it")
	damaged := filepath.Join(t.TempDir(), "damaged.age")
	for _, content := range map[string][]byte{"cut off": whole[:len(whole)-20], "foreign": []byte("no backup")} {
		if err := os.WriteFile(damaged, content, 0o600); err != nil {
			t.Fatal(err)
		}
		refuse(to, private, damaged, "cut off, altered, or no backup")
	}
	if out, err := command(to, "restore", "--identity", private, file); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if after := decided(to); after != before {
		t.Errorf("after the restore %s, before %s", after, before)
	}
	if err := to.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-to.ended
	to.run()
	to.ready()
	if after := decided(to); after != before {
		t.Errorf("after a restart %s, before %s", after, before)
	}
}
