package content

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

func TestOf(t *testing.T) {
	c := Of([]byte("From: =?utf-8?q?J=C3=BCrgen?= <j@partner.example>\nSubject:\n =?gb2312?B?vLY=?=\nContent-Type: multipart/mixed; boundary=x\n\n" +
		"--x\n\ntext\n--x\nContent-Type: application/pdf; name=a.exe\n\nMZ\n--x\n"))
	if c.From() != "Jürgen <j@partner.example>" || c.Subject != "级" || c.Texts != nil {
		t.Errorf("before a rule asks: %+v", c)
	}
	load := c.Load
	load(c)
	want := []mailflow.Attachment{{Names: []string{"a.exe"}, Types: []string{"application/pdf", "application/x-msdownload"}, Size: 2}}
	if diff := cmp.Diff(want, c.Attachments[:1]); diff != "" || len(c.Texts) == 0 || c.Texts[0] != "text" {
		t.Error(diff, c.Texts)
	}
	if c.Fault == nil || !strings.Contains(c.Fault.Error(), "a multipart without its end") {
		t.Error(c.Fault)
	}
}
