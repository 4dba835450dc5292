package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// journal takes what is written while it is up. The methods that are not here are not wanted.
type journal struct {
	Journal
	down     bool
	records  []store.LoginRecord
	closings []store.Closing
	events   []store.Event
	uses     map[string]map[string]store.LastUse
}

var errDown = errors.New("down")

func (j *journal) AppendRecords(_ context.Context, r []store.LoginRecord, c []store.Closing) error {
	if j.down {
		return errDown
	}
	j.records, j.closings = append(j.records, r...), append(j.closings, c...)
	return nil
}

func (j *journal) AppendEvents(_ context.Context, e []store.Event) error {
	if j.down {
		return errDown
	}
	j.events = append(j.events, e...)
	return nil
}

func (j *journal) Touch(_ context.Context, account string, uses map[string]store.LastUse) error {
	if j.down {
		return errDown
	}
	j.uses[account] = uses
	return nil
}

// damaged takes what it can, and says that the rest can never be taken.
type damaged struct{ journal }

func (j *damaged) AppendRecords(ctx context.Context, r []store.LoginRecord, c []store.Closing) error {
	return errors.Join(store.ErrDamaged, j.journal.AppendRecords(ctx, r, c))
}

func (j *damaged) AppendEvents(context.Context, []store.Event) error { return store.ErrDamaged }

// Where one key of the store is damaged the others' records are written, once.
func TestDamagedStoreTakesRecordsOnce(t *testing.T) {
	var log bytes.Buffer
	j := &damaged{journal{uses: map[string]map[string]store.LastUse{}}}
	b := newWriteBehind(j, hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
	b.event(store.Event{Account: "ann@example.org"})
	b.record(&store.LoginRecord{ID: "1"})
	b.close(store.Closing{ID: "1"})
	b.touch("ann@example.org", "id", store.LastUse{Time: time.Now()})
	for b.flush(context.Background()) {
	}
	if len(j.records) != 1 || len(j.closings) != 1 || len(j.uses) != 1 {
		t.Errorf("%d records, %d closings, %d uses were written", len(j.records), len(j.closings), len(j.uses))
	}
	if n := strings.Count(log.String(), "[ERROR]"); n != 2 {
		t.Errorf("what was lost is logged as %q", log.String())
	}
}

// While the store is away the queue is bounded, drops the oldest first, and logs how many it
// dropped; then all that is left is written, in order.
func TestQueueIsBounded(t *testing.T) {
	var log bytes.Buffer
	j := &journal{down: true, uses: map[string]map[string]store.LastUse{}}
	b := newWriteBehind(j, hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
	now := time.Now()
	const beyond = 7
	for i := range maxQueued + beyond {
		b.record(&store.LoginRecord{ID: fmt.Sprint(i)})
		b.close(store.Closing{ID: fmt.Sprint(i)})
		b.touch(fmt.Sprint(i), "id"+fmt.Sprint(i), store.LastUse{Time: now})
	}
	b.event(store.Event{Account: "ann@example.org"})
	for range 3 {
		if b.flush(context.Background()) {
			t.Fatal("the store is away, and it goes on")
		}
	}
	// An older use that failed does not replace a newer one.
	b.touch("0", "id0", store.LastUse{Time: now.Add(time.Hour), IP: "203.0.113.9"})
	j.down = false
	for b.flush(context.Background()) {
	}
	if len(j.records) != maxQueued || len(j.closings) != maxQueued || len(j.events) != 1 || len(j.uses) != maxQueued {
		t.Fatalf("%d records, %d closings, %d events, uses of %d accounts", len(j.records), len(j.closings), len(j.events), len(j.uses))
	}
	for i, r := range j.records {
		if r.ID != fmt.Sprint(i+beyond) {
			t.Fatalf("record %d is %s", i, r.ID)
		}
	}
	if j.uses["0"]["id0"].IP == "" {
		t.Error("an older use replaced a newer one")
	}
	if want := fmt.Sprintf("count=%d", 2*beyond); !strings.Contains(log.String(), want) {
		t.Errorf("logged %q, want %s", log.String(), want)
	}
	if len(b.touched) > maxQueued {
		t.Errorf("%d uses remembered", len(b.touched))
	}
}

// More jobs than can wait are dropped; those that wait when the daemon stops still clean up.
func TestJobsAreBounded(t *testing.T) {
	b := newWriteBehind(&journal{}, hclog.NewNullLogger())
	ran, waiting := 0, 0
	for range 1000 {
		if b.do(func(ctx context.Context) {
			if ctx.Err() == nil {
				t.Error("a job runs after the end")
			}
			ran++
		}) {
			waiting++
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	b.work(ctx)
	if waiting == 0 || waiting == 1000 || ran != waiting {
		t.Errorf("%d of 1000 jobs waited, %d ran", waiting, ran)
	}
}

func TestOpenLoginsAreBounded(t *testing.T) {
	o := newPendingLogins()
	now := time.Now()
	add := func(session, account string, at time.Time) {
		o.add(&store.LoginRecord{Account: account, Session: session}, &access.Login{Session: session, Protocol: access.SMTP, Time: at}, 0)
	}
	for i := range maxPending {
		add("", fmt.Sprint("old", i%100), now)
		add(fmt.Sprint("old", i), "ann", now)
	}
	if o.count != maxPending || len(o.sessions) != maxPending/2 {
		t.Errorf("%d open, %d sessions", o.count, len(o.sessions))
	}
	o.sweep(now.Add(pendingFor + time.Second))
	if o.count != 0 || len(o.sessions)+len(o.others) != 0 {
		t.Errorf("%d open, %d sessions, %d others after their time", o.count, len(o.sessions), len(o.others))
	}
	add("s", "ann", now)
	add("s", "ann", now)
	add("", "ann", now)
	add("", "ann", now.Add(time.Minute))
	o.sweep(now.Add(pendingFor + time.Second))
	if key := (pendingKey{account: "ann", protocol: access.SMTP}); o.count != 1 || o.take("", key) == nil || o.take("", key) != nil || o.take("s", key) != nil || o.count != 0 {
		t.Errorf("%d open", o.count)
	}
}
