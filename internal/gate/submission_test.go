package gate_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	goesOn  = "allow ok"
	goesOn2 = "next ok" // where the next passdb has the mailbox passwords
	revoked = "deny revoked_secret"
	enforce = "deny secure_password_required"
)

// submitting is a daemon where ann has two devices and a mailbox password.
func submitting(t *testing.T, set func(*gate.Options)) (d *daemon, phone, tablet string) {
	t.Helper()
	d = newSite(t).daemon(t, set)
	d.domain(nil)
	d.mailbox("ann@example.org")
	return d, d.device("ann@example.org", "phone"), d.device("ann@example.org", "tablet")
}

func TestRevocationEndsOpenSession(t *testing.T) {
	t.Parallel()
	d, phone, tablet := submitting(t, nil)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	d.wantMail(mail("Ann@Example.NET", home, 1), goesOn)
	d.want(smtp("ann@example.org", tablet, cafe), "allow ok")
	d.wantMail(mail("ann@example.org", cafe, 2), goesOn)

	d.revoke("ann@example.org", "phone")
	got := d.wantMail(mail("ann@example.org", home, 1), revoked)
	if got.CredentialID != "phone" || got.Message != "" {
		t.Errorf("%+v", got)
	}
	d.wantMail(mail("ann@example.org", home, 1), revoked) // and it stays so
	d.wantMail(mail("ann@example.org", cafe, 2), goesOn)
	d.want(smtp("ann@example.org", phone, home), revoked)

	// One refusal leaves one record and one line, however often it is repeated.
	d.want(imap("ann@example.org", tablet, cafe), "allow ok")
	records := d.wantRecords("allow ok", "allow ok", revoked, revoked, "allow ok")
	if r := records[2]; r.Credential != "phone" || r.CredentialID != "phone" || r.Service != "smtp" || r.Note == "" {
		t.Errorf("%+v", r)
	}
	want := "submission deny: user=ann@example.org ip=203.0.113.9 proto=smtp client=third-party reason=revoked_secret credential=phone"
	if n := slices.Index(d.log.decisions(), want); n < 0 {
		t.Errorf("logged %q", d.log.decisions())
	}
}

// Postfix does not tell two devices behind one address apart: both authenticate revoked, and only
// one of them can.
func TestDevicesBehindOneAddress(t *testing.T) {
	t.Parallel()
	d, phone, tablet := submitting(t, nil)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	d.wantMail(mail("ann@example.org", home, 2), goesOn)
	d.revoke("ann@example.org", "phone")
	d.wantMail(mail("ann@example.org", home, 1), revoked)
	d.wantMail(mail("ann@example.org", home, 2), revoked)
	d.want(smtp("ann@example.org", phone, home), revoked)
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 3), goesOn)
	d.wantMail(mail("ann@example.org", home, 3), goesOn)
	d.wantMail(mail("ann@example.org", home, 1), revoked) // the old connections stay shut
	d.wantMail(mail("ann@example.org", home, 2), revoked)
}

// A connection that was opened before the revocation, and asks for nothing until after it, does not
// pass for another device's.
func TestRevokedBeforeItWasSeen(t *testing.T) {
	t.Parallel()
	d, phone, tablet := submitting(t, nil)
	d.want(smtp("ann@example.org", phone, home), "allow ok") // on port 1, which waits
	d.revoke("ann@example.org", "phone")
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 2), goesOn)
	d.wantMail(mail("ann@example.org", home, 1), revoked)
	d.wantMail(mail("ann@example.org", home, 2), goesOn)
	d.wantMail(mail("ann@example.org", home, 1), revoked)
	// Of two devices' connections each is matched by its own authentication.
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.want(smtp("ann@example.org", "right", home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 3), goesOn)
	d.wantMail(mail("ann@example.org", home, 4), goesOn)
	d.wantMail(mail("ann@example.org", home, 5), revoked)
}

// Where the next passdb verifies mailbox passwords, anybody can try one: only one that Dovecot
// reported as good makes another session pass.
func TestTriedPasswordDoesNotSaveRevokedSession(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, next)
	report := func(success bool) {
		d.Report(&access.Ending{Account: "ann@example.org", IP: ip(home), Service: "smtp", Success: success})
	}
	d.want(smtp("ann@example.org", phone, home), "allow ok") // on port 1, which waits
	d.revoke("ann@example.org", "phone")
	d.want(smtp("ann@example.org", "wrong", home), "next ok")
	d.wantMail(mail("ann@example.org", home, 1), revoked)
	report(false)
	d.wantMail(mail("ann@example.org", home, 1), revoked)
	d.wantMail(mail("ann@example.org", home, 2), revoked)
	d.want(smtp("ann@example.org", "right", home), "next ok")
	report(true)
	d.wantMail(mail("ann@example.org", home, 3), goesOn2)
	d.wantMail(mail("ann@example.org", home, 4), revoked)
}

