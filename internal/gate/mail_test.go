package gate_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func (d *daemon) mailRule(r mailflow.Rule) {
	d.t.Helper()
	r.Enabled, r.Scope = true, access.Scope{All: true}
	d.change("example.org", func(c *store.Change) error {
		c.PutMailRule("example.org", &store.MailRule{Rule: r, CreatedAt: c.Now})
		return nil
	})
}

// rcpt asks about one recipient of a message.
func (d *daemon) rcpt(instance, login, from, to, client string) mailflow.Verdict {
	return d.Recipient(&mailflow.Envelope{Instance: instance, Login: login, Sender: from, Recipient: to, IP: ip(client), Port: 1})
}

// received ends a message that was accepted.
func (d *daemon) received(instance, queueID string, recipients int) {
	d.MessageEnded(&mailflow.Envelope{Instance: instance, QueueID: queueID, Recipients: recipients, Size: 100}, true)
}

// What is accepted on one daemon counts on the other; what is refused, given up or refused later by
// Postfix does not.
func TestMailLimits(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.daemon(t, next), s.daemon(t, next)
	a.domain(nil)
	a.mailRule(mailflow.Rule{ID: "few", Kind: mailflow.KindLimit, Action: mailflow.Action{RecipientsPerDay: 4, MessagesPerHour: 3}})
	redistest.Eventually(t, "the rule is known", func() bool { return b.Needs().Recipients })
	const ann = "ann@example.org"
	to := func(d *daemon, instance string, n int) mailflow.Verdict {
		return d.rcpt(instance, ann, ann, fmt.Sprintf("u%d@example.net", n), home)
	}
	for i := range 20 { // given up, each with what would be the bound
		for n := range 4 {
			if v := to(a, fmt.Sprintf("up%d", i), n); v.Refused {
				t.Fatalf("message %d, recipient %d: %+v", i, n, v)
			}
		}
		a.MessageEnded(&mailflow.Envelope{Instance: fmt.Sprintf("up%d", i)}, false)
	}
	for n := range 4 {
		to(a, "m1", n)
		to(a, "m1", n) // asked twice, by two restriction lists
	}
	if v := to(a, "m1", 4); !v.Refused || !v.Temporary || v.Reason != mailflow.ReasonLimit || v.Rule != "few" {
		t.Errorf("the fifth recipient: %+v", v)
	}
	a.received("m1", "Q1", 2) // two were refused by other restrictions
	redistest.Eventually(t, "the other daemon counts", func() bool {
		var refused []bool
		for n := range 3 {
			refused = append(refused, to(b, "probe", 10+n).Refused)
		}
		b.MessageEnded(&mailflow.Envelope{Instance: "probe"}, false)
		return fmt.Sprint(refused) == "[false false true]"
	})
	for i := range 2 {
		if v := to(a, fmt.Sprintf("more%d", i), 20+i); v.Refused {
			t.Errorf("message %d: %+v", i, v)
		}
		a.received(fmt.Sprintf("more%d", i), "Q", 1)
	}
	if v := to(a, "last", 30); !v.Refused {
		t.Error("beyond both bounds")
	}
	if v := a.rcpt("bobs", "bob@example.org", "bob@example.org", "u@example.net", home); v.Refused {
		t.Errorf("another account: %+v", v)
	}
}

