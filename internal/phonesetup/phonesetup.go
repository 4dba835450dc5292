// Package phonesetup writes an account's settings in the forms that phones read: Apple's
// configuration profile and the QR code of Thunderbird for Android.
//
//	profile, err := phonesetup.Apple(s)   // .mobileconfig, application/x-apple-aspen-config
//	text := phonesetup.Thunderbird(s)     // what its QR code contains
//	drawing, err := phonesetup.QR(text)   // the code as SVG
//
// The results contain the secure password: they are for the user alone, and never stored. A
// profile is signed with the site's certificate (PKCS #7), if it has one; the phone shows others as not
// signed.
//
// It is pure: values in, bytes out.
//
// Specifications: Apple, Device Management, payload com.apple.mail.managed; Thunderbird "Export for
// Mobile" QR code format, version 1.
package phonesetup

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/boombuler/barcode/qr"
	"github.com/smallstep/pkcs7"
)

// Settings are what a mail program needs to know.
type Settings struct {
	Account string // also the name to log in with
	Device  string // the label of the secure password
	Secret  []byte
	IMAP    Server
	POP3    Server
	SMTP    Server
	Signer  *Signer // of profiles; nil for none
}

// Signer signs profiles.
type Signer struct {
	Chain []*x509.Certificate // the signer's first
	Key   crypto.Signer
}

// Signed reports whether profiles are signed.
func (s Settings) Signed() bool { return s.Signer != nil }

// sign returns a signed copy of a profile, which it contains.
func (s *Signer) sign(profile []byte) ([]byte, error) {
	data, err := pkcs7.NewSignedData(profile)
	if err != nil {
		return nil, fmt.Errorf("signing a profile: %w", err)
	}
	data.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
	if err := data.AddSignerChain(s.Chain[0], s.Key, s.Chain[1:], pkcs7.SignerInfoConfig{}); err != nil {
		return nil, fmt.Errorf("signing a profile: %w", err)
	}
	signed, err := data.Finish()
	if err != nil {
		return nil, fmt.Errorf("signing a profile: %w", err)
	}
	return signed, nil
}

// Server is a mail server as users reach it; the zero Server is none.
type Server struct {
	Host string
	Port int
}

// ParseServer reads "host:port"; anything else is the zero Server.
func ParseServer(text string) Server {
	host, port, err := net.SplitHostPort(text)
	n, bad := strconv.Atoi(port)
	if err != nil || bad != nil {
		return Server{}
	}
	return Server{host, n}
}

// TLS reports whether connections begin with TLS; the others use STARTTLS. Ports that are thousands
// higher are those of a trial.
func (s Server) TLS() bool {
	return slices.Contains([]int{993, 995, 465}, s.Port%1000)
}

// Known reports whether there is a server.
func (s Server) Known() bool { return s.Host != "" }

// Apple returns a configuration profile with the account and its password for both servers. The same
// account and device give the same identifiers, so that a second profile replaces the first.
// It is signed if there is a signer; the error is the signer's.
func Apple(s *Settings) ([]byte, error) {
	id := func(what string) string {
		h := sha256.Sum256([]byte("drawbridge profile\n" + what + "\n" + s.Account + "\n" + s.Device))
		h[6], h[8] = h[6]&0x0f|0x50, h[8]&0x3f|0x80 // the form of a version 5 UUID
		return fmt.Sprintf("%X-%X-%X-%X-%X", h[0:4], h[4:6], h[6:8], h[8:10], h[10:16])
	}
	name := "org.drawbridge." + id("profile")
	var b bytes.Buffer
	b.WriteString(`<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
<key>PayloadContent</key>
<array>
<dict>
`)
	text := func(key, value string) {
		fmt.Fprintf(&b, "<key>%s</key><string>", key)
		_ = xml.EscapeText(&b, []byte(value)) // a buffer takes everything
		b.WriteString("</string>\n")
	}
	number := func(key string, n int) { fmt.Fprintf(&b, "<key>%s</key><integer>%d</integer>\n", key, n) }
	flag := func(key string, on bool) { fmt.Fprintf(&b, "<key>%s</key><%t/>\n", key, on) }
	server := func(direction string, to Server) {
		text(direction+"MailServerAuthentication", "EmailAuthPassword")
		text(direction+"MailServerHostName", to.Host)
		number(direction+"MailServerPortNumber", to.Port)
		flag(direction+"MailServerUseSSL", true)
		text(direction+"MailServerUsername", s.Account)
		text(direction+"Password", string(s.Secret))
	}
	kind, incoming := "EmailTypeIMAP", s.IMAP
	if !incoming.Known() {
		kind, incoming = "EmailTypePOP", s.POP3
	}
	text("EmailAccountType", kind)
	text("EmailAccountDescription", s.Account)
	text("EmailAddress", s.Account)
	server("Incoming", incoming)
	server("Outgoing", s.SMTP)
	flag("OutgoingPasswordSameAsIncomingPassword", true)
	text("PayloadDisplayName", s.Account)
	text("PayloadIdentifier", name+".mail")
	text("PayloadType", "com.apple.mail.managed")
	text("PayloadUUID", id("mail"))
	number("PayloadVersion", 1)
	b.WriteString("</dict>\n</array>\n")
	text("PayloadDisplayName", "Mail: "+s.Account)
	text("PayloadIdentifier", name)
	text("PayloadType", "Configuration")
	text("PayloadUUID", id("profile"))
	number("PayloadVersion", 1)
	b.WriteString("</dict>\n</plist>\n")
	if s.Signer == nil {
		return b.Bytes(), nil
	}
	defer clear(b.Bytes())
	return s.Signer.sign(b.Bytes())
}

// The words of Thunderbird's format.
const (
	overIMAP, overPOP3 = 0, 1
	overSMTP           = 0
	withStartTLS       = 2
	withTLS            = 3
	byPassword         = 1
)

// Thunderbird returns the content of the QR code that Thunderbird for Android imports an account
// from.
func Thunderbird(s *Settings) (string, error) {
	security := func(to Server) int {
		if to.TLS() {
			return withTLS
		}
		return withStartTLS
	}
	protocol, incoming := overIMAP, s.IMAP
	if !incoming.Known() {
		protocol, incoming = overPOP3, s.POP3
	}
	type list = []any
	text, err := json.Marshal(list{
		1,
		list{1, 1},
		list{protocol, incoming.Host, incoming.Port, security(incoming), byPassword, s.Account, s.Account, string(s.Secret)},
		list{list{
			list{overSMTP, s.SMTP.Host, s.SMTP.Port, security(s.SMTP), byPassword, s.Account, string(s.Secret)},
			list{s.Account, s.Account},
		}},
	})
	return string(text), err
}

// QR draws a text as a QR code: an SVG image without scripts and styles. The label describes it for
// those who cannot see it.
func QR(text, label string) (string, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", fmt.Errorf("drawing a QR code: %w", err)
	}
	size := code.Bounds().Dx()
	var path strings.Builder
	for y := range size {
		for x := range size {
			if r, _, _, _ := code.At(x, y).RGBA(); r == 0 {
				fmt.Fprintf(&path, "M%d %dh1v1h-1z", x, y)
			}
		}
	}
	var title bytes.Buffer
	_ = xml.EscapeText(&title, []byte(label)) // a buffer takes everything
	return fmt.Sprintf(`<svg class="qr" role="img" aria-label="%s" viewBox="-2 -2 %d %d" xmlns="http://www.w3.org/2000/svg" shape-rendering="crispEdges"><path d="%s"/></svg>`,
		title.String(), size+4, size+4, path.String()), nil
}
