package e2e

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// F4, F23: a department with all below it loses POP3 in one call, at once, and each account can
// tell by what.
func TestBatchOverADepartment(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PUT", "/v1/domains/example.org/departments/sales/emea/dach", object{})
	s.api("PUT", "/v1/domains/example.org/departments/board", object{})
	s.api("PUT", "/v1/accounts/"+ann, object{"departments": []string{"sales/emea/dach"}})
	s.api("PUT", "/v1/accounts/"+bob, object{"departments": []string{"board"}})
	annPW, bobPW := s.passwords[ann], s.passwords[bob]
	s.want("ann before", s.pop3(outside, ann, annPW), "+OK ")

	const batch = "/v1/domains/example.org/accounts/batch"
	over := func(sub bool) object {
		return object{"select": object{"departments": []object{{"path": "sales", "sub": sub}}}, "set": object{"protocols": object{"pop3": false}}}
	}
	if r := s.api("POST", batch, over(false)); r["selected"] != 0.0 {
		t.Fatalf("the department alone: %v", r)
	}
	s.want("ann, who is further below", s.pop3(outside, ann, annPW), "+OK ")
	r := s.api("POST", batch, over(true))
	if got := toJSON(r["results"]); got != `[{"address":"`+ann+`","changes":{"protocols.pop3":[null,false]},"result":"changed"}]` {
		t.Errorf("results: %s", got)
	}
	s.refuse("ann by pop3", s.pop3(outside, ann, annPW), "+OK ")
	s.want("ann by imap", s.imap(outside, ann, annPW), "OK ")
	s.want("bob by pop3", s.pop3(outside, bob, bobPW), "+OK ")

	pop3 := func() string {
		return toJSON(s.api("GET", "/v1/accounts/"+ann+"/effective", nil)["protocols"].(object)["pop3"])
	}
	if got := pop3(); !strings.Contains(got, `"by":"root","scope":"sales with subdepartments"`) || !strings.Contains(got, `"set_by":"batch"`) {
		t.Errorf("effective: %s", got)
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": true}})
	s.want("ann, by her own word", s.pop3(outside, ann, annPW), "+OK ")
	if got := pop3(); got != `{"set_by":"account","value":true}` {
		t.Errorf("effective after that: %s", got)
	}
}