// Daemons that count towards a limit at the same time accept no more than the limit together. What
// the milter refuses is given back everywhere. Without Redis each daemon counts for itself, and
// what it accepted counts everywhere once Redis is back.
func TestSharedLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.daemon(t, next), s.daemon(t, next)
	a.domain(nil)
	a.mailRule(mailflow.Rule{ID: "few", Kind: mailflow.KindLimit, Action: mailflow.Action{RecipientsPerDay: 4}})
	redistest.Eventually(t, "the rule is known", func() bool { return b.Needs().Recipients })
	const ann = "ann@example.org"
	begin := func(d *daemon, instance string, recipients int) {
		t.Helper()
		for n := range recipients {
			if v := d.rcpt(instance, ann, ann, fmt.Sprintf("u%d@example.net", n), home); v.Refused {
				t.Fatalf("%s, recipient %d: %+v", instance, n, v)
			}
		}
	}
	end := func(d *daemon, instance string, recipients int) mailflow.Verdict {
		return d.MessageEnded(&mailflow.Envelope{Instance: instance, QueueID: "Q" + instance, Recipients: recipients}, true)
	}
	// left waits until a daemon permits so many recipients more, and no more.
	left := func(d *daemon, want int) {
		t.Helper()
		redistest.Eventually(t, fmt.Sprint(want, " recipients are left"), func() bool {
			n := 0
			for ; n < 5 && !d.rcpt("probe", ann, ann, fmt.Sprintf("p%d@example.net", n), home).Refused; n++ {
			}
			d.MessageEnded(&mailflow.Envelope{Instance: "probe"}, false)
			return n == want
		})
	}
	begin(a, "1", 3)
	begin(b, "2", 3)
	if v := end(a, "1", 3); v.Refused {
		t.Errorf("the first: %+v", v)
	}
	if v := end(b, "2", 3); !v.Refused || !v.Temporary || v.Reason != mailflow.ReasonLimit || v.Rule != "few" {
		t.Errorf("both together: %+v", v)
	}
	left(a, 1)
	left(b, 1)

	disconnected := a.Connected(ip(home), 1) // a milter
	begin(a, "3", 1)
	if v := end(a, "3", 1); v.Refused {
		t.Errorf("the last: %+v", v)
	}
	left(b, 0)
	a.NotReceived("Q3", mailflow.ReasonSenderNotOwned)
	disconnected()
	left(b, 1)
	begin(b, "4", 1)
	if v := end(b, "4", 1); v.Refused {
		t.Errorf("what was given back: %+v", v)
	}

	const bob = "bob@example.org"
	s.redis.Pause()
	for n := range 3 {
		instance := fmt.Sprint("away", n)
		if v := a.rcpt(instance, bob, bob, "u@example.net", home); v.Refused {
			t.Errorf("without Redis: %+v", v)
		}
		if v := end(a, instance, 1); v.Refused {
			t.Errorf("without Redis: %+v", v)
		}
	}
	s.redis.Resume()
	redistest.Eventually(t, "what was accepted without Redis counts there once", func() bool {
		took, err := b.redis.Take(t.Context(), "example.org", store.NewID(), []store.Take{{Key: "example.org/few/rd/" + bob, N: 2, Rate: 4, Per: 24 * time.Hour}})
		if err == nil && took >= 0 {
			took, err = b.redis.Take(t.Context(), "example.org", store.NewID(), []store.Take{{Key: "example.org/few/rd/" + bob, N: 1, Rate: 4, Per: 24 * time.Hour}})
			if err != nil || took >= 0 {
				t.Errorf("the last one: %d, %v", took, err)
			}
			return true
		}
		if err == nil { // too early: give them back
			_, _ = b.redis.Spend(t.Context(), &store.Spend{ID: store.NewID(), Domain: "example.org", Takes: []store.Take{{Key: "example.org/few/rd/" + bob, N: -2, Rate: 4, Per: 24 * time.Hour}}})
		}
		return false
	})
}

// counted counts how often a message waits for Redis.
type counted struct {
	gate.Buckets
	asked atomic.Int64
}

func (c *counted) Take(ctx context.Context, domain, id string, takes []store.Take) (short int, err error) {
	c.asked.Add(1)
	return c.Buckets.Take(ctx, domain, id, takes)
}

