package adminapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// batchSet is what a batch sets, read once for all its accounts.
type batchSet struct {
	api.BatchSet
	named map[string]bool // "suspended", "protocols.imap" ...: what is set to null, too
}

func readSet(in *api.BatchSet, sent *rest.Node) *batchSet {
	s := &batchSet{*in, map[string]bool{}}
	for _, f := range sent.Fields {
		s.named[f.Name] = true
		inner := f.Value.Fields
		if f.Name == "protocols" && f.Value.Kind == rest.Null { // all of them
			inner = []rest.Field{{Name: "imap"}, {Name: "pop3"}, {Name: "smtp"}, {Name: "sieve"}}
		}
		for _, i := range inner {
			s.named[f.Name+"."+i.Name] = true
		}
	}
	if s.Preset != "" {
		s.named["protocols.imap"], s.named["protocols.pop3"], s.named["protocols.smtp"] = true, true, true
	}
	return s
}

// over puts the settings over an account's record as a merge patch of it would.
func (s *batchSet) over(cur *store.Account) *api.Account {
	in := viewAccount(cur)
	in.Preset = s.Preset // not that which explains the switches as they are
	if s.named["suspended"] {
		in.Suspended = s.Suspended
	}
	if s.named["departments"] {
		in.Departments = s.Departments
	}
	if s.named["secure_passwords"] {
		in.SecurePasswords = s.SecurePasswords
	}
	for _, p := range []struct {
		name     string
		to, from **bool
	}{
		{"imap", &in.Protocols.IMAP, &s.Protocols.IMAP},
		{"pop3", &in.Protocols.POP3, &s.Protocols.POP3},
		{"smtp", &in.Protocols.SMTP, &s.Protocols.SMTP},
		{"sieve", &in.Protocols.Sieve, &s.Protocols.Sieve},
	} {
		if s.named["protocols."+p.name] {
			*p.to = *p.from
		}
	}
	return &in
}

// maxResults bounds the results in an answer that is not streamed.
const maxResults = 10_000

// batch is one run of a batch over the accounts that it selects.
type batch struct {
	edits
	id       string // of its body: a cursor is of no use to another
	selected int
	earlier  int    // of the selected, what an earlier run did
	cursor   string // behind the last account that is done
}

