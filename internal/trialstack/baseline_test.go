package trialstack

import (
	"context"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
)

// baseline is the site before Drawbridge came.
func baseline(t *testing.T) (context.Context, *Stack) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	dir, err := TempDir()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	stack, err := New(dir, Options{WithoutDrawbridge: true, DovecotConf: QuickFailures})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stack.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := stack.Start(ctx); err != nil {
		t.Fatal(err)
	}
	return ctx, stack
}

// want fails the test unless a reply begins as it should.
func want(t *testing.T, reply string, err error, prefix string) {
	t.Helper()
	if err != nil || !strings.HasPrefix(reply, prefix) {
		t.Errorf("reply %q, error %v; want %q", reply, err, prefix)
	}
}

// hangUp closes a session at the end of the test.
func hangUp(t *testing.T, s *mailclient.Session) {
	t.Helper()
	t.Cleanup(func() { _ = s.Close() }) // the server may have hung up first
}

// received waits for a message with a subject in an inbox.
func received(ctx context.Context, t *testing.T, stack *Stack, address, subject string) string {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		messages, err := stack.Inbox(address)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range messages {
			if strings.Contains(m, "\nSubject: "+subject+"\n") {
				return m
			}
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no message %q for %s: %v%s", subject, address, ctx.Err(), lastLines(stack.Postfix.LogPath, 0))
		case <-tick.C:
		}
	}
}

func message(from, to, subject string) string {
	return "From: " + from + "\nTo: " + to + "\nSubject: " + subject + "\n\nHello.\n.\n"
}

// The site as it was before Drawbridge: what it must go on doing with it.
func TestBaseline(t *testing.T) {
	ctx, stack := baseline(t)
	t.Run("logins", func(t *testing.T) { baselineLogins(ctx, t, stack) })
	t.Run("mail", func(t *testing.T) { baselineMail(ctx, t, stack) })
	t.Run("redirect", func(t *testing.T) { baselineRedirect(ctx, t, stack) })
	t.Run("addresses", func(t *testing.T) { baselineAddresses(ctx, t, stack) })
}

// The mailbox password opens every door of the site as it was, and a wrong one none.
func baselineLogins(ctx context.Context, t *testing.T, stack *Stack) {
	client := mailclient.Client{From: Outside}

	logins := []struct {
		name          string
		login         func(t *testing.T, user, password string) (string, error)
		admit, refuse string
	}{
		{"imap", func(t *testing.T, user, password string) (string, error) {
			s, err := client.IMAP(ctx, stack.IMAP())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			reply, err := s.Login(user, password)
			return reply.Status, err
		}, "OK ", "NO ["},
		{"imap with starttls", func(t *testing.T, user, password string) (string, error) {
			s, err := client.IMAP(ctx, stack.IMAP())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			if reply, err := s.StartTLS(); err != nil {
				return reply.Status, err
			}
			reply, err := s.Authenticate(user, password)
			return reply.Status, err
		}, "OK ", "NO ["},
		{"imaps", func(t *testing.T, user, password string) (string, error) {
			s, err := client.IMAPS(ctx, stack.IMAPS())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			if _, err := s.ID("name", "Thunderbird"); err != nil {
				return "", err
			}
			reply, err := s.Authenticate(user, password)
			return reply.Status, err
		}, "OK ", "NO ["},
		{"pop3 with stls", func(t *testing.T, user, password string) (string, error) {
			s, err := client.POP3(ctx, stack.POP3())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			if reply, err := s.StartTLS(); err != nil {
				return reply, err
			}
			return s.Login(user, password)
		}, "+OK Logged in.", "-ERR [AUTH] "},
		{"pop3s", func(t *testing.T, user, password string) (string, error) {
			s, err := client.POP3S(ctx, stack.POP3S())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			return s.Authenticate(user, password)
		}, "+OK Logged in.", "-ERR [AUTH] "},
		{"sieve", func(t *testing.T, user, password string) (string, error) {
			s, err := client.Sieve(ctx, stack.Sieve())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			if reply, err := s.StartTLS(); err != nil {
				return reply, err
			}
			return s.Authenticate(user, password)
		}, "OK ", "NO "},
		{"submission", func(t *testing.T, user, password string) (string, error) {
			s, reply, err := client.Login(ctx, stack.Submission(), user, password)
			if err == nil {
				hangUp(t, s.Session)
			}
			return reply, err
		}, "235 2.7.0 ", "535 5.7.8 "},
		{"smtps", func(t *testing.T, user, password string) (string, error) {
			s, err := client.SMTPS(ctx, stack.SMTPS())
			if err != nil {
				return "", err
			}
			hangUp(t, s.Session)
			if reply, err := s.Hello(); err != nil {
				return reply, err
			}
			return s.AuthenticateLogin(user, password)
		}, "235 2.7.0 ", "535 5.7.8 "},
	}
	for _, l := range logins {
		t.Run(l.name, func(t *testing.T) {
			for _, account := range stack.Accounts {
				reply, err := l.login(t, account.Address, account.Password)
				want(t, reply, err, l.admit)
			}
			reply, err := l.login(t, "ann@example.org", "wrong")
			want(t, reply, err, l.refuse)
			reply, err = l.login(t, "ann@example.org*"+MasterUser, MasterPassword)
			want(t, reply, err, l.admit)
			reply, err = l.login(t, "ann@example.org*"+MasterUser, "ann-mailbox")
			want(t, reply, err, l.refuse)
			reply, err = l.login(t, "nobody@example.org*"+MasterUser, MasterPassword)
			want(t, reply, err, l.refuse)
		})
	}
}