// Far below a bound no message waits for Redis. Two daemons that are used at the same time accept all
// that the bound permits, and at most a twentieth of it beyond.
func TestLimitFarAway(t *testing.T) {
	t.Parallel()
	const bound = 400
	s := newSite(t)
	var buckets counted
	a := s.daemon(t, func(o *gate.Options) { next(o); buckets.Buckets, o.Buckets = o.Buckets, &buckets })
	b := s.daemon(t, next)
	a.domain(nil)
	a.mailRule(mailflow.Rule{ID: "many", Kind: mailflow.KindLimit, Action: mailflow.Action{RecipientsPerDay: bound}})
	redistest.Eventually(t, "the rule is known", func() bool { return b.Needs().Recipients })
	const ann = "ann@example.org"
	send := func(d *daemon, instance string) bool {
		v := d.rcpt(instance, ann, ann, "u@example.net", home)
		if v.Refused {
			d.MessageEnded(&mailflow.Envelope{Instance: instance}, false)
		} else {
			v = d.MessageEnded(&mailflow.Envelope{Instance: instance, QueueID: "Q" + instance, Recipients: 1}, true)
		}
		return !v.Refused
	}
	taken := func() int {
		take := store.Take{Key: "example.org/many/rd/" + ann, Rate: bound, Per: 24 * time.Hour}
		used, err := b.redis.Spend(t.Context(), &store.Spend{ID: store.NewID(), Domain: "example.org", Takes: []store.Take{take}})
		if err != nil || len(used) != 1 {
			t.Fatalf("%v, %v", used, err)
		}
		return used[0]
	}
	for i := range 10 {
		if !send(a, fmt.Sprint("few", i)) {
			t.Errorf("message %d is refused", i)
		}
	}
	if n := buckets.asked.Load(); n != 0 {
		t.Errorf("%d of 10 messages waited for Redis", n)
	}
	redistest.Eventually(t, "Redis knows of them", func() bool { return taken() == 10 })
	disconnected := a.Connected(ip(home), 1) // a milter
	send(a, "refused")
	a.NotReceived("Qrefused", mailflow.ReasonSenderNotOwned)
	send(a, "taken")
	disconnected()
	redistest.Eventually(t, "what the milter refuses is given back", func() bool { return taken() == 11 })
	redistest.Eventually(t, "the other daemon knows of them", func() bool {
		n := 0
		for ; n <= bound && !b.rcpt("probe", ann, ann, fmt.Sprintf("p%d@example.net", n), home).Refused; n++ {
		}
		b.MessageEnded(&mailflow.Envelope{Instance: "probe"}, false)
		return n == bound-11
	})

	var accepted atomic.Int64
	var both sync.WaitGroup
	for i, d := range []*daemon{a, b} {
		both.Go(func() {
			for n := 0; n < 2*bound && send(d, fmt.Sprint(i, "/", n)); n++ {
				accepted.Add(1)
			}
		})
	}
	both.Wait()
	if n := accepted.Load() + 11; n < bound || n > bound+bound/20+1 {
		t.Errorf("both together accepted %d of %d", n, bound)
	}
	if buckets.asked.Load() == 0 {
		t.Error("close to the bound Redis decides")
	}
}

