package trialstack

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/big"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/template"
	"time"

	"github.com/drawbridge/drawbridge/contrib/postfix"
	"github.com/drawbridge/drawbridge/internal/embedded"
)

//go:embed templates
var templates embed.FS

// Debian's paths of the programs. A user's PATH often lacks /usr/sbin.
const (
	dovecotProgram  = "/usr/sbin/dovecot"
	doveadmProgram  = "/usr/bin/doveadm"
	postfixProgram  = "/usr/sbin/postfix"
	postfixMaster   = "/usr/lib/postfix/sbin/master"
	sendmailProgram = "/usr/sbin/sendmail"
)

// redisPrograms are prefixes of the paths of redis-server, valkey-server and the checkers that they
// are links to.
var redisPrograms = []string{"/usr/bin/redis-", "/usr/bin/valkey-"}

// commands are built by Build and copied into the stack.
var commands = [...]string{"drawbridged", "drawbridge", "drawbridge-checkpassword"}

// checkPrograms returns the series of the installed Dovecot, or everything that is missing on this
// machine.
func checkPrograms(opts Options) (series string, err error) {
	var faults []error
	if os.Geteuid() != 0 {
		faults = append(faults, errors.New("not root, and Dovecot and Postfix start as root only: run this as root or with sudo"))
	}
	type need struct{ file, pkg string }
	needs := []need{
		{dovecotProgram, "dovecot-imapd"},
		{"/usr/lib/dovecot/imap", "dovecot-imapd"},
		{"/usr/lib/dovecot/pop3", "dovecot-pop3d"},
		{"/usr/lib/dovecot/lmtp", "dovecot-lmtpd"},
		{"/usr/lib/dovecot/managesieve", "dovecot-managesieved"},
		{"/usr/lib/dovecot/submission", "dovecot-submissiond"},
		{postfixProgram, "postfix"},
	}
	if _, err := os.Stat(dovecotProgram); err == nil {
		series, err = DovecotSeries()
		faults = append(faults, err)
	}
	if series == "2.4" && !opts.WithoutDrawbridge {
		needs = append(needs, need{"/usr/lib/dovecot/modules/auth/libauthdb_lua.so", "dovecot-auth-lua"})
	}
	var missing []string
	for _, n := range needs {
		if _, err := os.Stat(n.file); err != nil && !slices.Contains(missing, n.pkg) {
			missing = append(missing, n.pkg)
		}
	}
	if _, err := embedded.Program(""); err != nil {
		missing = append(missing, "redis-server")
	}
	if len(missing) > 0 {
		faults = append(faults, fmt.Errorf(`missing Debian packages: run "make install-deps", or "apt-get install --no-install-recommends %s"`, strings.Join(missing, " ")))
	}
	if !opts.WithoutDrawbridge && opts.Bin != "" {
		for _, name := range commands {
			if _, err := os.Stat(filepath.Join(opts.Bin, name)); err != nil {
				faults = append(faults, fmt.Errorf(`no command %s: run "make build": %w`, name, err))
			}
		}
	}
	return series, errors.Join(faults...)
}

// maxDir keeps the longest path of Dovecot's unix sockets below the kernel's limit of 108 bytes.
const maxDir = 60

var plainPath = regexp.MustCompile(`^[A-Za-z0-9/._-]+$`)

// CheckDir reports all reasons why a directory, existing or not, cannot be used for a stack: a path
// that is too long or has characters with a meaning in configuration files, and parents that the
// servers' users cannot pass through.
func CheckDir(dir string) error {
	var faults []error
	if len(dir) > maxDir {
		faults = append(faults, fmt.Errorf("the path %s has %d characters, and unix sockets in it leave room for %d: choose a shorter one", dir, len(dir), maxDir))
	}
	if !plainPath.MatchString(dir) {
		faults = append(faults, fmt.Errorf("the path %q has other characters than letters, digits and /._-: choose another one", dir))
	}
	for at := dir; ; at = filepath.Dir(at) {
		info, err := os.Stat(at)
		switch {
		case errors.Is(err, fs.ErrNotExist): // New creates it
		case err != nil:
			faults = append(faults, err)
		case !info.IsDir():
			faults = append(faults, fmt.Errorf("%s is not a directory", at))
		case info.Mode().Perm()&0o001 == 0 && at != dir: // New sets the mode of dir itself
			faults = append(faults, fmt.Errorf("the users dovecot, postfix and mail cannot pass through %s (mode %04o): choose another directory", at, info.Mode().Perm()))
		}
		if at == filepath.Dir(at) {
			return errors.Join(faults...)
		}
	}
}