// Mail arrives from outside, from a login and from a local program; foreign domains are out of
// reach.
func baselineMail(ctx context.Context, t *testing.T, stack *Stack) {
	client := mailclient.Client{From: Outside}

	in, err := client.SMTP(ctx, stack.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, in.Session)
	hello, err := in.Hello()
	want(t, hello, err, "250-"+Hostname)
	if strings.Contains(hello, "AUTH") {
		t.Errorf("port 25 offers logins: %q", hello)
	}
	reply, err := in.Send("zoe@example.com", "ann@example.org", message("zoe@example.com", "ann@example.org", "from outside"))
	want(t, reply, err, "250 2.0.0 Ok")
	if got := received(ctx, t, stack, "ann@example.org", "from outside"); !strings.HasSuffix(got, "\n\nHello.\n.\n") {
		t.Errorf("the message arrived as %q", got)
	}
	reply, err = in.Send("zoe@example.com", "someone@example.com", message("zoe@example.com", "someone@example.com", "relayed"))
	want(t, reply, err, "554 5.7.1 ")
	_, err = in.Command("RSET")
	if err != nil {
		t.Fatal(err)
	}
	reply, err = in.Send("zoe@example.com", "nobody@example.org", message("zoe@example.com", "nobody@example.org", "lost"))
	want(t, reply, err, "550 5.1.1 ")

	out, reply, err := client.Login(ctx, stack.Submission(), "ann@example.org", "ann-mailbox")
	want(t, reply, err, "235 ")
	hangUp(t, out.Session)
	reply, err = out.Send("ann@example.org", "bob@example.org", message("ann@example.org", "bob@example.org", "from ann"))
	want(t, reply, err, "250 2.0.0 Ok")
	received(ctx, t, stack, "bob@example.org", "from ann")

	if err := stack.Sendmail(ctx, "carol@example.org", "bob@example.org", message("carol@example.org", "bob@example.org", "from a program")); err != nil {
		t.Fatal(err)
	}
	received(ctx, t, stack, "bob@example.org", "from a program")

	pop, err := client.POP3(ctx, stack.POP3())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, pop.Session)
	reply, err = pop.Login("ann@example.org", "ann-mailbox")
	want(t, reply, err, "+OK")
	status, lines, err := pop.Retrieve("1")
	want(t, status, err, "+OK")
	if !slices.Contains(lines, "Subject: from outside") {
		t.Errorf("POP3 retrieves %q", lines)
	}
}

// A user's own script forwards mail, over SMTP.
func baselineRedirect(ctx context.Context, t *testing.T, stack *Stack) {
	client := mailclient.Client{From: Outside}
	s, err := client.Sieve(ctx, stack.Sieve())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, s.Session)
	status, err := s.Authenticate("bob@example.org", "bob-mailbox")
	want(t, status, err, "OK ")
	status, err = s.Install("forward", "redirect \"carol@example.org\";\n")
	want(t, status, err, "OK")

	in, err := client.SMTP(ctx, stack.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, in.Session)
	reply, err := in.Hello()
	want(t, reply, err, "250-")
	reply, err = in.Send("zoe@example.com", "bob@example.org", message("zoe@example.com", "bob@example.org", "forward me"))
	want(t, reply, err, "250 2.0.0 Ok")
	if got := received(ctx, t, stack, "carol@example.org", "forward me"); !strings.Contains(got, "X-Sieve-Redirected-From: bob@example.org\n") {
		t.Errorf("the forwarded message bears no mark: %q", got)
	}
}

// The servers see where a client comes from, and the webmail's host may speak for its user.
func baselineAddresses(ctx context.Context, t *testing.T, stack *Stack) {
	for _, c := range []struct{ from, forwarded, seen string }{
		{"127.0.1.1", "", "127.0.1.1"},
		{Outside, "203.0.113.7", Outside},
		{Webmail, "203.0.113.7", "203.0.113.7"},
	} {
		log, err := Follow(stack.Dovecot.LogPath)
		if err != nil {
			t.Fatal(err)
		}
		s, err := mailclient.Client{From: c.from}.IMAP(ctx, stack.IMAP())
		if err != nil {
			t.Fatal(err)
		}
		hangUp(t, s.Session)
		if c.forwarded != "" {
			if _, err := s.ID("x-originating-ip", c.forwarded); err != nil {
				t.Fatal(err)
			}
		}
		reply, err := s.Login("ann@example.org", "ann-mailbox")
		want(t, reply.Status, err, "OK ")
		line, err := log.Wait(ctx, regexp.MustCompile(`(Login|Logged in): user=<ann@example\.org>`))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, "rip="+c.seen+",") {
			t.Errorf("a client from %s that names %q is seen as %q", c.from, c.forwarded, line)
		}
	}
}

