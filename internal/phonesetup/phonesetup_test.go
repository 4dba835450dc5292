package phonesetup

import (
	"encoding/xml"
	"strings"
	"testing"
)

var settings = &Settings{
	Account: "ann@example.org", Device: `<b>"&`, Secret: []byte("abcd efgh"),
	IMAP: Server{"mail.example.org", 993}, SMTP: Server{"mail.example.org", 587},
}

func TestThunderbird(t *testing.T) {
	got, err := Thunderbird(settings)
	want := `[1,[1,1],[0,"mail.example.org",993,3,1,"ann@example.org","ann@example.org","abcd efgh"],` +
		`[[[0,"mail.example.org",587,2,1,"ann@example.org","abcd efgh"],["ann@example.org","ann@example.org"]]]]`
	if err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
}

func TestApple(t *testing.T) {
	profile := string(Apple(settings))
	if err := xml.Unmarshal([]byte(profile), new(struct{})); err != nil {
		t.Fatalf("%v: %s", err, profile)
	}
	for _, want := range []string{
		"<string>com.apple.mail.managed</string>", "<key>IncomingPassword</key><string>abcd efgh</string>",
		"<key>OutgoingPassword</key><string>abcd efgh</string>", "<key>OutgoingMailServerPortNumber</key><integer>587</integer>",
	} {
		if !strings.Contains(profile, want) {
			t.Errorf("no %s in %s", want, profile)
		}
	}
	other := *settings
	other.Device = "other"
	if string(Apple(settings)) != profile || string(Apple(&other)) == profile {
		t.Error("identifiers are not those of account and device")
	}
}

func TestQR(t *testing.T) {
	svg, err := QR("https://mail.example.org/account/phone/ABC", `"><script>`)
	if err != nil || strings.Contains(svg, "<script") || !strings.HasPrefix(svg, "<svg") {
		t.Errorf("%v %s", err, svg)
	}
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Error(err)
	}
	if _, err := QR(strings.Repeat("x", 5000), ""); err == nil {
		t.Error("5000 characters fit")
	}
}

func TestServer(t *testing.T) {
	for text, want := range map[string]bool{"h:993": true, "h:143": false, "h:587": false, "h:465": true, "h:10993": true, "h:10587": false, "": false} {
		if s := ParseServer(text); s.TLS() != want || s.Known() != (text != "") {
			t.Errorf("%q: %+v", text, s)
		}
	}
}
