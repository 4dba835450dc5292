package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// atOnce is how many clients act at the same time.
const atOnce = 8

const (
	noDelivery = "virtual_transport = discard:\n"
	noMilters  = "smtpd_milters =\nnon_smtpd_milters =\n"
	taking     = "smtpd_milters = unix:private/taking-milter\nnon_smtpd_milters =\n"
	asking     = "smtpd_milters = unix:private/blind-milter\nnon_smtpd_milters =\n"
	blind      = "smtpd_sasl_path = private/blind-auth\ndrawbridge_policy = check_policy_service unix:private/blind-policy\n"
)

// mailboxes have a hash that costs little, so that it does not hide the rest.
var mailboxes = []trialstack.Account{
	{Address: "ann@example.org", Password: "ann-mailbox"},
	{Address: "bob@example.org", Password: "bob-mailbox"},
}

// A setup is one stack of a comparison, and the password that its clients enter.
type setup struct {
	name string
	goal string
	// against is the goal as a share of the setup before it; "" if that is of no interest.
	against string
	secure  bool   // a secure password; else the mailbox password, which the next passdb validates
	check   string // the domain's sender_check, "" means both
	rules   bool   // a group, an internal-only rule and a limit are in force (M5, M7, M9)
	blind   bool   // a server that does not look answers Dovecot in place of the daemon
	opts    trialstack.Options

	stack    *trialstack.Stack
	standIns int // process id, 0 for none
	password string
}

// cpu is the processor time of the site and its clients.
func (s *setup) cpu() time.Duration {
	var own syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &own) // never fails
	return time.Duration(own.Utime.Nano()+own.Stime.Nano()) + s.stack.CPU() + trialstack.ProcessCPU(s.standIns)
}

// prepare creates the domain, and the password that the clients enter.
func (s *setup) prepare(ctx context.Context) error {
	account := s.stack.Accounts[0]
	s.password = account.Password
	if s.opts.WithoutDrawbridge {
		return nil
	}
	if s.blind {
		return s.stack.Daemons[0].Stop()
	}
	api := s.stack.Daemons[0].HTTP()
	domain := map[string]any{"name": "example.org", "third_party_access": map[string]any{"allow": true}}
	if s.check != "" {
		domain["sender_check"] = s.check
	}
	if _, err := call(ctx, api, "POST", "/v1/domains", domain); err != nil {
		return err
	}
	if s.rules {
		if err := s.mailRules(ctx); err != nil {
			return err
		}
	}
	if !s.secure {
		return nil
	}
	made, err := call(ctx, api, "POST", "/v1/accounts/"+account.Address+"/secure-passwords", map[string]any{"label": "bench"})
	if err != nil {
		return err
	}
	s.password, _ = made["secret"].(string)
	return nil
}

// mailRules puts rules in force that concern each message, and permit it.
func (s *setup) mailRules(ctx context.Context) error {
	api := s.stack.Daemons[0].HTTP()
	for path, body := range map[string]map[string]any{
		"/v1/groups/team@example.org":               {"members": []string{"ann@example.org"}, "who_may_send": "members"},
		"/v1/domains/example.org/mail-rules/inside": {"name": "inside", "kind": "internal_only", "scope": map[string]any{"all": true}},
		"/v1/domains/example.org/mail-rules/few": {
			"name": "few", "kind": "limit", "scope": map[string]any{"all": true},
			"action": map[string]any{"per": "credential", "recipients_per_hour": 100_000_000, "messages_per_day": 100_000_000},
		},
	} {
		if _, err := call(ctx, api, "PUT", path, body); err != nil {
			return err
		}
	}
	return nil
}

// benchSubmissions compares whole submissions with those of a site without Drawbridge.
func benchSubmissions(ctx context.Context) error {
	series, err := trialstack.DovecotSeries()
	if err != nil {
		return err
	}
	door := func(mainCF string) trialstack.Options {
		return trialstack.Options{SASLDoor: true, DoorAlone: true, MainCF: noDelivery + mainCF}
	}
	relayed := door(noMilters)
	relayed.DovecotConf = "auth_policy_server_url =\n"
	sites := []*setup{
		{name: "Postfix and Dovecot alone", opts: trialstack.Options{WithoutDrawbridge: true, MainCF: noDelivery}},
		{name: "floor: SASL and policy servers that do not look", opts: door(noMilters + blind)},
		{name: "SASL door and policyd, secure password", goal: "≥ 0.93", secure: true, check: "envelope", opts: door(noMilters)},
		{name: "… mailbox password, relayed to the next passdb", goal: "≥ 0.85", check: "envelope", opts: door(noMilters)},
		{name: "… the same without Dovecot's auth-policy requests", check: "envelope", opts: relayed},
		{name: "… secure password, and the milter (M1)", goal: "≥ 0.74", secure: true, opts: door("")},
		{name: "… the same with a group, an internal-only rule and a limit (M5, M7, M9)", goal: "≥ 0.85", secure: true, rules: true, opts: door("")},
		{name: "… and a milter that asks for the same and does not look", secure: true, check: "envelope", opts: door(asking)},
		{name: "… and go-milter taking everything instead", secure: true, check: "envelope", opts: door(taking)},
	}
	if series == "2.3" {
		sites = append(sites, &setup{name: "checkpassword, policyd and the milter, secure password", secure: true, opts: trialstack.Options{MainCF: noDelivery}})
	}
	return compare(ctx, "submission ("+series+")", sites, submission)
}