// Where the milter tells when connections begin, each is bound to what authenticated since: whoever
// asks first, and whatever was tried meanwhile.
func TestConnectionsWhoseBeginningIsKnown(t *testing.T) {
	t.Parallel()
	d, phone, tablet := submitting(t, next)
	open := map[uint16]func(){}
	connect := func(port uint16) { open[port] = d.Connected(ip(home), port) }
	connect(1)
	d.want(smtp("ann@example.org", phone, home), "allow ok") // and waits
	connect(2)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 2), goesOn)
	connect(3)
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 3), goesOn)
	d.revoke("ann@example.org", "phone")
	d.wantMail(mail("ann@example.org", home, 3), goesOn) // another device's, behind the same address
	d.wantMail(mail("ann@example.org", home, 2), revoked)

	connect(4)
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.want(smtp("ann@example.org", "wrong", home), "next ok")
	d.wantMail(mail("ann@example.org", home, 1), revoked) // asks first
	d.wantMail(mail("ann@example.org", home, 4), goesOn2) // of either
	d.wantMail(mail("ann@example.org", home, 1), revoked)

	// A port that serves another connection by now.
	open[1]()
	connect(1)
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	open[4]()
	connect(4)
	d.want(smtp("ann@example.org", phone, home), revoked)
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.wantMail(mail("ann@example.org", home, 4), enforce) // nobody authenticated on it
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	d.revoke("ann@example.org", "tablet")
	d.wantMail(mail("ann@example.org", home, 1), revoked)
}

// The beginning is told to one daemon, and the authentication to another.
func TestBeginningAndAuthenticationOnTwoDaemons(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	logins, mails := s.daemon(t, nil), s.daemon(t, nil)
	logins.domain(func(dom *store.Domain) { dom.TraceHeader = true })
	logins.mailbox("ann@example.org")
	phone := logins.device("ann@example.org", "phone")
	redistest.Eventually(t, "the account is known", func() bool { return logins.Store.State.Heads() == mails.Store.State.Heads() })
	mails.Connected(ip(home), 1)
	early := smtp("ann@example.org", phone, home)
	early.Time = time.Now().Add(-time.Second) // by another clock
	logins.want(early, "allow ok")
	redistest.Eventually(t, "the session is bound", func() bool {
		return strings.Contains(mails.Submitter(mail("ann@example.org", home, 1)).Trace, "phone")
	})
	logins.revoke("ann@example.org", "phone")
	redistest.Eventually(t, "the session ends", func() bool { return end(mails.Submission(mail("ann@example.org", home, 1))) == revoked })
}

// One authentication may serve several connections while nothing was revoked: a connection that
// Postfix' milter and policy service name by different ports is not refused for it.
func TestConnectionsWithoutAuthentication(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, nil)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	for port := range uint16(3) {
		d.wantMail(mail("ann@example.org", home, port), goesOn)
	}
	d.revoke("ann@example.org", "phone")
	for port := range uint16(4) {
		d.wantMail(mail("ann@example.org", home, port), revoked)
	}
}

