package daemon

import (
	"os"
	"slices"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/listen"
)

// An smtpd that starts while nobody listens on its SASL socket ends with a fatal error, and soon
// Postfix starts none for a minute. So the unit's FileDescriptorStoreMax= has systemd keep our unix
// sockets through a restart or a crash: what connects meanwhile waits.

// inherit takes over the sockets that the service manager has kept, and drops those that the
// settings no longer name.
func inherit(cfg *config.Config, owner int, log hclog.Logger) listen.Kept {
	kept := listen.Kept{}
	for _, file := range activation.Files(true) {
		kept[file.Name()] = file
	}
	specs := slices.Concat(cfg.Login.Listen, cfg.SASL.Listen, cfg.Policyd.Listen, cfg.Milter.Listen, cfg.API.Listen, cfg.Console.Listen)
	for _, name := range kept.Discard(specs, owner) {
		reportState(log, "FDSTOREREMOVE=1\nFDNAME="+name)
	}
	return kept
}

// keep asks the service manager, if there is one, to keep a socket open.
func keep(l socket, log hclog.Logger) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	err := l.Keep(func(name string, fd int) error {
		c, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(c) //nolint:errcheck // all is sent
		return unix.Sendmsg(c, []byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(fd), &unix.SockaddrUnix{Name: path}, 0)
	})
	if err != nil {
		log.Warn("the service manager cannot keep a socket through a restart", "socket", l.spec.Address(), "error", err)
	}
}