func batchAccounts(c *call) (*answer, error) {
	b, err := c.readBatch()
	if err != nil {
		return nil, err
	}
	if rest.AcceptsLines(c.r) {
		return &answer{handler: func(http.ResponseWriter, *http.Request) { b.stream(c.stream()) }}, nil
	}
	result := api.BatchResult{Results: []api.BatchAccount{}}
	err = b.run(func(chunk []api.BatchAccount) error {
		rest.Extend(c.w)
		room := min(len(chunk), maxResults-len(result.Results))
		result.Results = append(result.Results, chunk[:room]...)
		result.More += len(chunk) - room
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.BatchTotals, result.Accounts = b.totals(), list(b.changed)
	return &answer{body: result}, nil
}

// stream makes the batch and tells of it on the way. Once the client is gone it stops behind a
// chunk: the cursor that was sent last, or before that chunk, resumes it.
func (b *batch) stream(s *rest.Stream) {
	gone := false
	err := b.run(func(chunk []api.BatchAccount) error {
		for i := range chunk {
			if err := s.Item(&chunk[i]); err != nil {
				gone = true
				return err
			}
		}
		err := s.Progress(api.BatchProgress{Done: b.done(), Selected: b.selected, Cursor: b.cursor})
		gone = err != nil
		return err
	})
	if gone {
		b.c.Log.Warn("a batch stopped: its client is gone", "domain", b.c.domain, "done", b.done(), "selected", b.selected, "error", err)
		return
	}
	s.End(b.totals(), err)
}

// readBatch reads what was sent and selects the accounts.
func (c *call) readBatch() (*batch, error) {
	var f api.Faults
	in := rest.Decode[api.Batch](c.schemas, c.body, &f)
	var scope access.Scope
	if in.Select != nil {
		scope = c.scope(in.Select, "/select", &f)
		if emptyScope(in.Select) {
			f.Add("/select", "required", `names nobody: say "all":true, or name departments or members`)
		}
	}
	sent := c.body.Get("set")
	if sent != nil && sent.Kind == rest.Object && len(sent.Fields) == 0 {
		f.Add("/set", "required", "sets nothing: name what is to change")
	}
	if in.Set != nil {
		for i, path := range in.Set.Departments {
			switch pointer := api.At("/set/departments", i); {
			case !c.department(path):
				f.Add(pointer, "unknown_department", "there is no such department: create it first")
			case slices.Contains(in.Set.Departments[:i], path):
				f.Add(pointer, "duplicate", "is named twice: leave it out")
			}
		}
		applyPreset(&in.Set.Protocols, in.Set.Preset, "/set", &f)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	set, covers := readSet(in.Set, sent), c.covers(&scope)
	b := &batch{id: c.batchID(), cursor: c.query.Get("resume"), edits: edits{
		c: c, action: "account.batch", still: covers,
		over:  func(_ *edit, cur *store.Account, _ *api.Faults) (*api.Account, error) { return set.over(cur), nil },
		batch: &store.BatchMark{At: c.now.UTC().Truncate(time.Millisecond), By: c.id.actor.Name, Scope: wordsOf(&scope)},
		tally: tally{made: map[string]bool{}},
	}}
	after, err := b.after()
	if err != nil {
		return nil, err
	}
	for _, addr := range c.selects(&scope, covers) {
		b.selected++
		if addr <= after {
			b.earlier++
			continue
		}
		b.list = append(b.list, edit{addr: addr})
	}
	return b, nil
}

// selects returns the accounts in a scope, sorted.
func (c *call) selects(scope *access.Scope, covers func(string, *store.Account) bool) []string {
	var selected []string
	for _, a := range c.Store.State.Accounts(c.domain, "", 0) {
		if covers(a.Doc.Address, a.Doc) {
			selected = append(selected, a.Doc.Address)
		}
	}
	for _, m := range scope.Members { // members need no record yet
		if _, ok := c.Store.State.Account(m); !ok && covers(m, nil) {
			selected = append(selected, m)
		}
	}
	slices.Sort(selected)
	return selected
}

// batchID tells batches apart: by domain, what was sent, however it is written, and whether it is a
// dry run, behind which nothing is done.
func (c *call) batchID() string {
	var v any
	_ = json.Unmarshal(c.raw, &v) // was parsed
	text, _ := json.Marshal([]any{c.domain, c.dryRun, v})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// after returns the account behind which the batch goes on; "" for all of it.
func (b *batch) after() (string, error) {
	if b.cursor == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(b.cursor)
	id, after, _ := strings.Cut(string(text), " ")
	if err != nil || id != b.id {
		return "", api.Refuse(http.StatusBadRequest, "bad_cursor", "the cursor is not of this batch: send the body that it was handed out for, or leave it out to begin anew, which does no harm")
	}
	return after, nil
}

// run makes the edits in chunks. Each chunk's results are handed over once they are durable; an
// error of that is returned as it is.
func (b *batch) run(told func(chunk []api.BatchAccount) error) error {
	for part := range slices.Chunk(b.list, chunk) {
		t, err := b.part(part, &api.Faults{}, b.c.dryRun)
		if err != nil {
			p := b.stopped(err)
			p.Cursor = b.cursor
			return p
		}
		b.add(t)
		b.cursor = cursorOf(b.id + " " + part[len(part)-1].addr)
		if err := told(t.results); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) done() int { return b.earlier + len(b.changed) + b.unchanged + b.skipped + b.failed }

func (b *batch) totals() api.BatchTotals {
	return api.BatchTotals{
		Selected: b.selected, Earlier: b.earlier,
		Changed: len(b.changed), Unchanged: b.unchanged, Skipped: b.skipped, Failed: b.failed,
	}
}
