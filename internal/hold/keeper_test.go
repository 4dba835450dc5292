package hold

import (
	"context"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	domain = "example.org"
	ann    = "ann@example.org" // submits
	boss   = "boss@example.org"
	bob    = "bob@example.com" // outside
	body   = "From: <ann@example.org>\r\nSubject: offer\r\n\r\n.dot\r\nw\xfcrde\r\n"
)

// node is a keeper that runs, its store and its Postfix.
type node struct {
	*Keeper
	t       *testing.T
	postfix *postfix
	log     redistest.Lines
	stop    func()
}

// site is a Redis with the domain.
func site(t *testing.T) *redistest.Server {
	t.Helper()
	redis := redistest.Start(t)
	st, _ := redistest.NewStore(t, redis.Options())
	redistest.Run(t, st)
	redistest.Ready(t, st)
	err := st.Update(t.Context(), store.ShardOf(domain), store.Actor{}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: domain})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return redis
}

func start(t *testing.T, redis *redistest.Server, dir string, p *postfix) *node {
	t.Helper()
	d, err := OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, postfix: p}
	st, _ := redistest.NewStore(t, redis.Options())
	redistest.Run(t, st)
	n.Keeper = &Keeper{
		Dir: d, Client: &inject.Client{Addr: p.addr}, Store: st, Node: "mx1",
		Log: hclog.New(&hclog.LoggerOptions{Output: &n.log}),
		Link: func(_, id, approver string, _ time.Time) string {
			return "https://mail.example.org/" + id + "/" + approver
		},
	}
	if err := n.Load(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); n.Run(ctx) }()
	n.stop = func() { cancel(); <-done; _ = d.Close() }
	t.Cleanup(n.stop)
	return n
}

// hold keeps a message from ann to bob.
func (n *node) hold(edit func(*Item)) string {
	n.t.Helper()
	text := n.Dir.NewText()
	defer text.Discard()
	_, _ = io.WriteString(text, body)
	item := &Item{
		Kind: KindHeld, State: Held,
		Envelope: inject.Envelope{
			Sender: ann, Params: []string{"BODY=8BITMIME", "RET=HDRS"},
			Recipients: []inject.Recipient{{Address: bob, Params: []string{"NOTIFY=SUCCESS"}}},
		},
		Held: &About{
			Domain: domain, Rule: "offers", Account: ann, From: ann, Subject: "offer", Approvers: []string{boss},
			Expires: time.Now().Add(time.Hour),
		},
	}
	if edit != nil {
		edit(item)
	}
	if err := n.add(text, item); err != nil {
		n.t.Fatal(err)
	}
	return item.ID
}

func (n *node) listed(id string) *store.Held {
	n.t.Helper()
	redistest.Eventually(n.t, "the message is listed", func() bool { _, ok := n.Store.State.Held(domain, id); return ok })
	h, _ := n.Store.State.Held(domain, id)
	return h.Doc
}

