package unusual_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/unusual"
)

var errAway = errors.New("the store is away")

// memories keep what is usual in a map.
type memories struct {
	packed map[string][]byte
	away   bool
}

func (m *memories) Habits(_ context.Context, accounts []string) (map[string][]byte, error) {
	if m.away {
		return nil, errAway
	}
	found := maps.Clone(m.packed)
	maps.DeleteFunc(found, func(a string, _ []byte) bool { return !slices.Contains(accounts, a) })
	return found, nil
}

func (m *memories) PutHabits(_ context.Context, packed map[string][]byte) error {
	maps.Copy(m.packed, packed)
	return nil
}

func login(minute int, ip, region string) store.LoginRecord {
	return store.LoginRecord{
		ID: fmt.Sprint(minute), Time: time.Date(2026, 11, 30, 9, minute, 0, 0, time.UTC), Domain: "example.org", Account: "ann@example.org",
		IP: ip, Region: region, Protocol: "imap", Client: access.ClientThirdParty, CredentialID: "phone", Outcome: access.Allow,
	}
}

// watch returns a watcher, what it remembers, and the notices that it sends.
func watch() (*unusual.Watcher, *memories, *[]*notify.Notice) {
	m, sent := &memories{packed: map[string][]byte{}}, &[]*notify.Notice{}
	return &unusual.Watcher{Memories: m, Log: hclog.NewNullLogger(), Notify: func(n *notify.Notice) { *sent = append(*sent, n) }}, m, sent
}

// examine examines records, and learns from them as after they are stored.
func examine(t *testing.T, w *unusual.Watcher, records ...store.LoginRecord) []store.LoginRecord {
	t.Helper()
	if learned := w.Examine(t.Context(), records, nil); learned != nil {
		learned(t.Context())
	}
	return records
}

// The first login is usual; one from elsewhere is marked, doubted and notified once, with the login
// before. After the user's "it was me" it is usual.
func TestMarksNotifiesAndLearns(t *testing.T) {
	w, _, sent := watch()
	if r := examine(t, w, login(0, "203.0.113.9", "DE")); len(r[0].Abnormal) != 0 || len(*sent) != 0 {
		t.Fatalf("the first login: %v, %d notices", r[0].Abnormal, len(*sent))
	}
	r := examine(t, w, login(10, "198.51.100.9", "BR"))[0]
	if got := fmt.Sprint(r.Abnormal); got != "[new_network new_region impossible_travel]" {
		t.Errorf("a login from elsewhere is marked %s", got)
	}
	if !strings.Contains(r.Note, "may explain it") {
		t.Errorf("no doubt of the travel: %q", r.Note)
	}
	if len(*sent) != 1 {
		t.Fatalf("%d notices", len(*sent))
	}
	n := (*sent)[0]
	if n.Account != "ann@example.org" || n.Event != "abnormal_login" || n.Data.(*unusual.Event).Previous.IP != "203.0.113.9" {
		t.Errorf("the notice: %+v", n)
	}
	for _, want := range []string{"from another country", "198.51.100.9 (BR)", "203.0.113.9 (DE)", "login 10."} {
		if !strings.Contains(n.Text, want) {
			t.Errorf("the mail does not say %q:\n%s", want, n.Text)
		}
	}
	if err := w.Confirm(t.Context(), &r); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, w, login(300, "198.51.100.9", "BR"))[0]; len(r.Abnormal) != 0 || len(*sent) != 1 {
		t.Errorf("after it was me: %v, %d notices", r.Abnormal, len(*sent))
	}
}

// A login that the next passdb decided is judged when it ends, and marked in its closing.
func TestJudgesClosings(t *testing.T) {
	w, _, _ := watch()
	examine(t, w, login(0, "203.0.113.9", "DE"))
	open := login(200, "198.51.100.9", "DE")
	open.Outcome = access.Next
	closings := []store.Closing{{ID: open.ID, Outcome: access.Allow, Login: &open}, {ID: "x", Outcome: access.Deny, Login: &open}}
	w.Examine(t.Context(), []store.LoginRecord{open}, closings)
	if got := fmt.Sprint(closings[0].Abnormal, closings[1].Abnormal); got != "[new_network] []" {
		t.Errorf("marked %s", got)
	}
}

// What failed, what a master did, and what has no address is nobody's habit.
func TestIgnoresOthersLogins(t *testing.T) {
	w, m, _ := watch()
	failed, master, without := login(0, "203.0.113.9", "DE"), login(1, "203.0.113.9", "DE"), login(2, "", "")
	failed.Outcome, master.MasterUser = access.Deny, "admin"
	examine(t, w, failed, master, without)
	if len(m.packed) != 0 {
		t.Errorf("learned %v", m.packed)
	}
}

// Without the store nothing is marked or learned: the records are examined again.
func TestStoreAway(t *testing.T) {
	w, m, sent := watch()
	m.away = true
	if w.Examine(t.Context(), []store.LoginRecord{login(0, "203.0.113.9", "DE")}, nil) != nil {
		t.Error("something is learned")
	}
	if r := login(0, "203.0.113.9", "DE"); !errors.Is(w.Confirm(t.Context(), &r), errAway) || len(*sent) != 0 {
		t.Error("a confirmation is answered that was not stored")
	}
}

// With notify.abnormal_logins = "off" there is no watcher.
func TestNilWatcher(t *testing.T) {
	var w *unusual.Watcher
	r := login(0, "203.0.113.9", "DE")
	if w.Examine(t.Context(), []store.LoginRecord{r}, nil) != nil || w.Confirm(t.Context(), &r) != nil {
		t.Error("a nil watcher acts")
	}
}