func TestChangesEndOpenSession(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]struct {
		secret string // phone, or the mailbox password
		change func(*daemon)
		ends   string
		says   string
	}{
		"suspended": {"phone", func(d *daemon) { d.suspend("ann@example.org") }, "deny suspended", "This account is suspended."},
		"switched off for the account": {
			"phone", func(d *daemon) {
				d.account("ann@example.org", func(a *store.Account) { a.Protocols = access.Switches{"smtp": false} })
			},
			"deny protocol_disabled", "This service is switched off for your account.",
		},
		"switched off for the domain": {
			"right", func(d *daemon) { d.domain(func(dom *store.Domain) { dom.Protocols = access.Switches{"smtp": false} }) },
			"deny protocol_disabled", "This service is switched off for your account.",
		},
		"third-party clients blocked": {
			"phone", func(d *daemon) {
				d.policy(access.Policy{ID: "p", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, Clients: []access.ClientType{access.ClientThirdParty}})
			},
			"deny policy", "The administrator does not allow this type of client.",
		},
		"its place forbidden": {
			"right", func(d *daemon) {
				d.policy(access.Policy{ID: "p", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: []string{home}})
			},
			"deny policy", "The administrator has enabled IP login restrictions. Login from the current IP is not allowed.",
		},
		"secure passwords enforced": {
			"right", func(d *daemon) {
				d.domain(func(dom *store.Domain) {
					dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
				})
			},
			enforce, "Use a secure password for this client; your mailbox password is not accepted here.",
		},
		"secure passwords chosen": {
			"right", func(d *daemon) {
				d.account("ann@example.org", func(a *store.Account) { a.Secure = access.SecureRequired })
			},
			enforce, "Use a secure password for this client; your mailbox password is not accepted here.",
		},
		"secure passwords given up": {
			"phone", func(d *daemon) {
				d.account("ann@example.org", func(a *store.Account) { a.Secure = access.SecureOff })
			},
			"deny bad_secret", "",
		},
		"secure password deleted": {
			"phone", func(d *daemon) { d.account("ann@example.org", func(a *store.Account) { a.Secrets = nil }) },
			revoked, "",
		},
		"record deleted": {
			"phone", func(d *daemon) {
				d.change("example.org", func(c *store.Change) error { c.DeleteAccount("ann@example.org"); return nil })
			},
			"deny unknown_account", "",
		},
		"domain no longer managed": {
			"phone", func(d *daemon) {
				d.change("example.org", func(c *store.Change) error { c.DeleteDomain(d.Store.State, "example.org", 100); return nil })
			},
			"deny unmanaged_domain", "",
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			d, secret, _ := submitting(t, nil)
			if tt.secret == "right" {
				secret = "right"
			}
			d.want(smtp("ann@example.org", secret, home), "allow ok")
			d.wantMail(mail("ann@example.org", home, 1), goesOn)
			tt.change(d)
			if got := d.wantMail(mail("ann@example.org", home, 1), tt.ends); got.Message != tt.says {
				t.Errorf("says %q, want %q", got.Message, tt.says)
			}
			if d.Unmanaged.All = true; what == "domain no longer managed" {
				d.wantMail(mail("ann@example.org", home, 1), "next unmanaged_domain")
			}
		})
	}
}

// Enforcement ends mailbox passwords' sessions, and no others.
func TestEnforcementSparesSecurePasswords(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, next)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	d.want(smtp("ann@example.org", "right", cafe), "next ok")
	d.wantMail(mail("ann@example.org", cafe, 2), goesOn2)
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.wantMail(mail("ann@example.org", home, 1), goesOn)
	d.wantMail(mail("ann@example.org", cafe, 2), enforce)
	d.wantMail(mail("ann@example.org", cafe, 3), enforce)
	// Nothing is known of how this one authenticated.
	d.wantMail(mail("ann@example.org", office, 4), enforce)
	d.want(smtp("ann@example.org", phone, office), "allow ok")
	d.wantMail(mail("ann@example.org", office, 4), enforce) // refused, it stays so
	d.wantMail(mail("ann@example.org", office, 5), goesOn)
}

// The site's own webmail submits for its users from its own address.
func TestWebmailSubmits(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, next)
	d.clients(access.ClientWeb, webmail)
	d.policy(access.Policy{ID: "p", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, Clients: []access.ClientType{access.ClientThirdParty}})
	d.domain(func(dom *store.Domain) {
		dom.Protocols = access.Switches{"smtp": false}
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.want(smtp("ann@example.org", "right", webmail), "next ok")
	d.wantMail(mail("ann@example.org", webmail, 1), goesOn2)
	d.want(smtp("ann@example.org", phone, webmail), "deny bad_secret")
	d.wantMail(mail("ann@example.org", webmail, 1), goesOn2)
	d.want(smtp("ann@example.org", phone, home), "deny protocol_disabled")
}

func TestMasterSubmits(t *testing.T) {
	t.Parallel()
	d, _, _ := submitting(t, nil)
	master := smtp("ann@example.org", "the master's", home)
	master.MasterUser = "admin"
	d.want(master, "allow ok")
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.wantMail(mail("ann@example.org", home, 1), goesOn) // its secret is not the account's
	d.suspend("ann@example.org")
	d.wantMail(mail("ann@example.org", home, 1), "deny suspended")
}

func TestSubmissionOfNobody(t *testing.T) {
	t.Parallel()
	d, _, _ := submitting(t, nil)
	for _, account := range []string{"", "ann", "no address", "eve@other.example"} {
		d.wantMail(mail(account, home, 1), "deny unmanaged_domain")
	}
	d.wantMail(mail("nobody@example.org", home, 1), "deny unknown_account")
	d.wantMail(mail("ann@example.org", "", 0), goesOn)
	d.wantMail(mail("eve@example.org", home, 1), "deny unknown_account")
}

// A permit is asked for at every recipient: it leaves neither record nor line.
func TestPermitsLeaveNothing(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, nil)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	for range 100 {
		d.wantMail(mail("ann@example.org", home, 1), goesOn)
		d.wantMail(mail("ann@example.org", cafe, 2), goesOn)
		d.Submitter(mail("ann@example.org", home, 1))
	}
	d.want(imap("ann@example.org", phone, home), "allow ok")
	d.wantRecords("allow ok", "allow ok")
	if log := d.log.decisions(); len(log) != 2 {
		t.Errorf("logged %q", log)
	}
}

