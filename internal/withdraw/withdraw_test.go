package withdraw

import (
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
		if found[i].Queued != want {
			t.Errorf("message %d: queued %t", i, found[i].Queued)
		}
	}
}