// makeDir creates a directory with exactly this mode and owner, independent of the umask.
func makeDir(dir string, mode fs.FileMode, uid, gid int) error {
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // G301: the servers' users pass through
		return err
	}
	if err := os.Chmod(dir, mode); err != nil {
		return err
	}
	return os.Chown(dir, uid, gid)
}

// writeFile replaces a file atomically; root owns it.
func writeFile(path string, mode fs.FileMode, gid int, text []byte) error {
	tmp := path + ".new"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(tmp, text, mode); err != nil {
		return err
	}
	if err := os.Chown(tmp, 0, gid); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// lookUp returns the user and group id of a user that a Debian package created.
func lookUp(name string) (uid, gid int, err error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, 0, fmt.Errorf("%w: is its package installed?", err)
	}
	if uid, err = strconv.Atoi(u.Uid); err != nil {
		return 0, 0, err
	}
	gid, err = strconv.Atoi(u.Gid)
	return uid, gid, err
}

// write creates the directories and all files except those that the servers write.
func (s *Stack) write() error {
	postfixUID, _, err := lookUp("postfix")
	if err != nil {
		return err
	}
	_, dovecotGID, err := lookUp("dovecot")
	if err != nil {
		return err
	}
	mailUID, mailGID, err := lookUp("mail")
	if err != nil {
		return err
	}
	dirs := []struct {
		path     string
		mode     fs.FileMode
		uid, gid int
	}{
		{"bin", 0o755, 0, 0},
		{"etc", 0o755, 0, 0},
		{"etc/postfix", 0o755, 0, 0},
		{"log", 0o755, 0, 0},
		{"tls", 0o755, 0, 0},
		{"dovecot", 0o755, 0, 0},
		{"dovecot/state", 0o755, 0, 0},
		{"mail", 0o700, mailUID, mailGID},
		{"postfix", 0o755, 0, 0},
		{"postfix/queue", 0o755, 0, 0},
		{"postfix/data", 0o700, postfixUID, 0},
	}
	for _, d := range dirs {
		if err := makeDir(s.path(d.path), d.mode, d.uid, d.gid); err != nil {
			return err
		}
	}
	if err := s.writeCertificate(); err != nil {
		return fmt.Errorf("make a certificate: %w", err)
	}
	if err := s.writeAccounts(dovecotGID); err != nil {
		return err
	}
	if s.Redis != nil {
		if err := makeDir(s.path("redis"), 0o700, 0, 0); err != nil {
			return err
		}
	}
	if !s.opts.WithoutDrawbridge {
		if err := s.writeDrawbridge(); err != nil {
			return err
		}
	}
	return s.writeServers()
}