func TestTwoDaemonsShareSessions(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	logins, mails := s.daemon(t, nil), s.daemon(t, nil)
	logins.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	phone, tablet := logins.device("ann@example.org", "phone"), logins.device("ann@example.org", "tablet")
	redistest.Eventually(t, "the account is known", func() bool { return logins.Store.State.Heads() == mails.Store.State.Heads() })
	logins.want(smtp("ann@example.org", phone, home), "allow ok")
	// Each port is a new connection: what was refused stays so.
	port := uint16(0)
	redistest.Eventually(t, "the session is known to the other daemon", func() bool {
		port++
		return mails.Submission(mail("ann@example.org", home, port)).Outcome == access.Allow
	})
	logins.revoke("ann@example.org", "phone")
	redistest.Eventually(t, "the session ends", func() bool { return end(mails.Submission(mail("ann@example.org", home, port))) == revoked })
	logins.want(smtp("ann@example.org", tablet, home), "allow ok")
	redistest.Eventually(t, "another device goes on", func() bool {
		port++
		return mails.Submission(mail("ann@example.org", home, port)).Outcome == access.Allow
	})
	// A daemon that starts later knows of the sessions too, and of what was revoked.
	late := s.daemon(t, nil)
	redistest.Eventually(t, "the session is known to the late daemon", func() bool {
		port++
		return late.Submission(mail("ann@example.org", home, port)).Outcome == access.Allow
	})
	logins.revoke("ann@example.org", "tablet")
	redistest.Eventually(t, "the session ends", func() bool { return end(late.Submission(mail("ann@example.org", home, port))) == revoked })
}

// The other daemon may hear of an authentication after the session's first request: the session is
// bound to it all the same.
func TestAuthenticationHeardOfLate(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	logins, mails := s.daemon(t, nil), s.daemon(t, nil)
	logins.domain(nil)
	logins.mailbox("ann@example.org")
	phone := logins.device("ann@example.org", "phone")
	redistest.Eventually(t, "the account is known", func() bool { return logins.Store.State.Heads() == mails.Store.State.Heads() })
	mails.wantMail(mail("ann@example.org", home, 1), goesOn)
	logins.want(smtp("ann@example.org", phone, home), "allow ok")
	trace := func() string { return mails.Submitter(mail("ann@example.org", home, 1)).Trace }
	logins.domain(func(dom *store.Domain) { dom.TraceHeader = true })
	redistest.Eventually(t, "the session is bound", func() bool { return strings.Contains(trace(), "phone") })
	mails.wantMail(mail("ann@example.org", home, 1), goesOn)
	logins.revoke("ann@example.org", "phone")
	redistest.Eventually(t, "the session ends", func() bool { return end(mails.Submission(mail("ann@example.org", home, 1))) == revoked })
}

