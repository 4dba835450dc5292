package doctor

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/listen"
)

const (
	answerTime = 2 * time.Second
	maxAnswer  = 4 << 10 // bytes
)

// askDaemon asks each listener of the daemon something that changes nothing.
func askDaemon(ctx context.Context, c *config.Config) findings {
	var f findings
	for _, door := range []struct {
		check, setting, then string
		specs                []listen.Spec
		ask                  func(context.Context, listen.Spec) error
	}{
		{"daemon.login", "login.listen", "logins over it are temporary failures", c.Login.Listen, askLogin},
		{"daemon.sasl", "sasl.listen", "Postfix answers 454 to every login", c.SASL.Listen, askSASL},
		{"daemon.policyd", "policyd.listen", "Postfix does what the policy service's default_action says", c.Policyd.Listen, askPolicy},
		{"daemon.milter", "milter.listen", "Postfix does what milter_default_action says", c.Milter.Listen, askMilter},
	} {
		for _, spec := range door.specs {
			if !askable(spec) {
				continue
			}
			switch err := door.ask(ctx, spec); {
			case err == nil:
				f.ok(door.check, spec.Address(), "%s answers", spec.Address())
			case errors.Is(err, fs.ErrPermission):
				f.warn(door.check, spec.Address(), "# run this as root", "permission denied")
			default:
				f.fail(door.check, door.setting+": "+spec.Address(), "systemctl status drawbridge", "%v: %s", plainly(err), door.then)
			}
		}
	}
	return f
}

// plainly leaves out the address, which the finding says already.
func plainly(err error) error {
	if op := new(net.OpError); errors.As(err, &op) {
		return op.Err
	}
	return err
}

// askable leaves out what does not speak in clear, or not to this machine.
func askable(s listen.Spec) bool {
	admitted := len(s.AllowFrom) == 0
	for _, n := range s.AllowFrom {
		admitted = admitted || n.Contains(dialable(s).Addr())
	}
	return s.Unix() || !s.TLS() && s.Addr.Port() != 0 && admitted
}

// dialable is where a listener on all addresses is reached from here.
func dialable(s listen.Spec) netip.AddrPort {
	switch a := s.Addr.Addr(); {
	case a == netip.IPv4Unspecified():
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), s.Addr.Port())
	case a == netip.IPv6Unspecified():
		return netip.AddrPortFrom(netip.IPv6Loopback(), s.Addr.Port())
	}
	return s.Addr
}

func dial(ctx context.Context, s listen.Spec) (net.Conn, error) {
	d := net.Dialer{Timeout: answerTime}
	address := s.Path
	if !s.Unix() {
		address = dialable(s).String()
	}
	conn, err := d.DialContext(ctx, s.Network(), address)
	if err != nil {
		return nil, err
	}
	return conn, conn.SetDeadline(time.Now().Add(answerTime))
}

// askLogin asks a login listener whether it lives.
func askLogin(ctx context.Context, s listen.Spec) error {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, s) }}
	defer transport.CloseIdleConnections()
	client := http.Client{Transport: transport, Timeout: answerTime}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://login/livez", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("/livez answers %s", resp.Status)
	}
	return nil
}

// askSASL waits for the greeting of the authentication service, which offers PLAIN.
func askSASL(ctx context.Context, s listen.Spec) error {
	conn, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	lines := bufio.NewScanner(io.LimitReader(conn, maxAnswer))
	plain := false
	for lines.Scan() {
		switch line := lines.Text(); {
		case line == "MECH\tPLAIN\tplaintext":
			plain = true
		case line == "DONE" && plain:
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("closes without a greeting: %w", err)
	}
	return errors.New("does not greet as an authentication service does")
}

// askPolicy asks the policy service about mail without a login, in which there is nothing to
// refuse.
func askPolicy(ctx context.Context, s listen.Spec) error {
	const question = "request=smtpd_access_policy\nprotocol_state=RCPT\nprotocol_name=ESMTP\nclient_address=127.0.0.1\nclient_name=localhost\n" +
		"helo_name=localhost\nsender=\nrecipient=postmaster@localhost\nsasl_method=\nsasl_username=\ninstance=doctor\n\n"
	conn, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	if _, err := io.WriteString(conn, question); err != nil {
		return err
	}
	answer, err := bufio.NewReader(io.LimitReader(conn, maxAnswer)).ReadString('\n')
	switch {
	case err != nil:
		return fmt.Errorf("closes without an answer: %w", err)
	case !strings.EqualFold(strings.TrimSpace(answer), "action=DUNNO"):
		return fmt.Errorf("answers %q to a test request, where DUNNO is expected", strings.TrimSpace(answer))
	}
	return nil
}

// askMilter opens a milter's session and ends it again: SMFIC_OPTNEG of version 2 that offers
// nothing, then SMFIC_QUIT.
func askMilter(ctx context.Context, s listen.Spec) error {
	conn, err := dial(ctx, s)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	hello := append([]byte{0, 0, 0, 13, 'O'}, make([]byte, 12)...)
	binary.BigEndian.PutUint32(hello[5:], 6)     // version
	binary.BigEndian.PutUint32(hello[9:], 0x1ff) // all actions
	binary.BigEndian.PutUint32(hello[13:], 0x7f) // the steps of version 2 that may be left out
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var head [5]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return fmt.Errorf("closes without an answer: %w", err)
	}
	if size := binary.BigEndian.Uint32(head[:]); size < 13 || size > maxAnswer || head[4] != 'O' {
		return errors.New("does not answer as a milter does")
	}
	_, err = conn.Write([]byte{0, 0, 0, 1, 'Q'})
	return err
}