// Who is internal, and whose word about a redirect counts, depends on the client.
func TestMailClients(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) { next(o); o.Internal, _ = address.ParseNetworks([]string{"192.0.2.0/28"}) })
	d.domain(nil)
	d.mailRule(mailflow.Rule{ID: "inside", Kind: mailflow.KindInternalOnly})
	d.mailRule(mailflow.Rule{ID: "stay", Kind: mailflow.KindForwarding, Action: mailflow.Action{Allow: mailflow.AllowNone}})
	for _, c := range []struct {
		login, from, to, client string
		want                    mailflow.Reason
	}{
		{"ann@example.org", "ann@example.org", "bob@example.org", home, ""},
		{"ann@example.org", "ann@example.org", "bob@example.net", home, ""}, // an alias domain
		{"ann@example.org", "", "x@elsewhere.example", home, mailflow.ReasonInternalOnly},
		{"", "ann@example.org", "bob@example.org", home, mailflow.ReasonInternalOnly},
		{"", "", "bob@example.org", "127.0.0.1", mailflow.ReasonInternalOnly},
		{"", "ann@example.org", "bob@example.org", "192.0.2.1", ""},
		{"", "printer@local.example", "bob@example.org", "192.0.2.1", ""},
		{"", "ann@example.org", "x@elsewhere.example", "192.0.2.1", mailflow.ReasonInternalOnly},
		{"", "x@elsewhere.example", "y@elsewhere.example", home, ""},
		{"stranger@elsewhere.example", "ann@example.org", "bob@example.org", home, mailflow.ReasonInternalOnly},
	} {
		if v := d.rcpt(fmt.Sprint(c), c.login, c.from, c.to, c.client); v.Reason != c.want {
			t.Errorf("%+v: %+v", c, v)
		}
	}
	for client, want := range map[string]mailflow.Reason{"127.0.0.1": mailflow.ReasonForwarding, "::1": mailflow.ReasonForwarding, "192.0.2.1": mailflow.ReasonForwarding, home: ""} {
		e := &mailflow.Envelope{IP: ip(client), Sender: "x@elsewhere.example", Redirected: "ann@example.org", QueueID: "R" + client, MessageID: "<1@elsewhere.example>"}
		if judged := d.Message(e, []string{"y@elsewhere.example"}, &mailflow.Content{}); judged.Recipients[0].Reason != want {
			t.Errorf("a redirect from %s: %+v", client, judged.Recipients[0].Verdict)
		}
	}
	// A content filter returns on loopback what was accepted before, and nothing else.
	if v := d.rcpt("first", "ann@example.org", "ann@example.org", "bob@example.org", home); v.Refused {
		t.Fatalf("%+v", v)
	}
	d.received("first", "Q1", 1)
	for to, want := range map[string]mailflow.Reason{"bob@example.org": "", "carol@example.org": mailflow.ReasonInternalOnly} {
		for _, client := range []string{"127.0.0.1", "::1"} {
			if v := d.rcpt("second"+to+client, "", "ann@example.org", to, client); v.Reason != want {
				t.Errorf("returned to %s from %s: %+v", to, client, v)
			}
		}
	}
	if v := d.rcpt("third", "", "ann@example.org", "bob@example.org", home); v.Reason != mailflow.ReasonInternalOnly {
		t.Errorf("the same from elsewhere: %+v", v)
	}
}

