package doctor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/postconf"
)

const (
	runTime   = 10 * time.Second
	maxOutput = 4 << 20 // bytes of one program's output
	maxErrors = 4 << 10 // bytes of its complaints
)

// programDirs are searched after PATH, in which a user's shell often has no sbin.
const programDirs = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// run runs a program with its arguments, without a shell and with an environment of its own, and
// returns what it prints. The error has the first line of its stderr.
func run(ctx context.Context, name string, args ...string) ([]byte, error) {
	file, err := find(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	out, complaints := bounded{room: maxOutput}, bounded{room: maxErrors, cut: true}
	cmd := exec.CommandContext(ctx, file, args...) //nolint:gosec // doveconf, postconf or getent
	cmd.Env = []string{"PATH=" + programDirs, "LC_ALL=C"}
	cmd.Stdout, cmd.Stderr = &out, &complaints
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch line := complaints.line(); {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("run %s: %w", name, ctx.Err())
	case out.over:
		return nil, fmt.Errorf("run %s: more than %d bytes of output", name, maxOutput)
	case err != nil && line != "":
		return nil, fmt.Errorf("run %s: %s", name, line)
	case err != nil:
		return nil, fmt.Errorf("run %s: %w", name, err)
	}
	return out.kept.Bytes(), nil
}

func find(name string) (string, error) {
	if file, err := exec.LookPath(name); err == nil {
		return file, nil
	}
	for _, dir := range filepath.SplitList(programDirs) {
		if file, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return file, nil
		}
	}
	return "", fmt.Errorf("run %s: it is not installed", name)
}

// bounded keeps what is written to it up to so many bytes; then it is an error, or cut. The buffer
// is not embedded: io.Copy would use its ReadFrom, which has no bound.
type bounded struct {
	kept bytes.Buffer
	room int
	cut  bool
	over bool // more was written
}

func (b *bounded) Write(p []byte) (int, error) {
	n := min(len(p), b.room-b.kept.Len())
	b.kept.Write(p[:n])
	b.over = b.over || n < len(p)
	if b.over && !b.cut {
		return n, errors.New("full")
	}
	return len(p), nil
}

// line returns the most informative line: the first that reports an error, without control
// characters.
func (b *bounded) line() string {
	lines := strings.Split(strings.TrimSpace(b.kept.String()), "\n")
	at := slices.IndexFunc(lines, func(l string) bool { return strings.Contains(strings.ToLower(l), "fatal:") })
	text := lines[max(at, 0)]
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, text[:min(len(text), 400)])
}

// readDovecot runs doveconf on a configuration: once for all of it, and where it has sections of
// single protocols, once for each service that logs users in.
func readDovecot(ctx context.Context, file string) (DovecotConf, error) {
	conf := DovecotConf{File: file}
	var err error
	if conf.All, conf.Version, err = runDoveconf(ctx, file); err != nil {
		return conf, err
	}
	all := conf.All
	if version(conf.Version).is24() {
		all = from24(all)
	}
	conf.Files = readPassdbFiles(all)
	if len(conf.All.All("protocol")) == 0 || version(conf.Version).is24() {
		return conf, nil // 2.4 cannot show the passdbs of one protocol
	}
	conf.Services = make(map[string]doveconf.Section)
	enabled := strings.Fields(conf.All.Get("protocols", "imap pop3 lmtp"))
	for _, service := range []string{"imap", "pop3", "sieve", "submission", "smtp"} {
		if service != "smtp" && !slices.Contains(enabled, service) { // smtp is Postfix'
			continue
		}
		if conf.Services[service], _, err = runDoveconf(ctx, file, "-f", "service="+service); err != nil {
			return conf, err
		}
	}
	return conf, nil
}

func runDoveconf(ctx context.Context, file string, filter ...string) (doveconf.Section, string, error) {
	out, err := run(ctx, "doveconf", append([]string{"-a", "-c", file}, filter...)...)
	if err != nil {
		return doveconf.Section{}, "", err
	}
	return doveconf.Parse(bytes.NewReader(out))
}

// readPostfix runs postconf on a configuration directory.
func readPostfix(ctx context.Context, dir string) (PostfixConf, error) {
	conf := PostfixConf{Dir: dir}
	out, err := run(ctx, "postconf", "-c", dir)
	if err != nil {
		return conf, err
	}
	if conf.Main, err = postconf.ParseMain(bytes.NewReader(out)); err != nil {
		return conf, err
	}
	services, err := run(ctx, "postconf", "-c", dir, "-M")
	if err != nil {
		return conf, err
	}
	overrides, err := run(ctx, "postconf", "-c", dir, "-P")
	if err != nil {
		return conf, err
	}
	if conf.Services, err = postconf.ParseMaster(bytes.NewReader(services), bytes.NewReader(overrides)); err != nil {
		return conf, err
	}
	main, err := os.Open(filepath.Join(dir, "main.cf"))
	if err != nil {
		return conf, err
	}
	defer func() { _ = main.Close() }() // only read from
	conf.Routes = readRoutes(ctx, dir, conf.Main)
	conf.Repeated, err = postconf.Repeated(main)
	return conf, err
}

// readMachine asks getent, which knows the users of a directory service too; else the files are
// read.
func readMachine(ctx context.Context) machine {
	read := func(database, file string) io.Reader {
		if out, err := run(ctx, "getent", database); err == nil {
			return bytes.NewReader(out)
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return strings.NewReader("")
		}
		return bytes.NewReader(data)
	}
	return machine{
		stat:   statFile,
		read:   os.ReadFile,
		users:  parseUsers(read("passwd", "/etc/passwd")),
		groups: parseGroups(read("group", "/etc/group")),
	}
}