// Whatever happens at the same time: a login, or a request of a session, that begins after the
// revocation was acknowledged is not admitted.
func TestRevocationHoldsOnceAcknowledged(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(nil)
	for round := range 10 {
		name := fmt.Sprintf("phone%d", round)
		secret := d.device("ann@example.org", name)
		d.want(smtp("ann@example.org", secret, home), "allow ok")
		d.wantMail(mail("ann@example.org", home, uint16(round)), goesOn)
		var acknowledged atomic.Bool
		var wg sync.WaitGroup
		var before, after atomic.Int32
		for i := range 4 {
			wg.Go(func() {
				for after.Load() < 20 {
					late := acknowledged.Load()
					var got access.Decision
					if i%2 == 0 {
						got = d.login(imap("ann@example.org", secret, home))
					} else {
						got = d.Submission(mail("ann@example.org", home, uint16(round)))
					}
					switch {
					case late && got.Outcome != access.Deny:
						t.Errorf("after the revocation: %s", end(got))
						return
					case late:
						after.Add(1)
					default:
						before.Add(1)
					}
				}
			})
		}
		redistest.Eventually(t, "there is traffic", func() bool { return before.Load() > 20 })
		d.revoke("ann@example.org", name)
		acknowledged.Store(true)
		wg.Wait()
		// The next round's connection is matched by an authentication of its own.
	}
}

// An authentication counts for a day.
func TestOldAuthenticationDoesNotCount(t *testing.T) {
	t.Parallel()
	d, phone, _ := submitting(t, nil)
	old := smtp("ann@example.org", phone, home)
	old.Time = time.Now().Add(-25 * time.Hour)
	d.want(old, "allow ok")
	d.domain(func(dom *store.Domain) {
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	d.wantMail(mail("ann@example.org", home, 1), enforce)
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 2), goesOn)
}

// However many devices and connections there are, each device's authentication is found.
func TestManyDevicesBehindOneAddress(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, nil)
	d.domain(func(dom *store.Domain) {
		dom.TraceHeader = true
		dom.SecurePasswords = store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}}
	})
	var secrets []string
	for i := range 10 {
		secrets = append(secrets, d.device("ann@example.org", fmt.Sprintf("phone%d", i)))
	}
	for i := range 200 {
		d.want(smtp("ann@example.org", secrets[i%len(secrets)], home), "allow ok")
		d.wantMail(mail("ann@example.org", home, uint16(i)), goesOn)
	}
	if trace := d.Submitter(mail("ann@example.org", home, 199)).Trace; strings.Count(trace, "phone") != 2*len(secrets) {
		t.Errorf("the last connection is bound to %s", trace)
	}
	d.revoke("ann@example.org", "phone3")
	d.wantMail(mail("ann@example.org", home, 199), revoked)
	d.want(smtp("ann@example.org", secrets[0], home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 200), goesOn)
}

// Somebody else's connection from the same address and port, to another port of the server, is no
// end of the session.
func TestTwinConnectionHidesNoRevocation(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	d.Connected(ip(home), 4711)
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	d.wantMail(mail("ann@example.org", home, 4711), "allow ok")
	d.revoke("ann@example.org", "phone")
	d.Connected(ip(home), 4711) // to port 25
	d.wantMail(mail("ann@example.org", home, 4711), revoked)
}

// smtpAt is a login at a Postfix listener with a service name of its own.
func smtpAt(service, account, secret, from string) *access.Login {
	l := smtp(account, secret, from)
	l.Service = service
	return l
}

// A session is of the client type that its login was, also where the listener's service is part of
// the evidence, which Postfix does not repeat after AUTH.
func TestSessionKeepsClientTypeOfItsListener(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	set := func(o *gate.Options) {
		o.Services = map[string]string{"submission587": "smtp", "submission465": "smtp"}
	}
	d, other := s.daemon(t, set), s.daemon(t, set)
	d.domain(nil)
	d.mailbox("ann@example.org", "bob@example.org")
	d.evidence("native-desktop", access.Evidence{Networks: []string{home}, Services: []string{"submission587"}})
	d.policy(access.Policy{
		ID: "own", Type: access.Blacklist, Enabled: true, Mode: access.Enforce, Scope: access.Scope{All: true}, Clients: []access.ClientType{access.ClientThirdParty},
	})
	d.want(smtpAt("submission465", "ann@example.org", "right", home), "deny policy")
	d.want(smtpAt("submission587", "ann@example.org", "right", cafe), "deny policy")
	d.want(smtpAt("submission587", "ann@example.org", "right", home), "allow ok")
	if got := d.wantMail(mail("ann@example.org", home, 1), goesOn); got.Client != "native-desktop" {
		t.Errorf("the session is of type %s", got.Client)
	}
	if m := d.Submitter(mail("ann@example.org", home, 1)); m.Account != "ann@example.org" {
		t.Errorf("submitter %+v", m)
	}
	port := uint16(100)
	redistest.Eventually(t, "another daemon knows how it authenticated", func() bool {
		port++ // a connection that was refused stays so
		return end(other.Submission(mail("ann@example.org", home, port))) == goesOn
	})
	d.wantMail(mail("bob@example.org", home, 3), "deny policy") // nobody saw it authenticate

	// What the rules say of the type holds for the open session, and so does what proves it.
	d.policy(access.Policy{
		ID: "own", Type: access.Blacklist, Enabled: true, Mode: access.Enforce, Scope: access.Scope{All: true}, Clients: []access.ClientType{"native-desktop"},
	})
	d.wantMail(mail("ann@example.org", home, 1), "deny policy")
	d.want(smtpAt("submission465", "bob@example.org", "right", home), "allow ok")
	if got := d.wantMail(mail("bob@example.org", home, 4), goesOn); got.Client != access.ClientThirdParty {
		t.Errorf("a session of the other listener is of type %s", got.Client)
	}
	d.evidence("native-desktop", access.Evidence{Networks: []string{home}})
	d.wantMail(mail("bob@example.org", home, 4), "deny policy")
}