// Each domain has its own record of a message, without what the other need not know.
func TestMessageRecordsOfDomains(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.change("example.com", func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.com"})
		c.PutGroup("example.com", &store.Group{Group: mailflow.Group{Address: "team@example.com", WhoMaySend: mailflow.Anyone}})
		return nil
	})
	for i, to := range []string{"team@example.com", "bob@example.org", "x@elsewhere.example"} {
		if v := d.rcpt("m", "ann@example.org", "ann@example.org", to, home); v.Refused {
			t.Fatalf("recipient %d: %+v", i, v)
		}
	}
	d.received("m", "Q1", 3)
	of := func(domain string) (r mailflow.Record) {
		t.Helper()
		redistest.Eventually(t, "a record of "+domain, func() bool {
			items, _, err := d.redis.Messages(t.Context(), store.MessageQuery{Domain: domain, QueueID: "Q1", Since: time.Now().Add(-time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			if len(items) > 0 {
				r = items[0]
			}
			return len(items) == 1
		})
		return r
	}
	sender := of("example.org")
	if sender.Direction != mailflow.Sent || sender.Recipients != 3 || len(sender.RecipientDomains) != 3 || sender.IP != home || sender.Size != 100 || fmt.Sprint(sender.Accounts) != "[bob@example.org]" {
		t.Errorf("the sender's: %+v", sender)
	}
	other := of("example.com")
	if other.Direction != mailflow.Received || other.Recipients != 1 || fmt.Sprint(other.RecipientDomains) != "[example.com]" || other.IP != "" || other.Account != "" || other.Internal {
		t.Errorf("the other's: %+v", other)
	}
}

// Postfix says nothing more about a message whose recipients were all refused, and keeps its connection.
func TestRefusedMessageIsRecorded(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.change("example.org", func(c *store.Change) error {
		c.PutGroup("example.org", &store.Group{Group: mailflow.Group{Address: "team@example.org", WhoMaySend: mailflow.Members}})
		return nil
	})
	for instance, to := range map[string][]string{"all": {"team@example.org"}, "some": {"team@example.org", "bob@example.org"}} {
		for _, addr := range to {
			d.rcpt(instance, "", "x@elsewhere.example", addr, home)
		}
	}
	records := func() []mailflow.Record {
		items, _, err := d.redis.Messages(t.Context(), store.MessageQuery{Domain: "example.org", Since: time.Now().Add(-time.Hour), Limit: 10})
		if err != nil {
			t.Fatal(err)
		}
		return items
	}
	redistest.Eventually(t, "a record", func() bool {
		r := records()
		return len(r) == 1 && r[0].Verdict == mailflow.Refused && r[0].Reason == mailflow.ReasonGroupClosed
	})
	d.MessageEnded(&mailflow.Envelope{Instance: "all"}, false)
	d.received("some", "Q1", 1)
	redistest.Eventually(t, "a record of the other", func() bool { return len(records()) == 2 })
}

// The body of a message is wanted where a filter may file it as spam for some of its recipients,
// who get it apart, and not where all are alike.
func TestBodyOfWhatIsSentApart(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	d := s.daemon(t, next)
	d.domain(nil)
	d.mailRule(mailflow.Rule{ID: "spam", Kind: mailflow.KindFilter, Direction: mailflow.Received, Match: mailflow.Match{Senders: []string{"pat@partner.example"}}, Action: mailflow.Action{Do: mailflow.DoSpam}})
	d.mailRule(mailflow.Rule{ID: "return", Kind: mailflow.KindFilter, Direction: mailflow.Received, Match: mailflow.Match{Recipients: []string{"bob@example.org"}}, Action: mailflow.Action{Do: mailflow.DoReturn}})
	redistest.Eventually(t, "the rules are known", func() bool { return d.Needs().Body })
	const ann, bob, eve = "ann@example.org", "bob@example.org", "eve@elsewhere.example"
	for _, c := range []struct {
		from, client string
		to           []string
		want         bool
	}{
		{"pat@partner.example", home, []string{ann}, false},
		{"pat@partner.example", home, []string{ann, bob, ann}, false},
		{"pat@partner.example", home, []string{ann, eve}, true},
		{"pat@partner.example", home, []string{eve, bob}, true},
		{"eve@elsewhere.example", home, []string{ann, eve}, false},
		{"eve@elsewhere.example", home, []string{ann, bob}, false},       // returned as a whole
		{"eve@elsewhere.example", "127.0.0.1", []string{ann, bob}, true}, // filed, since it is not returned to a relay
		{"eve@elsewhere.example", "127.0.0.1", []string{bob, bob}, false},
	} {
		if got := d.WantsBody(&mailflow.Envelope{Sender: c.from, IP: ip(c.client), Port: 1}, c.to); got != c.want {
			t.Errorf("from %s at %s to %v: %t", c.from, c.client, c.to, got)
		}
	}
}

// A limit of a domain counts the messages of all its accounts, and warns once as it comes near.
func TestLimitOfDomain(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.mailRule(mailflow.Rule{ID: "few", Kind: mailflow.KindLimit, Action: mailflow.Action{Per: mailflow.PerDomain, RecipientsPerDay: 10, WarnAt: 50}})
	redistest.Eventually(t, "the rule is known", func() bool { return d.Needs().Recipients })
	for i := range 12 {
		who := []string{"ann@example.org", "bob@example.org"}[i%2]
		message := fmt.Sprint("m", i)
		v := d.rcpt(message, who, who, "u@elsewhere.example", home)
		if v.Refused != (i >= 10) {
			t.Errorf("message %d, of %s: %+v", i, who, v)
		}
		if !v.Refused {
			d.received(message, "Q"+message, 1)
		}
	}
	if n := strings.Count(d.log.String(), "sending limit is near"); n != 1 {
		t.Errorf("warned %d times", n)
	}
}