func (n *node) decide(id string, d store.Decision) {
	n.t.Helper()
	n.listed(id)
	err := n.Store.Update(n.t.Context(), store.ShardOf(domain), store.Actor{}, false, func(c *store.Change) error {
		h, _ := n.Store.State.Held(domain, id)
		next, err := h.Doc.Decide(d, c.Now)
		if err == nil {
			c.PutHeld(domain, next)
		}
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
}

// gone waits until nothing is left of a message.
func (n *node) gone(id string) {
	n.t.Helper()
	redistest.Eventually(n.t, "the message is gone", func() bool {
		_, listed := n.Store.State.Held(domain, id)
		_, err := os.Stat(n.Dir.file(id, textSuffix))
		n.mu.Lock()
		defer n.mu.Unlock()
		return !listed && os.IsNotExist(err) && n.entries[id] == nil
	})
}

func (n *node) sent(to string, count int) []*session {
	n.t.Helper()
	redistest.Eventually(n.t, "mail to "+to, func() bool { return len(n.postfix.to(to)) >= count })
	list := n.postfix.to(to)
	if len(list) != count {
		n.t.Errorf("%d messages to %s, want %d", len(list), to, count)
	}
	return list
}

func TestRelease(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	id := n.hold(nil)
	h := n.listed(id)
	if h.From != ann || h.Recipients[0] != bob || h.Node != "mx1" || h.Subject != "offer" || h.Size != int64(len(body)) || h.Rule != "offers" {
		t.Errorf("listed as %+v", h)
	}
	request := n.sent(boss, 1)[0]
	for _, want := range []string{"Subject: Approval needed: offer", "https://mail.example.org/" + id, "message/rfc822", body} {
		if !strings.Contains(strings.ReplaceAll(request.text, "=\r\n", ""), want) {
			t.Errorf("the request lacks %q:\n%s", want, request.text)
		}
	}
	if request.mail != "MAIL FROM:<> BODY=8BITMIME" {
		t.Error(request.mail)
	}
	if len(n.postfix.to(bob)) > 0 {
		t.Fatal("sent before it was approved")
	}
	n.decide(id, store.Decision{Approve: true, Approver: boss, By: boss})
	n.gone(id)
	s := n.sent(bob, 1)[0]
	if s.text != body || s.mail != "MAIL FROM:<ann@example.org> BODY=8BITMIME RET=HDRS" || s.recipients[0] != "RCPT TO:<bob@example.com> NOTIFY=SUCCESS" {
		t.Errorf("%q %q %q", s.mail, s.recipients, s.text)
	}
}

func TestReject(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	id := n.hold(nil)
	n.decide(id, store.Decision{By: "root", Text: "Ask\r\nlegal\x07 first"})
	n.gone(id)
	if text := n.sent(ann, 1)[0].text; !strings.Contains(text, "Ask\r\nlegal  first") || !strings.Contains(text, "bob@example.com") {
		t.Error(text)
	}
	inbound := n.hold(func(i *Item) { i.Held.Account, i.Envelope.Sender = "", "forged@example.net" })
	n.decide(inbound, store.Decision{By: "root", Text: "no"})
	n.gone(inbound)
	for _, to := range []string{"forged@example.net", bob} {
		if len(n.postfix.to(to)) > 0 {
			t.Errorf("mail to %s", to)
		}
	}
}

func TestExpire(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	expired := func(release bool) func(*Item) {
		return func(i *Item) {
			i.Held.Release, i.Held.Expires, i.Held.Rule = release, time.Now(), "r"+map[bool]string{true: "1"}[release]
		}
	}
	n.gone(n.hold(expired(false)))
	if text := n.sent(ann, 1)[0].text; !strings.Contains(text, "Nobody approved it in time.") {
		t.Error(text)
	}
	n.gone(n.hold(expired(true)))
	n.sent(bob, 1)
	err := n.Store.Update(t.Context(), store.ShardOf(domain), store.Actor{}, false, func(c *store.Change) error {
		c.PutAccount(&store.Account{Address: ann, Suspended: true})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n.gone(n.hold(expired(true)))
	if text := n.sent(ann, 2)[1].text; !strings.Contains(text, "The account is suspended.") {
		t.Error(text)
	}
	n.sent(bob, 1)
}

// A client that was not told that the message was accepted sends it again.
func TestSameMessageAgain(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	id := n.hold(nil)
	n.listed(id)
	n.hold(nil)
	n.hold(func(i *Item) { i.Held.Rule = "others" })
	items, err := n.Dir.Items()
	held := 0
	for _, i := range items {
		if i.Kind == KindHeld {
			held++
		}
	}
	if held != 2 || err != nil {
		t.Errorf("%d messages held, %v", held, err)
	}
}

func TestRefusedRecipients(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	n.postfix.rcpt["RCPT TO:<gone@example.com>"] = "550 5.1.1 unknown"
	both := func(i *Item) {
		i.Envelope.Recipients = []inject.Recipient{{Address: bob}, {Address: "gone@example.com"}}
	}
	id := n.hold(both)
	n.decide(id, store.Decision{Approve: true, By: "root"})
	n.gone(id)
	n.sent(bob, 1)
	if text := n.sent(ann, 1)[0].text; !strings.Contains(text, "gone@example.com: 550 5.1.1 unknown") || strings.Contains(text, bob) {
		t.Error(text)
	}
	inbound := n.hold(func(i *Item) { both(i); i.Held.Account = "" })
	n.decide(inbound, store.Decision{Approve: true, By: "root"})
	redistest.Eventually(t, "it is stuck", func() bool {
		h, _ := n.Store.State.Held(domain, inbound)
		return h.Doc.State == store.HeldStuck && strings.Contains(h.Doc.Note, "gone@example.com: 550")
	})
	n.sent(bob, 2)
	n.decide(inbound, store.Decision{By: "root"})
	n.gone(inbound)
}

// The files are copied at a point of the release, as kill -9 would leave them there, and another
// keeper continues with them.
func TestKilled(t *testing.T) {
	tests := []struct {
		name     string
		accepts  bool // our milter, before the crash
		stores   bool // Postfix
		unseen   bool // no milter of ours sees the message
		stuck    bool
		messages int
	}{
		{name: "before our milter accepts", messages: 1},
		{name: "after our milter accepts and before Postfix stores", accepts: true, stuck: true},
		{name: "after Postfix stores", accepts: true, stores: true, stuck: true, messages: 1},
		{name: "after Postfix stores, without our milter", stores: true, unseen: true, stuck: true, messages: 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			redis, p := site(t), newPostfix(t)
			first, left := start(t, redis, t.TempDir(), p), t.TempDir()
			crash := make(chan struct{})
			passOf := func(s *session) *inject.Pass {
				peer := s.peer.(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // it listens on TCP
				return first.Client.PassOf(peer.Addr(), peer.Port())
			}
			die := func() {
				if err := os.CopyFS(left, os.DirFS(first.Dir.path)); err != nil {
					t.Error(err)
				}
				close(crash)
			}
			p.begin = func(s *session) {
				if !tt.unseen {
					first.Sees(passOf(s).ID)
				}
			}
			p.milter = func(s *session) bool {
				pass := passOf(s)
				if pass.Notice {
					return true
				}
				if tt.accepts {
					if err := first.Accept(pass.ID, s.id); err != nil {
						t.Error(err)
					}
				}
				if !tt.stores {
					die()
				}
				return tt.stores
			}
			p.stored = func(s *session) bool {
				if strings.Contains(s.recipients[0], bob) {
					die()
					return false
				}
				return true
			}
			id := first.hold(nil)
			redistest.Eventually(t, "the request is sent", func() bool {
				items, err := first.Dir.Items()
				return err == nil && len(items) == 1 && len(p.to(boss)) == 1
			})
			first.decide(id, store.Decision{Approve: true, By: "root"})
			<-crash
			first.stop()
			p.begin, p.milter, p.stored = nil, nil, nil
			next := start(t, redis, left, p)
			if tt.stuck {
				redistest.Eventually(t, "it is stuck", func() bool {
					h, ok := next.Store.State.Held(domain, id)
					return ok && h.Doc.State == store.HeldStuck
				})
				next.decide(id, store.Decision{By: "root"}) // the administrator has looked
			}
			next.gone(id)
			next.sent(bob, tt.messages)
		})
	}
}

// apart keeps a message from ann to bob and carol, which is spam for bob.
func (n *node) split(edit func(*mailflow.Whole)) {
	n.t.Helper()
	m := &mailflow.Whole{
		Envelope: mailflow.Envelope{Sender: "pat@partner.example", MessageID: "<1@partner.example>"}, Params: []string{"BODY=8BITMIME", "RET=HDRS"},
		Recipients: []mailflow.Addressee{{Address: bob, Params: []string{"NOTIFY=SUCCESS"}}, {Address: "carol@example.com"}},
		Header:     []mailflow.Field{{Name: "Subject", Value: " offer"}, {Name: mailflow.FieldFolder, Value: " spam"}}, Body: []byte(".dot\r\nw\xfcrde\r\n"),
	}
	if edit != nil {
		edit(m)
	}
	rule := &mailflow.Rule{ID: "f", Kind: mailflow.KindFilter, Action: mailflow.Action{Do: mailflow.DoSpam}}
	judged := []mailflow.Judged{
		{Given: bob, Sender: ann, To: mailflow.Party{Address: bob}, Spam: true, Verdict: mailflow.Verdict{Effects: []mailflow.Effect{{Rule: rule, Domain: domain}}}},
		{Given: "carol@example.com", To: mailflow.Party{Address: "carol@example.com"}},
	}
	held, apart, err := n.Keep(m, judged)
	if len(held) > 0 || len(apart) != 1 || apart[0] != 0 || err != nil {
		n.t.Fatalf("held %v, apart %v, %v", held, apart, err)
	}
}

// What is sent apart is sent once, though the daemon is killed before the client reads 250 and the
// client sends again. Without a Message-ID that is not known.
func TestApart(t *testing.T) {
	redis, p := site(t), newPostfix(t)
	dir := t.TempDir()
	n := start(t, redis, dir, p)
	pass := make(chan *mailflow.Pass, 1)
	p.milter = func(s *session) bool {
		peer := s.peer.(*net.TCPAddr).AddrPort() //nolint:forcetypeassert // it listens on TCP
		pass <- n.Pass(peer.Addr(), peer.Port())
		return true
	}
	n.split(nil)
	if got := <-pass; !got.Spam || !got.Apart || got.Notice || !got.Covers("pat@partner.example", bob) {
		t.Errorf("pass %+v", got)
	}
	p.milter = nil
	s := n.sent(bob, 1)[0]
	if !strings.HasSuffix(s.text, "\r\nSubject: offer\r\n\r\n.dot\r\nw\xfcrde\r\n") || s.mail != "MAIL FROM:<pat@partner.example> BODY=8BITMIME RET=HDRS" || s.recipients[0] != "RCPT TO:<bob@example.com> NOTIFY=SUCCESS" {
		t.Errorf("%q %q %q", s.mail, s.recipients, s.text)
	}
	done := func(n *node, known int) {
		t.Helper()
		redistest.Eventually(t, "it is sent", func() bool {
			n.mu.Lock()
			defer n.mu.Unlock()
			return len(n.entries) == 0 && len(n.apart) == known
		})
	}
	done(n, 1)
	n.split(nil) // the client, again
	n.stop()
	n = start(t, redis, dir, p)
	done(n, 1)
	n.split(nil)
	done(n, 1)
	n.split(func(m *mailflow.Whole) { m.Body = []byte("another\r\n") })
	done(n, 2)
	n.sent(bob, 2)
	for range 2 {
		n.split(func(m *mailflow.Whole) { m.Envelope.MessageID = "" })
	}
	done(n, 2)
	n.sent(bob, 4)
	if used, _ := n.Usage(); used != 0 {
		t.Errorf("%d octets are used", used)
	}
	n.mu.Lock()
	n.sweep(time.Now().Add(sentFor))
	n.mu.Unlock()
	if left, _ := filepath.Glob(filepath.Join(dir, "*.*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if len(n.postfix.to("carol@example.com")) > 0 {
		t.Error("carol got it apart")
	}
}

// A message that Postfix refuses is reported to a sender who authenticated, and to administrators
// otherwise.
func TestApartRefused(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	n.postfix.rcpt["RCPT TO:<bob@example.com> NOTIFY=SUCCESS"] = "550 5.1.1 unknown"
	n.split(func(m *mailflow.Whole) { m.Envelope.Login = ann })
	if text := n.sent(ann, 1)[0].text; !strings.Contains(text, "Your message cannot be delivered to") || !strings.Contains(text, "bob@example.com: 550 5.1.1 unknown") {
		t.Error(text)
	}
	n.split(func(m *mailflow.Whole) { m.Body = []byte("from outside\r\n") })
	redistest.Eventually(t, "it is stuck", func() bool {
		for _, h := range n.Store.State.HeldIn(domain) {
			if h.Doc.State == store.HeldStuck && h.Doc.Rule == "f" && strings.Contains(h.Doc.Note, "bob@example.com: 550") {
				n.decide(h.Doc.ID, store.Decision{By: "root"})
				n.gone(h.Doc.ID)
				return true
			}
		}
		return false
	})
}

func TestDir(t *testing.T) {
	path := filepath.Join(t.TempDir(), "held")
	d, err := OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenDir(path); err == nil {
		t.Fatal("two use one directory")
	}
	text := d.NewText()
	_, _ = io.WriteString(text, "half")
	one, two := &Item{ID: "1", State: Held}, &Item{ID: "2", State: Queued}
	if err := text.Commit(one, two); err != nil {
		t.Fatal(err)
	}
	text.Discard()
	for _, name := range []string{"1.eml", "1.json", "2.eml"} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", name, info, err)
		}
	}
	_ = d.NewText() // a process that was killed while it received these
	if err := os.WriteFile(filepath.Join(path, "3.eml"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(path, "4.json"), []byte(`{"id":`), 0o600); err != nil {
		t.Fatal(err)
	}
	_ = d.Close()
	d, err = OpenDir(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	items, err := d.Items()
	if len(items) != 2 || err == nil || !strings.Contains(err.Error(), "4.json") {
		t.Errorf("%v %v", items, err)
	}
	if left, _ := filepath.Glob(filepath.Join(path, "[.3]*")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	if err := d.Remove("1"); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(filepath.Join(path, "2.eml")); string(b) != "half" || err != nil {
		t.Errorf("%q %v", b, err)
	}
}

// A full disk is an error before anything is acknowledged, and leaves nothing behind.
func TestDiskFull(t *testing.T) {
	d, err := OpenDir(filepath.Join(t.TempDir(), "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	text := d.NewText()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = text.file.Close()
	text.out.Reset(full)
	_, _ = io.WriteString(text, strings.Repeat("x", 1<<20))
	if err := text.Commit(&Item{ID: "1"}); err == nil {
		t.Error("no error")
	}
	text.Discard()
	if items, err := d.Items(); len(items) > 0 || err != nil {
		t.Errorf("%v %v", items, err)
	}
}

// Beyond the quota nothing is held, and notices are still written.
func TestQuota(t *testing.T) {
	n := start(t, site(t), t.TempDir(), newPostfix(t))
	n.hold(nil)
	used, _ := n.Usage()
	if used < int64(len(body)) {
		t.Errorf("%d octets are used", used)
	}
	n.Quota = used + 10
	text := n.Dir.NewText()
	defer text.Discard()
	_, _ = io.WriteString(text, body)
	err := n.add(text, &Item{Kind: KindHeld, State: Held, Held: &About{Domain: domain}})
	if err == nil || !strings.Contains(err.Error(), "mail.hold_quota") {
		t.Errorf("beyond the quota: %v", err)
	}
	if err := n.ForwardingRefused(domain, ann, bob); err != nil {
		t.Errorf("a notice: %v", err)
	}
}