// writeServers writes the configuration of Dovecot and Postfix.
func (s *Stack) writeServers() error {
	values := struct {
		*Stack
		Hostname, Webmail, Balancer string
		Domains                     []string
		Drawbridge, Verified        bool
		MainCF, MasterCF            string
		DovecotExtra, PostfixExtra  string
	}{
		Stack: s, Hostname: Hostname, Webmail: Webmail, Balancer: Balancer, Domains: s.domains(), Drawbridge: !s.opts.WithoutDrawbridge, Verified: s.opts.Verified,
		DovecotExtra: s.opts.DovecotConf, PostfixExtra: s.opts.MainCF,
	}
	if values.Drawbridge {
		var err error
		values.MainCF = postfix.MainCF()
		if s.opts.SASLDoor {
			values.MainCF, err = edit(values.MainCF, change{"smtpd_sasl_path = private/auth", "smtpd_sasl_path = private/drawbridge-auth"})
			if err != nil {
				return fmt.Errorf("main.cf.drawbridge: %w", err)
			}
		}
		// The stack's port numbers replace the service names, and nothing runs in a chroot.
		values.MasterCF, err = edit(postfix.MasterCF(),
			change{"submission inet n       -       y ", loopback(s.Ports.Submission) + " inet n - n "},
			change{"submissions inet n      -       y ", loopback(s.Ports.SMTPS) + " inet n - n "})
		if err != nil {
			return fmt.Errorf("master.cf.drawbridge: %w", err)
		}
		if len(s.opts.Outgoing) > 0 {
			outgoing, err := edit(postfix.OutgoingCF(),
				change{"\n127.0.0.1:10027 inet ", "\n" + loopback(s.Ports.Outgoing) + " inet "},
				change{"content_filter=smtp:\n", "content_filter=lmtp:unix:private/dovecot-lmtp\n"})
			if err != nil {
				return fmt.Errorf("master.cf.drawbridge-outgoing: %w", err)
			}
			values.MasterCF += outgoing
			next := fmt.Sprintf("drawbridge-outgoing:[127.0.0.1]:%d", s.Ports.Outgoing)
			values.PostfixExtra += "\ndefault_transport = " + next + "\ntransport_maps = inline:{"
			for _, domain := range s.opts.Outgoing {
				values.PostfixExtra += " {" + domain + "=" + next + "}"
			}
			values.PostfixExtra += " }\n"
		}
		if s.opts.SASLServices {
			values.MasterCF, err = edit(values.MasterCF,
				change{"# -o smtpd_sasl_service=submission587", "  -o smtpd_sasl_service=submission587"},
				change{"# -o smtpd_sasl_service=submission465", "  -o smtpd_sasl_service=submission465"})
			if err != nil {
				return fmt.Errorf("master.cf.drawbridge: %w", err)
			}
		}
	}
	for name, path := range map[string]string{
		"dovecot-" + s.series + ".conf": s.DovecotConf(),
		"main.cf":                       filepath.Join(s.PostfixDir(), "main.cf"),
		"master.cf":                     filepath.Join(s.PostfixDir(), "master.cf"),
	} {
		t, err := template.New(name).Funcs(template.FuncMap{"join": strings.Join}).ParseFS(templates, "templates/"+name)
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := t.Execute(&text, values); err != nil {
			return err
		}
		conf := text.Bytes()
		if name == "main.cf" {
			conf = lastEntries(conf)
		}
		if err := writeFile(path, 0o644, 0, conf); err != nil {
			return err
		}
	}
	return nil
}

var entry = regexp.MustCompile(`(?m)^(\w+) *=.*\n(?:[ \t#].*\n)*`)

// lastEntries removes the entries of main.cf that a later one overrides. Each Postfix process warns
// of them, and postlogd, which warns itself, can fill its own socket and stop.
func lastEntries(conf []byte) []byte {
	last := make(map[string]int)
	for _, at := range entry.FindAllSubmatchIndex(conf, -1) {
		last[string(conf[at[2]:at[3]])] = at[0]
	}
	var kept []byte
	end := 0
	for _, at := range entry.FindAllSubmatchIndex(conf, -1) {
		if last[string(conf[at[2]:at[3]])] != at[0] {
			kept = append(kept, conf[end:at[0]]...)
			end = at[1]
		}
	}
	return append(kept, conf[end:]...)
}

// A change is one edit of a shipped text, as an administrator would make it.
type change struct{ from, to string }

// edit applies the changes. Each text to replace must occur exactly once: otherwise the shipped
// text has changed, and the stack would no longer run it.
func edit(text string, changes ...change) (string, error) {
	for _, c := range changes {
		if n := strings.Count(text, c.from); n != 1 {
			return "", fmt.Errorf("%q is there %d times, not once", c.from, n)
		}
		text = strings.Replace(text, c.from, c.to, 1)
	}
	return text, nil
}