// askAPI asks the daemon whether it decides. The settings are nil if they are not known.
func askAPI(ctx context.Context, c *config.Config, api, keyFile string) findings {
	const check = "daemon.ready"
	var f findings
	client, err := adminclient.New(adminclient.Options{API: api, KeyFile: keyFile, Timeout: answerTime})
	if err != nil {
		f.fail(check, api, "drawbridge --api URL --key-file FILE doctor", "%v", err)
		return f
	}
	defer client.Close()
	answer, err := client.Do(ctx, adminclient.Request{Method: http.MethodGet, Path: "/readyz"})
	refused := new(adminclient.Problem)
	switch {
	case errors.As(err, &refused) && hasStatus(refused.Body, "damaged"):
		f.fail(check, api, "drawbridge --api URL store repair   # with the URL of a daemon that was running before the damage\n# without one: restore a backup of Redis, or accept the documents that are left: drawbridge store adopt",
			"the store is damaged, and this daemon started after that: it decides no logins and cannot repair the store")
	case err == nil && hasStatus(answer.Body, "damaged"):
		f.fail(check, api, "drawbridge store repair", "the store is damaged: changes are refused, and a daemon that starts decides no logins until it is repaired; this daemon was running before, so it can repair it: do not restart it")
	case errors.As(err, &refused):
		f.fail(check, api, "drawbridge status", "the daemon cannot decide logins: %v", err)
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, api, "# run this as root", "permission denied")
	case err != nil:
		f.fail(check, api, "systemctl status drawbridge", "%v", err)
	case hasStatus(answer.Body, "degraded"):
		f.warn(check, api, "drawbridge status", "degraded: until the store is back, logins are decided from the last known rules and changes are refused")
	default:
		f.ok(check, api, "the daemon is ready")
	}
	if err == nil {
		if c != nil {
			f = append(f, milterUse(c, answer.Body)...)
		}
		f = append(f, askStore(ctx, client, api)...)
		f = append(f, askRegions(ctx, client, api)...)
	}
	return f
}

// milterUse compares whether the daemon has a milter with whether its rules need one.
func milterUse(c *config.Config, readyz []byte) findings {
	const check, setting = "daemon.milter.use", "milter.listen"
	var f findings
	var health struct {
		Needed bool `json:"milter_needed"`
		Full   bool `json:"hold_dir_full"`
	}
	if err := json.Unmarshal(readyz, &health); err != nil {
		return nil // reported as the daemon's readiness
	}
	if health.Full {
		f.warn("daemon.hold_quota", "mail.hold_quota", fmt.Sprintf("# decide about held messages (drawbridge held list DOMAIN), or: [mail] hold_quota = %d", 2*c.Mail.HoldQuota),
			"more than nine tenths of %d MiB are used: messages that have to be held or copied will be refused for now", c.Mail.HoldQuota)
	}
	switch off := len(c.Milter.Listen) == 0; {
	case off && health.Needed:
		f.fail(check, setting, "[milter]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-milter?mode=0660&group=postfix\"]\n"+
			"# and in main.cf: smtpd_milters and non_smtpd_milters, see main.cf.drawbridge\n"+
			"# or, for each domain: drawbridge domain set DOMAIN --sender-check envelope --trace-header off",
			"is empty, and rules in force read headers or bodies of messages: they are not evaluated")
	case off:
		f.ok(check, setting, "is empty, and no rule in force needs the milter")
	case health.Needed:
		f.ok(check, setting, "rules in force need the milter")
	default:
		f.ok(check, setting, "no rule in force reads headers or bodies: the milter can be left out (milter.listen = [], no smtpd_milters), which makes submissions about a tenth faster")
	}
	return f
}

