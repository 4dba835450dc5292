package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"slices"
	"strconv"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/config"
)

// A daemonUser is the user that a daemon started as root changes to. The zero daemonUser changes
// nothing.
type daemonUser struct {
	name     string
	uid, gid int
	groups   []int
}

// changes reports whether there is a user to change to.
func (u daemonUser) changes() bool { return u.uid != 0 }

// findUser looks up the setting user. It is the zero daemonUser if the setting is empty or names
// the user that this process runs as already; another user than root cannot change.
func findUser(name string) (daemonUser, error) {
	if name == "" {
		return daemonUser{}, nil
	}
	found, err := user.Lookup(name)
	if err != nil {
		return daemonUser{}, fmt.Errorf("user: there is no user %q: create it ('useradd --system --user-group %s'), or name another", name, name)
	}
	u := daemonUser{name: name}
	groups, err := found.GroupIds()
	if err != nil {
		return daemonUser{}, fmt.Errorf("user: looking up the groups of %s: %w", name, err)
	}
	for _, text := range append([]string{found.Uid, found.Gid}, groups...) {
		id, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return daemonUser{}, fmt.Errorf("user: %s has the number %q: %w", name, text, err)
		}
		u.groups = append(u.groups, int(id))
	}
	u.uid, u.gid, u.groups = u.groups[0], u.groups[1], u.groups[1:]
	slices.Sort(u.groups)
	u.groups = slices.Compact(u.groups)
	switch us := os.Geteuid(); {
	case u.uid == us:
		return daemonUser{}, nil
	case us != 0:
		return daemonUser{}, fmt.Errorf("user: drawbridged was started as uid %d and cannot change to %s: start it as root or as %s", us, name, name)
	}
	return u, nil
}

// become changes the whole process to u, for good, and verifies that it cannot change back.
func (u daemonUser) become() error {
	if !u.changes() {
		return nil
	}
	if err := syscall.Setgroups(u.groups); err != nil {
		return fmt.Errorf("user: changing to the groups of %s: %w", u.name, err)
	}
	if err := syscall.Setresgid(u.gid, u.gid, u.gid); err != nil {
		return fmt.Errorf("user: changing to group %d of %s: %w", u.gid, u.name, err)
	}
	if err := syscall.Setresuid(u.uid, u.uid, u.uid); err != nil {
		return fmt.Errorf("user: changing to %s: %w", u.name, err)
	}
	ruid, euid, suid := unix.Getresuid()
	rgid, egid, sgid := unix.Getresgid()
	if ruid != u.uid || euid != u.uid || suid != u.uid || rgid != u.gid || egid != u.gid || sgid != u.gid {
		return fmt.Errorf("user: changing to %s left the process as uid %d, gid %d", u.name, euid, egid)
	}
	if syscall.Setresuid(0, 0, 0) == nil {
		return fmt.Errorf("user: the process can change back from %s to root: start it without ambient capabilities", u.name)
	}
	return nil
}

// own makes u the owner of a state directory that root owned until now, and of what is in it. The
// directory is last, so that an interrupted change is made again. A directory that is open to
// others, or has files and none of a daemon's, is refused: a mistyped setting must not give away
// /etc.
func (u daemonUser) own(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // nothing was written through it
	info, err := root.Stat(".")
	if err != nil {
		return err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("%s is open to others (mode %04o): name another directory, or 'chmod 0700 %s'", dir, info.Mode().Perm(), dir)
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	if len(entries) > 0 && !slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == "pepper" || e.Name() == "store-id" }) {
		return fmt.Errorf("%s contains %q, which is not the daemon's: name another directory", dir, entries[0].Name())
	}
	err = fs.WalkDir(root.FS(), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || path == "." {
			return err
		}
		return root.Lchown(path, u.uid, u.gid)
	})
	return cmp.Or(err, root.Lchown(".", u.uid, u.gid))
}

// warnOfFiles names the files that u must reach later and cannot.
func (u daemonUser) warnOfFiles(cfg *config.Config, log hclog.Logger) {
	if !u.changes() {
		if os.Geteuid() == 0 {
			log.Warn("drawbridged keeps running as root: name a user of its own in the setting user")
		}
		return
	}
	log.Info("running as the user of the settings", "user", u.name, "uid", u.uid)
	const again = "a reload is refused until it may"
	for _, f := range []struct {
		setting, path, then string
		mode                uint32
	}{
		{"regions.database", cfg.Regions.Database, again, unix.R_OK},
		{"regions.networks", cfg.Regions.Networks, again, unix.R_OK},
		{"login.key_file", cfg.Login.KeyFile, again, unix.R_OK},
		{"store.password_file", cfg.Store.PasswordFile, again, unix.R_OK},
		{"store.tls_ca_file", cfg.Store.TLSCAFile, again, unix.R_OK},
		{"store.tls_key_file", cfg.Store.TLSKeyFile, again, unix.R_OK},
		{"sasl.next", cfg.SASL.Next, "logins that Dovecot decides are temporary failures", unix.W_OK},
	} {
		if errors.Is(unix.Access(f.path, f.mode), unix.EACCES) {
			log.Warn(f.setting+": the daemon's user may not use the file: "+f.then, "path", f.path, "user", u.name)
		}
	}
}
