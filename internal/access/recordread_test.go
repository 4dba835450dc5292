package access

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"
)

func fullRecord() LoginRecord {
	return LoginRecord{
		ID: "019ac3b2d1f07c0e5a1b2f3d4e60", Time: time.Date(2026, 11, 29, 3, 4, 5, 678, time.UTC), Account: "ann@example.org", IP: "203.0.113.9",
		RealIP: "2001:db8::1", Region: "GB", Network: "AS64496 Example", Protocol: "imap", Service: "imap", Mechanism: "PLAIN", TLS: true, Client: ClientThirdParty, ClientID: "name=Thunderbird",
		Session: "s", MasterUser: "root", SecretHidden: true, CredentialID: "8d900e59619a888a", Credential: "Télé 7", Outcome: Allow, Reason: ReasonOK,
		PolicyID: "p", WouldRefuse: []string{"a", "b"}, Note: `quoted "note" <x>`, Abnormal: Marks{"new_network"}, Pseudonymised: true,
		ClosedAt: time.Date(2026, 11, 29, 3, 4, 6, 0, time.UTC),
	}
}

// FuzzReadRecord compares with json.Unmarshal, also for what is no record.
func FuzzReadRecord(f *testing.F) {
	full, few := fullRecord(), LoginRecord{Account: "ann@example.org", Outcome: Deny}
	plain := fullRecord()
	plain.Note = "plain"
	for _, r := range []LoginRecord{full, few, plain} {
		text, err := json.Marshal(&r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	f.Add(`{"id":null,"tls":true}`)
	f.Add(`{"ID":"x","id":"y","unknown":[{}]}`)
	f.Add("{\"note\":\"\xff\",\"abnormal\":[],\"would_refuse\":[\"a\",]}")
	f.Add(`{"time":"2026-11-29T03:04:05+01:00"} `)
	f.Fuzz(func(t *testing.T, text string) {
		var got, want LoginRecord
		err := ReadRecord(text, &got)
		if wantErr := json.Unmarshal([]byte(text), &want); (err == nil) != (wantErr == nil) || err == nil && !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\n got %+v, %v\nwant %+v, %v", text, got, err, want, wantErr)
		}
	})
}

// Every field is read without json.Unmarshal.
func TestReadRecordKnowsAllFields(t *testing.T) {
	r := fullRecord()
	r.Note = "plain"
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	var got LoginRecord
	if p := (recordReader{string(text)}); !p.record(&got) || !reflect.DeepEqual(got, r) {
		t.Errorf("read of %s:\n got %+v\nwant %+v", text, got, r)
	}
	for v, i := reflect.ValueOf(r), 0; i < v.NumField(); i++ {
		if name := v.Type().Field(i).Name; v.Field(i).IsZero() && name != "Domain" {
			t.Errorf("the record has no %s", name)
		}
	}
}

func BenchmarkReadRecord(b *testing.B) {
	r := fullRecord()
	r.Note = ""
	text, err := json.Marshal(&r)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		var got LoginRecord
		if err := ReadRecord(string(text), &got); err != nil {
			b.Fatal(err)
		}
	}
}