// domains returns the domains of the accounts without duplicates.
func (s *Stack) domains() []string {
	var list []string
	for _, a := range s.Accounts {
		_, domain, _ := strings.Cut(a.Address, "@")
		list = append(list, domain)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// writeAccounts writes the site's own passdb and Postfix' list of mailboxes.
func (s *Stack) writeAccounts(dovecotGID int) error {
	var users, mailboxes bytes.Buffer
	for _, a := range s.Accounts {
		hash := a.Hash
		if hash == "" {
			hash = ssha512(a.Password)
		}
		fmt.Fprintf(&users, "%s:%s::::::%s\n", a.Address, hash, a.Fields) // the userdb's defaults fill the empty fields
		fmt.Fprintf(&mailboxes, "%s mailbox\n", a.Address)
	}
	masters := fmt.Appendf(nil, "%s:%s\n", MasterUser, ssha512(MasterPassword))
	return errors.Join(
		writeFile(s.path("etc", "users"), 0o640, dovecotGID, users.Bytes()),
		writeFile(s.path("etc", "masters"), 0o640, dovecotGID, masters),
		writeFile(filepath.Join(s.PostfixDir(), "mailboxes"), 0o644, 0, mailboxes.Bytes()),
	)
}

// ssha512 hashes a password for Dovecot's scheme of that name: the digest, then the salt.
func ssha512(password string) string {
	salt := make([]byte, 8)
	_, _ = rand.Read(salt) // never fails
	digest := sha512.Sum512(append([]byte(password), salt...))
	return "{SSHA512}" + base64.StdEncoding.EncodeToString(append(digest[:], salt...))
}

// secret returns the random word in a file that only root can read; it creates the file if needed.
func secret(path string) (string, error) {
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, 32)
		_, _ = rand.Read(key) // never fails
		text = append(hex.AppendEncode(nil, key), '\n')
		err = writeFile(path, 0o600, 0, text)
	}
	return strings.TrimSpace(string(text)), err
}

// copyCommands copies the commands to a directory where the user dovecot can run them, unlike in
// many home directories, and where a new build does not replace them.
func (s *Stack) copyCommands() error {
	for _, name := range commands {
		from, err := os.Open(filepath.Join(s.opts.Bin, name))
		if err != nil {
			return err
		}
		text, err := io.ReadAll(from)
		_ = from.Close() // only read from
		if err != nil {
			return err
		}
		if err := writeFile(s.path("bin", name), 0o755, 0, text); err != nil {
			return err
		}
	}
	return nil
}

// writeCertificate creates a self-signed certificate for the servers, unless there is one that is
// valid for another 30 days.
func (s *Stack) writeCertificate() error {
	keyPath := s.path("tls", "key.pem")
	if text, err := os.ReadFile(s.Certificate()); err == nil {
		if block, _ := pem.Decode(text); block != nil {
			cert, err := x509.ParseCertificate(block.Bytes)
			if _, keyErr := os.Stat(keyPath); err == nil && keyErr == nil && time.Until(cert.NotAfter) > 30*24*time.Hour {
				return nil
			}
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(now.UnixNano()),
		Subject:               pkix.Name{CommonName: Hostname},
		DNSNames:              []string{Hostname, "localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.AddDate(2, 0, 0),
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		writeFile(keyPath, 0o600, 0, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		writeFile(s.Certificate(), 0o644, 0, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})),
	)
}

// TempDir creates a directory that suits a stack; the caller removes it. A directory of testing.T
// does not: the servers' users cannot pass through it, and its path is long.
func TempDir() (string, error) {
	var faults []error
	for _, base := range []string{os.TempDir(), "/tmp", "/var/tmp"} {
		if err := CheckDir(filepath.Join(base, "trial0123456789")); err != nil {
			faults = append(faults, err)
			continue
		}
		dir, err := os.MkdirTemp(base, "trial")
		if err != nil {
			return "", err
		}
		return dir, os.Chmod(dir, 0o755) //nolint:gosec // G302: the servers' users pass through
	}
	return "", fmt.Errorf("no directory for temporary files suits a trial stack: %w", errors.Join(faults...))
}
