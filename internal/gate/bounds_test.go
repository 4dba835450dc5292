package gate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/spool"
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

func (j *journal) AppendRecords(_ context.Context, _ store.BatchID, batch *store.Batch) error {
	if j.down {
		return errDown
	}
	j.records, j.closings = append(j.records, batch.Records...), append(j.closings, batch.Closings...)
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

func (j *damaged) AppendRecords(ctx context.Context, id store.BatchID, batch *store.Batch) error {
	return errors.Join(store.ErrDamaged, j.journal.AppendRecords(ctx, id, batch))
}

func (j *damaged) AppendEvents(context.Context, []store.Event) error { return store.ErrDamaged }

// Where one key of the store is damaged the others' records are written, once.
func TestDamagedStoreTakesRecordsOnce(t *testing.T) {
	var log bytes.Buffer
	j := &damaged{journal{uses: map[string]map[string]store.LastUse{}}}
	b := newWriteBehind("", j, nil, nil, hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
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

// Events are written at once, because other daemons decide by them. Records are, too, until there
// are many of them: then they share a write. So does what is taken from buckets later.
func TestRecordsAreGathered(t *testing.T) {
	b := newWriteBehind("", nil, nil, nil, hclog.NewNullLogger())
	taken := func(at time.Duration) (events, records int) {
		d := b.takeDue(time.Unix(0, 0).Add(time.Hour + at))
		if d == nil {
			return 0, 0
		}
		events, records = len(d.Events), len(d.Records)
		if (len(d.Spends) > 0) != (records > 0) {
			t.Errorf("after %v: %d spends beside %d records", at, len(d.Spends), records)
		}
		if len(d.Spends) > 0 {
			events--
		}
		return events, records
	}
	add := func() {
		b.record(&store.LoginRecord{})
		b.merge("example.org", []store.Take{{Key: "few", N: 1, Rate: 100, Per: time.Hour}}, time.Unix(0, 0).Add(time.Hour))
	}
	for _, step := range []struct {
		at              time.Duration
		adds            int
		events, records int
	}{
		{0, 1, 1, 1},
		{50 * time.Millisecond, 1, 1, 1},
		{100 * time.Millisecond, manyRecords, manyRecords, manyRecords},
		{200 * time.Millisecond, 1, 1, 0},
		{250 * time.Millisecond, 0, 0, 0},
		{300 * time.Millisecond, 1, 1, 0},
		{350 * time.Millisecond, 0, 0, 2},
		{400 * time.Millisecond, 1, 1, 1},
	} {
		for range step.adds {
			b.event(store.Event{})
			add()
		}
		if events, records := taken(step.at); events != step.events || records != step.records {
			t.Errorf("after %v: %d events and %d records, want %d and %d", step.at, events, records, step.events, step.records)
		}
	}
	for range manyRecords {
		add()
	}
	taken(time.Second)
	add()
	if b.ending = true; b.takeDue(time.Unix(0, 0).Add(time.Hour)) == nil {
		t.Error("at the end a record is left over")
	}
}

// While the store is away the queue is bounded, drops the oldest first, and logs how many it
// dropped; then all that is left is written, in order.
func TestQueueIsBounded(t *testing.T) {
	var log bytes.Buffer
	j := &journal{down: true, uses: map[string]map[string]store.LastUse{}}
	b := newWriteBehind("", j, nil, nil, hclog.New(&hclog.LoggerOptions{Output: &log, DisableTime: true}))
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

// lossy answers every second batch of records with an error although it has written it, and
// remembers batches as Redis does.
type lossy struct {
	journal
	calls     int
	delivered map[string]uint64
}

func (j *lossy) AppendRecords(ctx context.Context, id store.BatchID, batch *store.Batch) error {
	if j.down {
		return errDown
	}
	if j.calls++; j.delivered[id.Origin] < id.N {
		j.delivered[id.Origin] = id.N
		if err := j.journal.AppendRecords(ctx, id, batch); err != nil {
			return err
		}
	}
	if j.calls%2 == 1 {
		return errDown
	}
	return nil
}

// What waits for the store survives the end of the daemon, and is written later, in order and once,
// also where answers of the store are lost.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	j := &lossy{journal: journal{down: true, uses: map[string]map[string]store.LastUse{}}, delivered: map[string]uint64{}}
	var b *writeBehind
	restart := func() {
		t.Helper()
		waiting, err := spool.Open(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		b = newWriteBehind("", j, nil, waiting, hclog.NewNullLogger())
	}
	n := 0
	record := func(count int) {
		for range count {
			b.record(&store.LoginRecord{ID: fmt.Sprint(n)})
			b.close(store.Closing{ID: fmt.Sprint(n)})
			n++
		}
	}
	restart()
	record(5)
	if b.flush(t.Context()) {
		t.Fatal("the store is away")
	}
	b.save()
	record(2*batch + 1)
	b.save()
	b.event(store.Event{Account: "ann@example.org", Token: 1<<64 - 1})
	b.touch("ann@example.org", "id", store.LastUse{Time: time.Now(), IP: "203.0.113.9"})
	b.save()
	restart() // kill -9: nothing is said good-bye to
	if b.flush(t.Context()) {
		t.Fatal("the store is away")
	}
	record(3)
	b.save()
	restart()
	record(4)
	j.down = false
	for range 100 {
		b.flush(t.Context())
	}
	record(1)
	b.ending = true
	for range 3 {
		b.flush(t.Context())
	}
	if len(j.records) != n || len(j.closings) != n {
		t.Fatalf("%d records and %d closings of %d", len(j.records), len(j.closings), n)
	}
	for i, r := range j.records {
		if r.ID != fmt.Sprint(i) {
			t.Fatalf("record %d is %s", i, r.ID)
		}
	}
	if len(j.events) != 1 || j.events[0].Token != 1<<64-1 || j.uses["ann@example.org"]["id"].IP == "" {
		t.Errorf("events %v, uses %v", j.events, j.uses)
	}
	restart()
	if b.spool.Len() != 0 {
		t.Errorf("%d batches are left", b.spool.Len())
	}
}

// A batch is the same after it was on the disk: every field of every record.
func TestDeliveryOnDisk(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	want := &delivery{
		ID:       store.BatchID{Origin: "o", N: 7},
		Events:   []store.Event{{Origin: "x", Time: at, Kind: store.EventBind, Token: 1<<64 - 1, Account: "a", IP: "i", Protocol: "p", Service: "s", Credential: "c"}},
		Records:  []store.LoginRecord{{}, {Domain: "other.example"}},
		Closings: []store.Closing{{Domain: "example.org", ID: "1", Outcome: access.Allow, Reason: access.ReasonOK, Time: at}},
		Uses:     map[string]map[string]store.LastUse{"a": {"id": {Time: at, IP: "i", Protocol: "imap"}}},
	}
	filled := reflect.ValueOf(&want.Records[0]).Elem()
	for i := range filled.NumField() {
		switch f := filled.Field(i); f.Interface().(type) {
		case string:
			f.SetString("text")
		case bool:
			f.SetBool(true)
		case time.Time:
			f.Set(reflect.ValueOf(at))
		case []string:
			f.Set(reflect.ValueOf([]string{"p"}))
		case access.Marks:
			f.Set(reflect.ValueOf(access.Marks{"new_network"}))
		case access.Outcome:
			f.Set(reflect.ValueOf(access.Deny))
		default:
			if f.Kind() != reflect.String {
				t.Fatalf("fill the field %s", filled.Type().Field(i).Name)
			}
			f.SetString("text")
		}
	}
	want.Records[1].Abnormal = access.Marks{} // no marks are written as an empty list
	text, err := want.encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeDelivery(text)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v (%v)\nwant %+v", got, err, want)
	}
	if _, err := decodeDelivery([]byte(`{"records":[{}]}`)); err == nil {
		t.Error("a record without a domain is read")
	}
}

// More jobs than can wait are dropped; those that wait when the daemon stops still clean up.
func TestJobsAreBounded(t *testing.T) {
	b := newWriteBehind("", &journal{}, nil, nil, hclog.NewNullLogger())
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

// The recipients of all messages that are being received are bounded together, as are those of one
// message. What has ended counts no longer once it is swept.
func TestRememberedRecipientsAreBounded(t *testing.T) {
	now := time.Now()
	g := &Gate{mails: newMails()}
	full := func(instance string) bool {
		_, full := g.acceptedBefore(instance, "new@example.org", now)
		return full
	}
	one := &transaction{began: now, to: make([]mailflow.Party, maxRecipients-1), refused: make([]refusedRecipient, 1)}
	g.mails.open.Put("one", one)
	g.mails.parties = maxRecipients
	if !full("one") || full("other") {
		t.Error("a message with too many recipients, and another one")
	}
	if g.mails.parties = maxOpen - 1; full("other") {
		t.Error("one is left")
	}
	if g.mails.parties = maxOpen; !full("other") {
		t.Error("none is left")
	}
	g.sweepMails(now)
	if g.mails.parties != maxRecipients || full("other") {
		t.Errorf("%d recipients remain", g.mails.parties)
	}
}