// askStore asks the daemon whether its Redis deletes rules when memory is full.
func askStore(ctx context.Context, client *adminclient.Client, server string) findings {
	const check, where = "store.eviction", "maxmemory-policy of Redis"
	const set = "redis-cli CONFIG SET maxmemory-policy noeviction   # with -s or -h, as in store.url\n# and in redis.conf: maxmemory-policy noeviction"
	var f findings
	answer, err := client.Do(ctx, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "store")})
	refused := new(adminclient.Problem)
	if errors.As(err, &refused) {
		return nil // this key may not know
	}
	var status api.StoreStatus
	if err == nil {
		err = json.Unmarshal(answer.Body, &status)
	}
	switch {
	case err != nil:
		f.warn(check, server, "drawbridge store status", "%v", err)
		return f
	case status.Policy == "":
		f.warn(check, where, "redis-cli ACL SETUSER NAME +info   # the user of store.username; with the default user, see whether Redis answers",
			"it is not known: if it is not noeviction, Redis deletes rules when its memory is full")
	case status.Evicting:
		f.fail(check, where, set, "it is %s%s: Redis deletes rules when its memory is full, and drawbridged does not start again", status.Policy, evicting(&status))
	case status.Policy != noEviction:
		f.warn(check, where, set, "it is %s%s, which store.accept_eviction accepts: Redis deletes rules when its memory is full", status.Policy, evicting(&status))
	default:
		f.ok(check, where, "noeviction")
	}
	return append(f, checkServers(&status)...)
}

// noEviction is the maxmemory-policy that Redis should have.
const noEviction = "noeviction"

// evicting names the servers that may delete documents, if there are several.
func evicting(s *api.StoreStatus) string {
	if len(s.Masters) < 2 {
		return ""
	}
	var list []string
	for _, m := range s.Masters {
		if m.Policy != noEviction {
			list = append(list, m.Address)
		}
	}
	return " on " + strings.Join(list, ", ")
}

// checkServers checks the servers of the store, as the daemon saw them last: whether each answers,
// and whether a failover is possible and loses little.
func checkServers(s *api.StoreStatus) (f findings) {
	const servers, aof, replicas = "store.servers", "store.append_only", "store.replicas"
	for _, n := range s.Sentinels {
		if n.Fault != "" {
			f.fail(servers, n.Address, "redis-cli -u redis://"+n.Address+" SENTINEL CKQUORUM MASTER   # MASTER is store.master", "this Sentinel cannot fail over: %s", n.Fault)
		} else {
			f.ok(servers, n.Address, "this Sentinel and enough others can fail over")
		}
	}
	for _, m := range s.Masters {
		at := "redis-cli -u redis://" + m.Address + " "
		if m.Fault != "" {
			f.fail(servers, m.Address, at+"PING", "this master cannot be used: %s", m.Fault)
			continue
		}
		if !m.AppendOnly {
			f.warn(aof, m.Address, at+"CONFIG SET appendonly yes   # and in redis.conf: appendonly yes, appendfsync everysec or always",
				"it writes no append-only file: acknowledged changes since its last dump are lost when it ends")
		}
		if m.AppendOnly {
			checkAppendFsync(&f, aof, at, &m)
		}
		if s.Mode != "sentinel" && s.Mode != "cluster" {
			continue
		}
		f.ok(servers, m.Address, "a master; replicas connected: %d", m.Replicas)
		if m.Replicas == 0 {
			f.warn(replicas, m.Address, at+"INFO replication", "no replica is connected: nothing takes over when it is lost")
		} else if !m.NeedsReplicas {
			f.warn(replicas, m.Address, at+"CONFIG SET min-replicas-to-write 1   # and in redis.conf, with min-replicas-max-lag 10",
				"min-replicas-to-write is not set: a master that was cut off accepts changes which the failover loses")
		}
	}
	return f
}