// Where the next passdb verifies, the listener is remembered as well.
func TestSessionOfNextPassdbKeepsItsListener(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, func(o *gate.Options) {
		next(o)
		o.Services = map[string]string{"submission587": "smtp", "submission465": "smtp"}
	})
	d.domain(func(doc *store.Domain) { doc.TraceHeader = true })
	d.evidence("native-desktop", access.Evidence{Networks: []string{home}, Services: []string{"submission587"}})
	ended := d.Connected(ip(home), 1)
	defer ended()
	d.want(smtpAt("submission587", "ann@example.org", "right", home), "next ok")
	d.want(smtpAt("submission465", "ann@example.org", "wrong", home), "next ok")
	d.Report(&access.Ending{Account: "ann@example.org", IP: ip(home), Service: "submission465"})
	d.Report(&access.Ending{Account: "ann@example.org", IP: ip(home), Service: "submission587", Success: true})
	if r := d.wantRecords("allow ok", "deny bad_secret"); r[0].Client != "native-desktop" || r[1].Client != access.ClientThirdParty {
		t.Errorf("the reports closed the wrong records: %+v", r)
	}
	d.wantMail(mail("ann@example.org", home, 1), goesOn2)
	if m := d.Submitter(mail("ann@example.org", home, 1)); m.Trace != `client=native-desktop,third-party; credential="mailbox"; id=mailbox` {
		t.Errorf("trace %q", m.Trace)
	}
}

// An open session is held against the regions as they are now.
func TestRegionsChangeInOpenSession(t *testing.T) {
	t.Parallel()
	var region atomic.Value
	region.Store("DE")
	d, phone, _ := submitting(t, func(o *gate.Options) {
		o.Region = func(netip.Addr) string { return region.Load().(string) }
	})
	d.policy(access.Policy{ID: "home", Name: "home", Type: access.Whitelist, Enabled: true, Scope: access.Scope{All: true}, Regions: []string{"DE"}})
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	s := mail("ann@example.org", home, 1)
	d.wantMail(s, goesOn)
	region.Store("FR")
	d.RegionsChanged()
	if got := d.wantMail(s, "deny policy"); got.Region != "FR" || got.PolicyID != "home" {
		t.Errorf("%+v", got)
	}
	region.Store(access.RegionUnknown)
	d.RegionsChanged()
	d.wantMail(s, "deny policy")
	region.Store("DE")
	d.RegionsChanged()
	d.wantMail(s, goesOn)

	// Without a database nobody is let in for a region, and the record does not claim one.
	region.Store(access.RegionNoDatabase)
	d.RegionsChanged()
	if got := d.wantMail(s, "deny policy"); got.Region != "" {
		t.Errorf("region %q", got.Region)
	}
	d.policy(access.Policy{ID: "home", Name: "home", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, Regions: []string{"FR"}})
	d.wantMail(s, "deny policy")
}

// The sender is checked before it is known how the session authenticated, and its refusal does not
// keep the session from being bound later.
func TestSenderOfWaitingSession(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	secret := d.device("ann@example.org", "phone")
	foreign := mail("ann@example.org", home, 1)
	foreign.Sender = "eve@example.org"
	d.wantMail(foreign, "deny sender_not_owned")
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	d.revoke("ann@example.org", "phone")
	d.wantMail(mail("ann@example.org", home, 1), revoked)
}
