package withdraw

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// Postfix gives the id of a message that has left the queue to a later one, which is somebody else's.
func TestQueueIDsAreUsedAgain(t *testing.T) {
	s := &Site{Node: "mx1", Postqueue: []string{"/bin/sh", "-c", `echo '{"queue_name":"deferred","queue_id":"3F2A11C","arrival_time":1700000000,"message_size":300,"sender":"x@example.net","recipients":[]}'`}}
	arrival := time.Unix(1_700_000_000, 0)
	list := []Message{
		{QueueID: "3F2A11C", Node: "mx1", Time: arrival.Add(2 * time.Second)},
		{QueueID: "3F2A11C", Node: "mx1", Time: arrival.Add(-time.Hour)},
		{QueueID: "3F2A11C", Node: "mx2", Time: arrival},
	}
	found, err := s.Find(t.Context(), list)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []bool{true, false, false} {
		if queued := len(found[i].Queued) > 0; queued != want {
			t.Errorf("message %d: queued %t", i, queued)
		}
	}
}

// A message that was sent on has another queue id. It is known by Message-ID and sender together: anybody may use
// either.
func TestSentOn(t *testing.T) {
	const sent = 1_700_000_000
	entry := func(id, sender string, arrived int64) string {
		return fmt.Sprintf(`{"queue_id":%q,"arrival_time":%d,"sender":%q}`+"\n", id, arrived, sender)
	}
	queue := entry("AAAAAA", "Carol@example.org", sent+30) + entry("BBBBBB", "carol@example.org", sent+60) +
		entry("CCCCCC", "eve@example.net", sent+30) + entry("DDDDDD", "carol@example.org", sent-3600) + entry("EEEEEE", "carol@example.org", sent+90)
	headers := `postcat() { case $2 in
AAAAAA) printf 'Received: by mx (Postfix) id AAAAAA\nMESSAGE-ID:\n <one@client>\n' ;;
BBBBBB) printf 'Message-ID: <other@client>\nSubject: x\n' ;;
EEEEEE) printf 'Message-ID: <one@client>\nSubject: copy\n\n' ;;
*) return 1 ;;
esac; }`
	s := &Site{
		Node: "mx1", Postqueue: served(t, "postqueue() { cat <<'END'\n"+queue+"END\n}"), Postcat: served(t, headers),
	}
	list := []Message{
		{QueueID: "999999", MessageID: " <one@client>", Sender: "carol@example.org", Node: "mx2", Time: time.Unix(sent, 0)},
		{QueueID: "888888", MessageID: "other", Sender: "carol@example.org", Node: "mx1", Time: time.Unix(sent, 0)},
	}
	found, err := s.Find(t.Context(), list)
	if err != nil || !slices.Equal(found[0].Queued, []string{"AAAAAA", "EEEEEE"}) || found[1].Queued != nil {
		t.Errorf("found: %v, %v", found, err)
	}
	// What cannot be read is named, and hides no other.
	s.Postqueue = served(t, "postqueue() { cat <<'END'\n"+entry("FFFFFF", "carol@example.org", sent+5)+queue+"END\n}")
	s.Postcat = served(t, headers)
	found, err = s.Find(t.Context(), list)
	if err == nil || !strings.Contains(err.Error(), "FFFFFF") || len(found[0].Queued) != 2 {
		t.Errorf("with one that cannot be read: %v, %v", found, err)
	}
}