// checkAppendFsync says what of the append-only file a failure of the machine loses.
func checkAppendFsync(f *findings, check, at string, m *api.Master) {
	switch m.AppendFsync {
	case "always":
		f.ok(check, m.Address, "appendfsync always: no acknowledged change is lost when its machine fails")
	case "everysec":
		f.ok(check, m.Address, "appendfsync everysec: acknowledged changes of the last two seconds are lost when its machine fails; always loses none")
	case "no":
		f.warn(check, m.Address, at+"CONFIG SET appendfsync everysec   # or always, and the same in redis.conf",
			"appendfsync no: acknowledged changes of about the last 30 seconds are lost when its machine fails")
	case "": // it does not say
	}
}

// managed asks the daemon for its domains, with their mailbox_passwords; nil if it does not answer.
func managed(ctx context.Context, api, keyFile string) map[string]string {
	client, err := adminclient.New(adminclient.Options{API: api, KeyFile: keyFile, Timeout: answerTime})
	if err != nil {
		return nil
	}
	defer client.Close()
	domains := map[string]string{}
	query := url.Values{"limit": {"1000"}}
	for {
		answer, err := client.Do(ctx, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "domains"), Query: query})
		var list struct {
			Items []struct {
				Name             string `json:"name"`
				MailboxPasswords string `json:"mailbox_passwords"`
			} `json:"items"`
			Next string `json:"next"`
		}
		if err != nil || json.Unmarshal(answer.Body, &list) != nil || list.Items == nil {
			return nil
		}
		for _, d := range list.Items {
			domains[d.Name] = d.MailboxPasswords
		}
		if list.Next == "" {
			return domains
		}
		query.Set("cursor", list.Next)
	}
}

// maxRegionAge is the age from which a region database is reported: by then networks have moved.
const maxRegionAge = 180 // days

// askRegions asks the daemon for its databases of regions and networks. Without one, and without policies
// that want it, there is nothing to say.
func askRegions(ctx context.Context, client *adminclient.Client, api string) findings {
	const check, update = "daemon.regions", "apt-get update && apt-get install --only-upgrade tor-geoipdb\n# or fetch the file again that regions.database names"
	var f findings
	answer, err := client.Do(ctx, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "regions")})
	refused := new(adminclient.Problem)
	if errors.As(err, &refused) {
		return nil // this key may not know
	}
	type database struct {
		Kind    string
		Paths   []string
		AgeDays int `json:"age_days"`
		Error   string
		Missing string
	}
	var regions struct {
		database
		Domains  []string
		Networks *database
	}
	if err == nil {
		err = json.Unmarshal(answer.Body, &regions)
	}
	switch where := strings.Join(regions.Paths, ", "); {
	case err != nil:
		f.warn(check, api, "drawbridge region status", "%v", err)
	case regions.Kind == "none" && len(regions.Domains) > 0:
		f.warn(check, "regions.database", "apt-get install tor-geoipdb\n# or name a database in regions.database",
			"there is none, and policies of %s name regions: they refuse every public address", strings.Join(regions.Domains, ", "))
	case regions.Error != "":
		f.warn(check, where, "# repair the file", "the last good data stays in use: %s", regions.Error)
	case regions.Kind == "none":
	case regions.Missing != "":
		f.warn(check, where, "# name a database with both families in regions.database, or: apt-get install tor-geoipdb",
			"it has no %s addresses: they are unknown, and no whitelist of regions admits them", regions.Missing)
	case regions.AgeDays > maxRegionAge:
		f.warn(check, where, update, "the data is %d days old, and addresses have moved to other countries since", regions.AgeDays)
	default:
		f.ok(check, where, "the database of regions is %d days old", regions.AgeDays)
	}
	if n := regions.Networks; n != nil {
		const check = "daemon.networks"
		switch where := strings.Join(n.Paths, ", "); {
		case n.Error != "":
			f.warn(check, where, "# repair the file", "the last good data stays in use: %s", n.Error)
		case n.AgeDays > maxRegionAge:
			f.warn(check, where, "# fetch the file again that regions.networks names", "the data is %d days old, and addresses have moved to other networks since", n.AgeDays)
		default:
			f.ok(check, where, "the database of networks is %d days old", n.AgeDays)
		}
	}
	return f
}

func hasStatus(body []byte, status string) bool {
	var health struct {
		Status string `json:"status"`
	}
	return json.NewDecoder(bytes.NewReader(body)).Decode(&health) == nil && health.Status == status
}