// benchLogins compares IMAP logins with those of a site without Drawbridge.
func benchLogins(ctx context.Context) error {
	series, err := trialstack.DovecotSeries()
	if err != nil {
		return err
	}
	lua := trialstack.Options{Lua: true}
	alone := trialstack.Options{Lua: true, Settings: map[string]any{"notify.abnormal_logins": "off"}}
	sites := []*setup{
		{name: "Dovecot alone", opts: trialstack.Options{WithoutDrawbridge: true}},
		{name: "floor: Lua and a server that does not look", blind: true, opts: lua},
		{name: "Lua, secure password, without comparing logins with the usual ones (F14)", secure: true, opts: alone},
		{name: "Lua, secure password", goal: "≥ 0.92", against: "≥ 0.97", secure: true, opts: lua},
		{name: "Lua, mailbox password at the next passdb", opts: lua},
	}
	if series == "2.3" {
		sites = append(sites,
			&setup{name: "checkpassword, secure password", secure: true},
			&setup{name: "checkpassword, mailbox password at the next passdb"})
	}
	return compare(ctx, "IMAP login ("+series+")", sites, login)
}

// compare measures an action at all sites in turns and prints each as a share of the first.
func compare(ctx context.Context, action string, sites []*setup, act func(context.Context, *setup) error) error {
	options := make([]trialstack.Options, len(sites))
	for i, s := range sites {
		options[i] = s.opts
		options[i].Accounts = mailboxes
	}
	return withStacks(ctx, options, func(stacks []*trialstack.Stack) error {
		rates, costs := make([][]float64, len(sites)), make([][]float64, len(sites))
		for i, s := range sites {
			s.stack = stacks[i]
			if err := s.prepare(ctx); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			stop, err := s.startStandIns(ctx)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			defer stop()
		}
		for round := range rounds {
			for i, s := range sites {
				rate, cost, err := repeat(ctx, s, act)
				if err != nil {
					return fmt.Errorf("%s: %w", s.name, err)
				}
				if round > 0 { // the first starts processes
					rates[i], costs[i] = append(rates[i], rate), append(costs[i], cost)
				}
			}
		}
		for i, s := range sites {
			rate, cost := median(rates[i]), median(costs[i])
			line(action+": "+s.name, fmt.Sprintf("%.2f  (%.0f a second), CPU %.2f  (%.2f ms)",
				rate/median(rates[0]), rate, cost/median(costs[0]), cost), s.goal)
			if s.against != "" {
				line(action+": "+s.name+", of the row above", fmt.Sprintf("%.2f", rate/median(rates[i-1])), s.against)
			}
		}
		return nil
	})
}

// standIns serve in place of parts of a site and do nothing. Postfix names them private/NAME. Each
// site's are a process of their own, as a daemon is.
var standIns = map[string]func(context.Context, net.Listener) error{
	"taking-milter": func(_ context.Context, l net.Listener) error {
		return (&gomilter.Server{NewMilter: func() gomilter.Milter { return gomilter.NoOpMilter{} }}).Serve(l)
	},
	"blind-milter": serveContinue,
	"blind-auth":   serveOK,
	"blind-policy": serveDunno,
}

// startStandIns starts those that a site's Postfix names, and the one that Dovecot asks.
func (s *setup) startStandIns(ctx context.Context) (stop func(), err error) {
	var sockets []string
	for name := range standIns {
		if strings.Contains(s.opts.MainCF, "private/"+name) {
			sockets = append(sockets, filepath.Join(s.stack.Dir, "postfix", "queue", "private", name))
		}
	}
	if s.blind {
		sockets = append(sockets, s.stack.Daemons[0].LoginAddr)
	}
	if len(sockets) == 0 {
		return func() {}, nil
	}
	s.standIns, stop, err = start(ctx, append([]string{"stand-ins"}, sockets...)...)
	if err == nil {
		err = await(sockets)
	}
	return stop, err
}

// network returns "unix" for a path, "tcp" for a host and port.
func network(socket string) string {
	if strings.Contains(socket, "/") {
		return "unix"
	}
	return "tcp"
}

// serveStandIns serves on unix sockets with the names of stand-ins, and admits every login that is
// asked about at a host and port.
func serveStandIns(ctx context.Context, sockets []string) error {
	for _, path := range sockets {
		l, err := net.Listen(network(path), path) //nolint:noctx // closed with ctx
		if err != nil {
			return err
		}
		context.AfterFunc(ctx, func() { _ = l.Close() })
		if network(path) == "tcp" {
			go func() { _ = http.Serve(l, http.HandlerFunc(admit)) }() //nolint:gosec // G114: a stand-in on loopback
			continue
		}
		if err := os.Chmod(path, 0o666); err != nil { //nolint:gosec // G302: Postfix runs as its own user
			return err
		}
		go func() { _ = standIns[filepath.Base(path)](ctx, l) }()
	}
	<-ctx.Done()
	return ctx.Err()
}