// Servers are stopped, killed and started one by one; what clients see of it is theirs to see.
func TestServices(t *testing.T) {
	ctx, stack := baseline(t)
	client := mailclient.Client{From: Outside}
	login := func() (string, error) {
		s, err := client.IMAP(ctx, stack.IMAP())
		if err != nil {
			return "", err
		}
		hangUp(t, s.Session)
		reply, err := s.Login("ann@example.org", "ann-mailbox")
		return reply.Status, err
	}
	for _, end := range []func() error{stack.Dovecot.Stop, stack.Dovecot.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if stack.Dovecot.PID() != 0 {
			t.Error("a Dovecot that was stopped has a process")
		}
		if err := stack.Dovecot.Start(ctx); err != nil {
			t.Fatal(err)
		}
		reply, err := login()
		want(t, reply, err, "OK ")
	}
	for _, end := range []func() error{stack.Postfix.Stop, stack.Postfix.Kill} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
		if _, err := client.SMTP(ctx, stack.SMTP()); err == nil {
			t.Error("a Postfix that was stopped answers")
		}
		if err := stack.Postfix.Start(ctx); err != nil {
			t.Fatal(err)
		}
		s, reply, err := client.Login(ctx, stack.Submission(), "ann@example.org", "ann-mailbox")
		want(t, reply, err, "235 ")
		hangUp(t, s.Session)
	}
	if err := stack.Dovecot.Start(ctx); err == nil || !strings.Contains(err.Error(), "runs already") {
		t.Errorf("a second start gives %v", err)
	}
}

// An end that nobody asked for is reported, and Stop leaves no process behind.
func TestDeathAndStop(t *testing.T) {
	ctx, stack := baseline(t)
	s, err := mailclient.Client{From: Outside}.IMAP(ctx, stack.IMAP())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, s.Session)
	reply, err := s.Login("ann@example.org", "ann-mailbox")
	want(t, reply.Status, err, "OK ")

	dovecot := leader{pid: stack.Dovecot.PID()}
	postfix := leader{pid: stack.Postfix.PID()}
	for _, l := range []*leader{&dovecot, &postfix} {
		p, err := readProcess(l.pid)
		if err != nil {
			t.Fatal(err)
		}
		l.start = p.start
		if len(l.family()) == 0 {
			t.Errorf("server %d has no processes", l.pid)
		}
	}
	if err := stack.Dovecot.running.handle.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-stack.Died():
		if !strings.Contains(err.Error(), "dovecot ended by itself (signal: killed)") {
			t.Errorf("the death is reported as %v", err)
		}
	case <-ctx.Done():
		t.Fatal("the death is not reported")
	}
	if err := stack.Stop(); err != nil {
		t.Error(err)
	}
	for _, l := range []leader{dovecot, postfix} {
		if left := l.family(); len(left) > 0 {
			t.Errorf("after Stop there are still %+v", left)
		}
	}
	if err := stack.Start(ctx); err == nil {
		t.Error("a stopped stack starts again without its directory")
	}
}

// What an earlier process left running is ended by the next start in its directory, and mail is
// still there.
func TestNextRun(t *testing.T) {
	ctx, stack := baseline(t)
	in, err := mailclient.Client{From: Outside}.SMTP(ctx, stack.SMTP())
	if err != nil {
		t.Fatal(err)
	}
	hangUp(t, in.Session)
	reply, err := in.Hello()
	want(t, reply, err, "250-")
	reply, err = in.Send("zoe@example.com", "ann@example.org", message("zoe@example.com", "ann@example.org", "kept"))
	want(t, reply, err, "250 ")
	received(ctx, t, stack, "ann@example.org", "kept")

	if _, err := New(stack.Dir, Options{WithoutDrawbridge: true}); err == nil || !strings.Contains(err.Error(), "another trial stack is running") {
		t.Errorf("a second stack in one directory gives %v", err)
	}
	second, err := New(stack.Dir+"2", Options{WithoutDrawbridge: true, Ports: stack.Ports})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(second.Stop(), os.RemoveAll(second.Dir)); err != nil {
			t.Error(err)
		}
	})
	if err := second.Start(ctx); !errors.Is(err, ErrPortTaken) || !regexp.MustCompile(`port \d+ \(imap\) by dovecot \(process \d+\)`).MatchString(err.Error()) {
		t.Errorf("taken ports give %v", err)
	}

	stack.unlock() // as if this process were gone
	next, err := New(stack.Dir, Options{WithoutDrawbridge: true, Ports: stack.Ports})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := next.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := next.Start(ctx); err != nil {
		t.Fatal(err)
	}
	received(ctx, t, next, "ann@example.org", "kept")
}