// serveContinue is a milter that asks for what ours asks for to check the From header, and accepts
// every message at the end of its header.
func serveContinue(ctx context.Context, l net.Listener) error {
	const options = gomilter.OptNoHelo | gomilter.OptNoUnknown | gomilter.OptNoData | gomilter.OptNoHeaderReply | gomilter.OptNoRcptTo | gomilter.OptNoBody
	agreed := binary.BigEndian.AppendUint32([]byte("\x00\x00\x00\x0dO\x00\x00\x00\x02\x00\x00\x00\x11"), uint32(options))
	for {
		c, err := l.Accept()
		if err != nil {
			return ctx.Err()
		}
		go func() {
			defer func() { _ = c.Close() }()
			in := bufio.NewReader(c)
			for {
				head, err := in.Peek(5)
				if err != nil {
					return
				}
				code := head[4]
				if _, err := in.Discard(4 + int(binary.BigEndian.Uint32(head))); err != nil {
					return
				}
				switch code {
				case byte(gomilter.CodeOptNeg):
					_, err = c.Write(agreed)
				case byte(gomilter.CodeConn), byte(gomilter.CodeMail):
					_, err = c.Write([]byte("\x00\x00\x00\x01c"))
				case byte(gomilter.CodeEOH), byte(gomilter.CodeEOB):
					_, err = c.Write([]byte("\x00\x00\x00\x01a"))
				}
				if err != nil {
					return
				}
			}
		}()
	}
}

// serveOK answers every AUTH of Dovecot's authentication protocol with OK.
func serveOK(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return ctx.Err()
		}
		go func() {
			defer func() { _ = c.Close() }()
			_, err := io.WriteString(c, "VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nCUID\t1\nCOOKIE\t00112233445566778899aabbccddeeff\nDONE\n")
			for lines := bufio.NewScanner(c); err == nil && lines.Scan(); {
				if verb, rest, _ := strings.Cut(lines.Text(), "\t"); verb == "AUTH" {
					id, _, _ := strings.Cut(rest, "\t")
					_, err = io.WriteString(c, "OK\t"+id+"\tuser="+mailboxes[0].Address+"\n")
				}
			}
		}()
	}
}

// admit answers Dovecot's passdb and its auth-policy requests.
func admit(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	w.Header().Set("Content-Type", "application/json")
	if strings.HasPrefix(r.URL.Path, "/v1/dovecot/") {
		_, _ = io.WriteString(w, `{"status":0,"msg":""}`)
		return
	}
	_, _ = io.WriteString(w, `{"outcome":"allow","message":"","user":"","credential_id":""}`)
}

// repeat repeats an action for three seconds, atOnce at a time. It returns the actions per second
// and the milliseconds of processor time that one took, the client's included.
func repeat(ctx context.Context, s *setup, act func(context.Context, *setup) error) (rate, cost float64, err error) {
	var done atomic.Int64
	var mu sync.Mutex
	var failed error
	var all sync.WaitGroup
	begin, spent := time.Now(), s.cpu()
	for range atOnce {
		all.Go(func() {
			for time.Since(begin) < 3*time.Second && ctx.Err() == nil {
				if err := act(ctx, s); err != nil {
					mu.Lock()
					defer mu.Unlock()
					failed = errors.Join(failed, err)
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	if failed == nil {
		failed = ctx.Err()
	}
	n := float64(done.Load())
	took := time.Since(begin)
	return n / took.Seconds(), (s.cpu() - spent).Seconds() * 1000 / n, failed
}

func login(ctx context.Context, s *setup) error {
	c, err := mailclient.Client{From: trialstack.Outside}.IMAP(ctx, s.stack.IMAP())
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	r, err := c.Login(s.stack.Accounts[0].Address, s.password)
	if err == nil && !r.OK() {
		err = fmt.Errorf("login: %s", r.Status)
	}
	return err
}

// message of four kilobytes.
var message = "From: Ann <ann@example.org>\r\nTo: bob@example.org\r\nSubject: bench\r\n\r\n" +
	strings.Repeat(strings.Repeat("x", 76)+"\r\n", 51)

func submission(ctx context.Context, s *setup) error {
	account := s.stack.Accounts[0].Address
	c, answer, err := mailclient.Client{From: trialstack.Outside}.Login(ctx, s.stack.Submission(), account, s.password)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	if !strings.HasPrefix(answer, "235") {
		return fmt.Errorf("AUTH: %s", answer)
	}
	if answer, err = c.Send(account, "bob@example.org", message); err == nil && !strings.HasPrefix(answer, "250") {
		err = fmt.Errorf("DATA: %s", answer)
	}
	if err == nil {
		_, err = c.Command("QUIT")
	}
	return err
}
