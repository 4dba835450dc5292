package config

import (
	"cmp"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
)

// A setting is one row of the manual.
type setting struct {
	name string // with its table: "login.unmanaged"
	doc  string
	// at points to the field: a *string, *bool, *int, *time.Duration, *StoreURL, *[]listen.Spec,
	// *OneOrMore, *[]string or *map[string]string.
	at func(*Config) any
	// check returns the faults of the value, one text each. It may use other settings; the fault is
	// reported at this one.
	check func(*Config) []string
	// live settings are applied by a reload; the others need a restart.
	live bool
}

// live marks a setting that a reload applies.
func live(s setting) setting {
	s.live = true
	return s
}

func row[T any](name, doc string, at func(*Config) *T, checks ...func(*Config, T) []string) setting {
	return setting{
		name: name,
		doc:  doc,
		at:   func(c *Config) any { return at(c) },
		check: func(c *Config) (faults []string) {
			for _, check := range checks {
				faults = append(faults, check(c, *at(c))...)
			}
			return faults
		},
	}
}

// settings is the manual: every setting in the order in which it is printed, those without a table
// first.
func settings() []setting {
	return []setting{
		row("state_dir", `Directory of the daemon's own files: the embedded store or the snapshot, the spool, the store's id and the pepper. It must belong to the
daemon's user and be readable by nobody else.`,
			func(c *Config) *string { return &c.StateDir }, required, absolute),
		row("user", `User that a daemon started as root changes to, with its groups, after it has opened its listeners and read its secrets;
redis-server runs as this user, too. It becomes the owner of a state_dir that root owns. A daemon started as another user
exits. Empty: the daemon keeps running as the user that started it.`,
			func(c *Config) *string { return &c.User }, printable),

		row("store.url", `Store of the rules. "embedded": a private redis-server that the daemon runs by itself.
A Redis of your own: "unix:///run/redis/redis.sock", "redis://host:6379", or "rediss://host:6379" with TLS.
A list is a Redis Cluster, by some of its nodes: ["10.0.0.1:6379", "10.0.0.2:6379"], or ["rediss://…", "rediss://…"] with TLS.
With store.master the list names the Sentinels that watch it (port 26379 if none is given); the master is reached with TLS if they
are. No names, passwords or databases in it.`,
			func(c *Config) *StoreURL { return &c.Store.URL }, checkTarget),
		row("store.program", `Program that the embedded store runs: the absolute path of a redis-server or valkey-server, version 7 or later.
Empty: redis-server from PATH, or valkey-server where that is the only one. An older server cannot read a newer one's files.`,
			func(c *Config) *string { return &c.Store.Program }, absolute, needsEmbedded),
		row("store.master", `Name of the master set that the Sentinels in store.url watch. Empty: no Sentinels.`,
			func(c *Config) *string { return &c.Store.Master }, printable, needsList),
		live(row("store.username", `Redis user (ACL). Empty: the default user. Needs store.password_file.`,
			func(c *Config) *string { return &c.Store.Username }, printable, needsOwnServer, needsPassword)),
		live(row("store.password_file", `File with the password of that user, in one line, not readable by everyone. Empty: no password.`,
			func(c *Config) *string { return &c.Store.PasswordFile }, absolute, needsOwnServer)),
		row("store.sentinel_username", `User (ACL) of the Sentinels. Empty: the default user. Needs store.sentinel_password_file.`,
			func(c *Config) *string { return &c.Store.SentinelUsername }, printable, needsMaster, needsOther("store.sentinel_password_file", func(c *Config) string { return c.Store.SentinelPasswordFile })),
		row("store.sentinel_password_file", `File with the password of the Sentinels, in one line, not readable by everyone. Empty: they need none.`,
			func(c *Config) *string { return &c.Store.SentinelPasswordFile }, absolute, needsMaster),
		row("store.db", `Number of the database within the Redis server, 0 to 65535. A Cluster has only 0.`,
			func(c *Config) *int { return &c.Store.DB }, between(0, 65535), needsDatabases),
		live(row("store.tls_ca_file", `PEM file with the certificate authorities for the server of a rediss:// address. Empty: the system's.`,
			func(c *Config) *string { return &c.Store.TLSCAFile }, absolute, needsTLS)),
		live(row("store.tls_cert_file", `PEM file with the certificate shown to the server of a rediss:// address. Empty: none is shown.`,
			func(c *Config) *string { return &c.Store.TLSCertFile }, absolute, needsTLS,
			needsOther("store.tls_key_file", func(c *Config) string { return c.Store.TLSKeyFile }))),
		live(row("store.tls_key_file", `PEM file with the private key of that certificate.`,
			func(c *Config) *string { return &c.Store.TLSKeyFile }, absolute, needsTLS,
			needsOther("store.tls_cert_file", func(c *Config) string { return c.Store.TLSCertFile }))),
		row("store.min_replicas", `Number of replicas that must confirm a change before it is acknowledged, 0 to 10; otherwise the API answers 503
"unconfirmed". The embedded store has no replicas.`,
			func(c *Config) *int { return &c.Store.MinReplicas }, between(0, 10), needsReplicas),
		row("store.accept_eviction", `false: the daemon does not start on a Redis whose maxmemory-policy is not noeviction, because such a server deletes
rules when its memory is full; one that is running raises an alarm (/readyz, doctor, metrics, log). true: it starts, without
an alarm; lost documents are still noticed, and changes refused until the store is repaired.`,
			func(c *Config) *bool { return &c.Store.AcceptEviction }),
		row("store.max_staleness", `How long the daemon decides from memory while the store is unreachable, "1m" to "365d". After that, logins fail
temporarily.`,
			func(c *Config) *time.Duration { return &c.Store.MaxStaleness }, span(time.Minute, 365*day)),

		row("login.listen", `Listeners for Dovecot: a list of "unix:/path?mode=0660&group=NAME" and "inet:127.0.0.1:8481" (Dovecot 2.4,
auth-policy). A unix socket admits root, the daemon's user and that group. Beyond loopback, inet needs
"?allow_from=10.0.0.0/8,…" or "?tls_cert=/path&tls_key=/path". An empty list switches the service off.`,
			func(c *Config) *[]listen.Spec { return &c.Login.Listen }, apart("login.listen")),
		row("login.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait. Each login in progress has one.`,
			func(c *Config) *int { return &c.Login.MaxConnections }, between(1, 65536)),
		live(row("login.key_file", `File with the key that inet clients of login.listen send as "Authorization: Bearer", in one line, not
readable by everyone. Required with an inet listener.`,
			func(c *Config) *string { return &c.Login.KeyFile }, absolute, guardsLogin)),
		row("login.next_passdb", `true: mailbox passwords belong to the site's next passdb. false: they are kept here.
A domain can decide otherwise with mailbox_passwords.`,
			func(c *Config) *bool { return &c.Login.NextPassdb }),
		row("login.unmanaged", `What happens to a login to a domain that is not managed: "deny" refuses it; "next" passes it to the next passdb if
login.unmanaged_domains, which must not be empty then, names the domain.`,
			func(c *Config) *string { return &c.Login.Unmanaged }, oneOf(Deny, Next), needsDomains),
		row("login.unmanaged_domains", `Domains that login.unmanaged = "next" applies to, such as ["example.net"]; ["*"] for all. With "*", a next passdb
that looks up only the local part accepts bob@anything as bob, past bob's rules: drawbridge doctor reports such a
passdb. Names without a domain belong to "*" unless login.default_domain is set.`,
			func(c *Config) *[]string { return &c.Login.UnmanagedDomains }, unmanagedDomains),
		row("login.default_domain", `Domain of login names that have none, such as "example.org". Such a name is returned to Dovecot without a
domain, as system users (PAM) need it. Empty: such names are refused.`,
			func(c *Config) *string { return &c.Login.DefaultDomain }, domain),
		row("login.subaddress", `Characters that each separate an account from an extension in names (ann+lists@example.org), as in Postfix'
recipient_delimiter. The rules of the account apply to its extensions, unless the whole name has a record. "": none.`,
			func(c *Config) *string { return &c.Login.Subaddress }, delimiters),
		row("login.reveal", `Which clients learn why a login is refused: "web", the site's own webmail, and clients whose secret was verified
here; "verified", only the latter; "never", none.`,
			func(c *Config) *string { return &c.Login.Reveal }, oneOf(RevealWeb, RevealVerified, RevealNever)),
		row("login.services", `Further Dovecot service names and their protocols ("imap", "pop3", "smtp", "sieve"), such as
{"submission587" = "smtp"}. Other unknown services are refused.`,
			func(c *Config) *map[string]string { return &c.Login.Services }, protocols),

		row("sasl.listen", `Listeners for Postfix' authentication requests (smtpd_sasl_path), without Dovecot in between: a list of unix sockets, such as
"unix:/var/spool/postfix/private/drawbridge-auth?mode=0660&group=postfix". It admits root, the daemon's user and that group.
An empty list switches the service off.`,
			func(c *Config) *[]listen.Spec { return &c.SASL.Listen }, apart("sasl.listen"), unixOnly),
		row("sasl.next", `Dovecot's authentication socket, such as "/var/spool/postfix/private/auth": it verifies mailbox passwords that are not
kept here, for sasl.listen and for logins to /account, and all mechanisms but PLAIN and LOGIN. The daemon's user must be able
to write to it. Empty: none; then sasl.listen needs login.next_passdb = false and login.unmanaged = "deny", and with
login.next_passdb = true nobody can log in to /account.`,
			func(c *Config) *string { return &c.SASL.Next }, absolute, needsNext),
		row("sasl.master_separator", `Separator of account and master user in the name of a master login (ann@example.org*master), as Dovecot's
auth_master_user_separator, such as "*". Such logins are passed on to sasl.next. Empty: names are taken as they are.`,
			func(c *Config) *string { return &c.SASL.MasterSeparator }, separator),
		row("sasl.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait. Every smtpd process of Postfix that offers AUTH
keeps one.`,
			func(c *Config) *int { return &c.SASL.MaxConnections }, between(1, 65536)),

		row("policyd.listen", `Listeners for Postfix's policy requests (check_policy_service), as in login.listen, without TLS. Debian's smtpd is
chrooted, so a unix socket must be below /var/spool/postfix.`,
			func(c *Config) *[]listen.Spec { return &c.Policyd.Listen }, apart("policyd.listen"), plain),
		row("policyd.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait. Every smtpd process of Postfix keeps one.`,
			func(c *Config) *int { return &c.Policyd.MaxConnections }, between(1, 65536)),
		row("milter.listen", `Listeners for Postfix's milter connections (smtpd_milters, non_smtpd_milters), as in policyd.listen. A unix socket is
faster: over loopback TCP a submission takes a third longer.`,
			func(c *Config) *[]listen.Spec { return &c.Milter.Listen }, apart("milter.listen"), plain),
		row("milter.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait. Every SMTP session of Postfix has one.`,
			func(c *Config) *int { return &c.Milter.MaxConnections }, between(1, 65536)),
		row("milter.max_memory", `Memory in MiB, 16 to 65536, for the messages that mail rules evaluate while they are received, over all connections. A message
for which there is no room is answered 451. A single message may take half of it, at most 128 MiB; longer ones cannot be read.`,
			func(c *Config) *int { return &c.Milter.MaxMemory }, between(16, 65536)),
		row("api.listen", `Listeners for the HTTP API, as in login.listen. On a unix socket root and the daemon's user need no key.`,
			func(c *Config) *[]listen.Spec { return &c.API.Listen }, apart("api.listen")),
		row("api.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait.`,
			func(c *Config) *int { return &c.API.MaxConnections }, between(1, 65536)),
		row("console.listen", `Listeners for the pages: the administrators' console at "/" and the users' own page at "/account", as in login.listen,
without unix sockets. Sessions need the store; an empty list switches the pages off.`,
			func(c *Config) *[]listen.Spec { return &c.Console.Listen }, apart("console.listen"), inetOnly),
		row("console.max_connections", `Maximum open connections of each listener, 1 to 65536; further ones wait.`,
			func(c *Config) *int { return &c.Console.MaxConnections }, between(1, 65536)),
		row("console.public_url", `Address at which browsers reach the pages, such as "https://mail.example.org", without a path: requests for another host are
refused, and one-time links begin with it. Empty: the pages answer to localhost and to IP addresses only.`,
			func(c *Config) *string { return &c.Console.PublicURL }, linkURL, noPath),
		row("console.trusted_proxies", `Networks of the proxies in front of console.listen, such as ["127.0.0.1"]: the address of a client is then the last one in
X-Forwarded-For that is not a proxy's. The header of any other peer is ignored.`,
			func(c *Config) *[]string { return &c.Console.TrustedProxies }, networks),
		row("console.imap", `Name and port of the IMAP server that users enter in their mail programs, such as "mail.example.org:993". Port 993 means TLS,
another port STARTTLS. Empty: the users' page does not show it.`,
			func(c *Config) *string { return &c.Console.IMAP }, publicServer),
		row("console.pop3", `The same for POP3, such as "mail.example.org:995"; 995 means TLS.`,
			func(c *Config) *string { return &c.Console.POP3 }, publicServer),
		row("console.smtp", `The same for submission, such as "mail.example.org:465"; 465 means TLS.`,
			func(c *Config) *string { return &c.Console.SMTP }, publicServer),
		row("console.profile_certificate", `PEM file with the certificate that Apple's profiles are signed with, and the chain to an authority that the phones know.
Empty: profiles are not signed, and the phone says so.`,
			func(c *Config) *string { return &c.Console.ProfileCertificate }, absolute, needsOther("console.profile_key", func(c *Config) string { return c.Console.ProfileKey })),
		row("console.profile_key", `PEM file with the private key of that certificate.`,
			func(c *Config) *string { return &c.Console.ProfileKey }, absolute, needsOther("console.profile_certificate", func(c *Config) string { return c.Console.ProfileCertificate })),
		row("console.oidc_issuer", `Issuer of the site's OpenID provider, such as "https://login.example.org": users of "/account" can log in there. Register
console.public_url with /account/oidc/callback as redirect URI. Empty: none. Accounts need a record here.`,
			func(c *Config) *string { return &c.Console.OIDCIssuer }, issuer, needsOther("console.oidc_client_id", func(c *Config) string { return c.Console.OIDCClientID }),
			needsOther("console.oidc_client_secret_file", func(c *Config) string { return c.Console.OIDCClientSecretFile }), needsOther("console.public_url", func(c *Config) string { return c.Console.PublicURL })),
		row("console.oidc_client_id", `Client ID that the provider assigned.`,
			func(c *Config) *string { return &c.Console.OIDCClientID }, printable, needsOther("console.oidc_issuer", func(c *Config) string { return c.Console.OIDCIssuer })),
		row("console.oidc_client_secret_file", `File with the client secret that the provider assigned, in one line, not readable by everyone.`,
			func(c *Config) *string { return &c.Console.OIDCClientSecretFile }, absolute, needsOther("console.oidc_issuer", func(c *Config) string { return c.Console.OIDCIssuer })),
		row("console.oidc_name", `Name of the provider on the log-in button.`,
			func(c *Config) *string { return &c.Console.OIDCName }, label),
		row("console.oidc_claim", `Claim of the ID token that is the address of the account. With "email" the provider must have verified it (email_verified).`,
			func(c *Config) *string { return &c.Console.OIDCClaim }, printable),
		row("console.oidc_domains", `Domains whose accounts the provider may name. Empty: all managed domains; name them where the provider is that of one customer.`,
			func(c *Config) *[]string { return &c.Console.OIDCDomains }, domains),
		row("console.oidc_factors", `Claims that show that the provider has asked for a second factor, such as ["amr=mfa"] or ["acr=https://refeds.org/profile/mfa"]:
with one of them Drawbridge asks for none of its own. Empty: it asks where it does after a password.`,
			func(c *Config) *[]string { return &c.Console.OIDCFactors }, claims),
		row("console.handover_origin", `Origin of the webmail that hands its users over to "/account", such as "https://webmail.example.org". Empty: none.`,
			func(c *Config) *string { return &c.Console.HandoverOrigin }, linkURL, noPath,
			needsOther("console.handover_key_file", func(c *Config) string { return c.Console.HandoverKeyFile }), needsOther("console.public_url", func(c *Config) string { return c.Console.PublicURL })),
		row("console.handover_key_file", `File with the key that the webmail signs with, 32 characters or more in one line, not readable by everyone.`,
			func(c *Config) *string { return &c.Console.HandoverKeyFile }, absolute, needsOther("console.handover_origin", func(c *Config) string { return c.Console.HandoverOrigin })),

		live(row("regions.database", `Database of the countries of IP addresses: a MaxMind file ("/path/x.mmdb"), or the IPv4 file of a CSV pair whose IPv6 file
has the same name with a 6 at the end, such as "/usr/share/tor/geoip" of Debian's tor-geoipdb. Empty: that one, if it exists
now or later. "none": no database. The daemon reloads it when it changes; a file given here must exist at start.`,
			func(c *Config) *string { return &c.Regions.Database }, unless(NoRegions, absolute))),
		live(row("regions.networks", `Database of the networks (autonomous systems) that announce IP addresses: a MaxMind file ("/path/x.mmdb") such as GeoLite2 ASN
or DB-IP's ASN Lite. Login records name the network, and one that is new for the account is abnormal. Empty: none; then
IPv4 addresses with the same 24 bits are one network, and IPv6 addresses with the same 48. The daemon reloads it when it changes.`,
			func(c *Config) *string { return &c.Regions.Networks }, mmdb)),
		live(row("regions.nat64_prefixes", `IPv6 prefixes of NAT64 (RFC 6052), 32, 40, 48, 56, 64 or 96 bits long: addresses in them have the region of the IPv4
address inside, as IPv4-mapped and 6to4 addresses always have.`,
			func(c *Config) *[]string { return &c.Regions.NAT64Prefixes }, nat64)),
		row("sessions.doveadm", `How to reach the doveadm of each Dovecot, to end open sessions that a changed rule refuses: "unix:/run/dovecot/doveadm-server"
(or another unix_listener of doveadm-server), "http://127.0.0.1:8080" (its HTTP API), or "exec:/usr/bin/doveadm" with the
permission to run it. A list for several Dovecots. Empty: open sessions continue until the client disconnects.`,
			func(c *Config) *OneOrMore { return &c.Sessions.Doveadm }, doveadms),
		row("sessions.key_file", `File with Dovecot's doveadm_api_key, for http, or with its doveadm_password, for a socket whose mode is not 0600.`,
			func(c *Config) *string { return &c.Sessions.KeyFile }, absolute, needsKey),
		row("sessions.sieve_dir", `Directory of an account's Sieve scripts on this machine, such as "/var/vmail/%d/%n/sieve", with %u for the address, %n for its
local part and %d for its domain. "drawbridge account forwards" shows when scripts were changed if the daemon can read it.
Empty: the times are not known.`,
			func(c *Config) *string { return &c.Sessions.SieveDir }, absolute),

		row("mail.internal_networks", `Networks of clients whose mail counts as internal although they do not authenticate, such as ["192.0.2.0/28"]: printers,
application servers. They are trusted with MAIL FROM. Do not add the address of a content filter that returns mail from
outside, nor of Dovecot's Sieve redirects.`,
			func(c *Config) *[]string { return &c.Mail.InternalNetworks }, networks),
		row("mail.hold_dir", `Directory of the messages that wait for approval, of those sent apart, copies and notices, on a disk of this machine; each daemon needs its
own. Empty: the directory "held" in state_dir.`,
			func(c *Config) *string { return &c.Mail.HoldDir }, absolute),
		row("mail.hold_quota", `Space in MiB, 1 to 16777216, for the messages in mail.hold_dir. A message that has to be held, copied or sent apart when it is used
up is refused for now (451). Notices are still written.`,
			func(c *Config) *int { return &c.Mail.HoldQuota }, between(1, 16<<20)),
		row("mail.node", `Name of this daemon in lists of held messages and in message records; daemons of one site need different ones. Empty: the host's
name.`,
			func(c *Config) *string { return &c.Mail.Node }, printable),
		row("mail.postqueue", `Command that lists Postfix' queue, as a list of words; "-j" is added. Or the socket of the package's drawbridge-queue.socket,
["unix:/run/drawbridge-queue.sock"]. "drawbridge withdraw" uses it. []: the queue is not searched.`,
			func(c *Config) *[]string { return &c.Mail.Postqueue }, queueAccess),
		row("mail.postsuper", `Command that deletes from Postfix' queue, or the same socket; "-d" and "-" are added. Only root may run postsuper: a daemon with a
user of its own needs the socket, or without systemd's sandbox a rule for sudo and ["/usr/bin/sudo", "-n", "/usr/sbin/postsuper"].
[]: withdraw lists queued messages, and deletes from mailboxes only.`,
			func(c *Config) *[]string { return &c.Mail.Postsuper }, queueAccess),
		row("mail.postcat", `Command that prints the header of a queued message, or the same socket; "-qh" and the queue id are added. Released messages, and those
that a content filter sent on, have another queue id than the record; withdraw finds them by Message-ID and sender. Only
root and Postfix may read them. []: withdraw names queued messages of the same sender as a problem.`,
			func(c *Config) *[]string { return &c.Mail.Postcat }, queueAccess),
		row("mail.alias_maps", `Postfix' maps that send mail for accounts on, such as ["hash:/etc/postfix/virtual"]; the daemon must be able to read them.
"drawbridge account forwards" shows what they have for an address; for accounts of login.default_domain also for the
local part, as aliases(5) has it. []: none is asked.`,
			func(c *Config) *[]string { return &c.Mail.AliasMaps }, mapNames),
		row("mail.postmap", `Command that looks up in mail.alias_maps, as a list of words; "-q", "-" and the map are added.`,
			func(c *Config) *[]string { return &c.Mail.Postmap }, commandWords),

		row("notify.smtp", `Address and port of the Postfix that takes released messages, those sent apart, copies and notices, over plain SMTP without authentication.
It must be the one whose milter and policy service this daemon is, and permit relaying from this machine.`,
			func(c *Config) *string { return &c.Notify.SMTP }, smtpServer),
		row("notify.link_url", `Address at which approvers reach this daemon's API listener, such as "https://mail.example.org": requests for approval then
contain a link to <link_url>/decide/..., a page on which its recipient decides once. Empty: no links.`,
			func(c *Config) *string { return &c.Notify.LinkURL }, linkURL),
		row("notify.webhook_url", `Address that receives notices as JSON by POST, such as "https://hooks.example.org/drawbridge". Each is signed with the key in
notify.webhook_key_file (header X-Drawbridge-Signature), and tried again for three days. Empty: none.`,
			func(c *Config) *string { return &c.Notify.WebhookURL }, webhookURL, needsOther("notify.webhook_key_file", func(c *Config) string { return c.Notify.WebhookKeyFile })),
		row("notify.webhook_key_file", `File with the key that signs notices, in one line, not readable by everyone. It is read at the start of the daemon.`,
			func(c *Config) *string { return &c.Notify.WebhookKeyFile }, absolute, needsOther("notify.webhook_url", func(c *Config) string { return c.Notify.WebhookURL })),
		row("notify.abnormal_logins", `Who is notified of a login from a new network, region, device or kind of client, at an unusual hour or too far from the one
before: "mail" sends the account a message, once for each and at most 10 a day; "report" sends none. Login records have
"abnormal" and the webhook is called in both cases. "off": logins are not compared, and what is usual for an account is not stored.`,
			func(c *Config) *string { return &c.Notify.AbnormalLogins }, oneOf(ToUsers, ReportOnly, NotCompared)),
		row("notify.sms_webhook_url", `Address of the site's SMS gateway that one-time codes are posted to, such as "https://sms.example.org/send": JSON with account,
number and text, signed with the key in notify.sms_webhook_key_file (header X-Drawbridge-Signature). Empty: none.`,
			func(c *Config) *string { return &c.Notify.SMSWebhookURL }, linkURL, needsOther("notify.sms_webhook_key_file", func(c *Config) string { return c.Notify.SMSWebhookKeyFile })),
		row("notify.sms_webhook_key_file", `File with the key that signs these requests, in one line, not readable by everyone. It is read at the start of the daemon.`,
			func(c *Config) *string { return &c.Notify.SMSWebhookKeyFile }, absolute, needsOther("notify.sms_webhook_url", func(c *Config) string { return c.Notify.SMSWebhookURL })),

		live(row("log.level", `Minimum log level: "trace", "debug", "info", "warn" or "error".`,
			func(c *Config) *string { return &c.Log.Level }, oneOf("trace", "debug", "info", "warn", "error"))),
		row("log.json", `true: log one JSON object per line.`,
			func(c *Config) *bool { return &c.Log.JSON }),

		row("records.retention", `How long login records and message records are kept, "1h" to "3650d".`,
			func(c *Config) *time.Duration { return &c.Records.Retention }, span(time.Hour, 3650*day)),
		row("records.max_per_domain", `Maximum number of login records, and of message records, of a domain, 1 to 100000000; the oldest are deleted first.`,
			func(c *Config) *int { return &c.Records.MaxPerDomain }, between(1, 100_000_000)),

		row("throttle.wrong_secrets_per_address", `Number of different wrong secrets that an address (IPv4, or IPv6 /64) may try within throttle.window, 1 to 1000000.
After that, logins with mailbox passwords are refused. Secure passwords are never throttled.`,
			func(c *Config) *int { return &c.Throttle.WrongSecretsPerAddress }, between(1, 1_000_000)),
		row("throttle.wrong_secrets_per_account", `The same for one account, 1 to 1000000. Addresses that logged in to it recently are not affected by others.`,
			func(c *Config) *int { return &c.Throttle.WrongSecretsPerAccount }, between(1, 1_000_000)),
		row("throttle.window", `Time during which wrong secrets are counted, "1m" to "24h".`,
			func(c *Config) *time.Duration { return &c.Throttle.Window }, span(time.Minute, day)),
		row("throttle.exempt", `Networks that are never throttled as addresses, such as ["192.0.2.7", "2001:db8::/48"]: gateways that many users share.
Guesses from there still count for their accounts. The webmail's own addresses (client type "web") are exempt without it.`,
			func(c *Config) *[]string { return &c.Throttle.Exempt }, networks),
		row("throttle.distributed_addresses", `Number of addresses with wrong secrets for at least 10 accounts of one domain, within throttle.window, that is reported as
distributed guessing: in the log, by "drawbridge throttle", /readyz and /metrics. Addresses that their account recently
logged in from do not count. 0 to 20000; 0: never.`,
			func(c *Config) *int { return &c.Throttle.DistributedAddresses }, between(0, 20_000)),
		row("throttle.distributed", `Effect of distributed guessing at a domain. "report": nobody is refused. "known": while it lasts, mailbox passwords
of the domain are accepted only from addresses that recently logged in to the account, and exempt ones; users who travel
need a secure password.`,
			func(c *Config) *string { return &c.Throttle.Distributed }, oneOf(ReportOnly, KnownOnly)),

		row("guard.locked_out_percent", `Share in percent of the recently active accounts, 1 to 100. A change of access policies or blocked addresses that would
lock out more of them is refused unless it is confirmed. 100: only administrators are protected.`,
			func(c *Config) *int { return &c.Guard.LockedOutPercent }, between(1, 100)),
		row("guard.active_within", `How long an account counts as active after a login, "1h" to "90d". At most the newest 20000 logins are evaluated.`,
			func(c *Config) *time.Duration { return &c.Guard.ActiveWithin }, span(time.Hour, 90*day)),
	}
}

// The checks. Each takes the value of its row and answers in words that follow the setting's name.

func required(_ *Config, v string) []string {
	if v == "" {
		return []string{"must not be empty: give an absolute path"}
	}
	return nil
}

func absolute(_ *Config, v string) []string {
	const maxPath = 4095 // PATH_MAX less its NUL
	if v != "" && (!filepath.IsAbs(v) || len(v) > maxPath || strings.ContainsFunc(v, unicode.IsControl)) {
		return []string{fmt.Sprintf("%.200q is not an absolute path: start it with /", v)}
	}
	return nil
}

// mmdb is the path of a MaxMind database, or empty.
func mmdb(c *Config, v string) []string {
	if v != "" && !strings.HasSuffix(v, ".mmdb") {
		return []string{fmt.Sprintf("%.200q is no MaxMind file: its name ends in .mmdb", v)}
	}
	return absolute(c, v)
}

// unless makes an exception of a word.
func unless(word string, check func(*Config, string) []string) func(*Config, string) []string {
	return func(c *Config, v string) []string {
		if v == word {
			return nil
		}
		return check(c, v)
	}
}

func printable(_ *Config, v string) []string {
	if len(v) > 128 || strings.ContainsFunc(v, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
		return []string{fmt.Sprintf("%.140q is not a name: at most 128 bytes, without blanks", v)}
	}
	return nil
}

func smtpServer(_ *Config, v string) []string {
	host, port, err := net.SplitHostPort(v)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || host == "" || bad != nil || n == 0 {
		return []string{fmt.Sprintf("%q is not an address and port: write 127.0.0.1:25", v)}
	}
	return nil
}

func linkURL(_ *Config, v string) []string {
	if v == "" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return []string{fmt.Sprintf("%q is not the address of a site: write https://mail.example.org", v)}
	}
	return nil
}

func noPath(_ *Config, v string) []string {
	if u, err := url.Parse(v); err == nil && strings.Trim(u.Path, "/") != "" {
		return []string{fmt.Sprintf("%q has a path: write https://mail.example.org", v)}
	}
	return nil
}

func publicServer(_ *Config, v string) []string {
	if v == "" {
		return nil
	}
	host, port, err := net.SplitHostPort(v)
	_, bad := address.ParseDomain(host)
	if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || wrong != nil || n == 0 {
		return []string{fmt.Sprintf("%q is not a server name and port: write mail.example.org:993", v)}
	}
	return nil
}

func commandWords(_ *Config, v []string) []string {
	if len(v) > 0 && !filepath.IsAbs(v[0]) {
		return []string{fmt.Sprintf("%.200q is not an absolute path: start it with /", v[0])}
	}
	return nil
}

func queueAccess(_ *Config, v []string) []string {
	if len(v) == 0 || filepath.IsAbs(v[0]) {
		return nil
	}
	if path, ok := strings.CutPrefix(v[0], "unix:"); ok && len(v) == 1 && filepath.IsAbs(path) {
		return nil
	}
	return []string{fmt.Sprintf("%.200q is neither an absolute path nor a socket: start it with / or unix:/", v[0])}
}

func mapNames(_ *Config, list []string) (faults []string) {
	for _, name := range list {
		if kind, rest, _ := strings.Cut(name, ":"); kind == "" || rest == "" || strings.HasPrefix(name, "-") || len(name) > 4096 || strings.ContainsFunc(name, unicode.IsControl) {
			faults = append(faults, fmt.Sprintf("%.200q is not a map of Postfix: write hash:/etc/postfix/virtual", name))
		}
	}
	return faults
}

func webhookURL(_ *Config, v string) []string {
	if v == "" {
		return nil
	}
	u, err := url.Parse(v)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.Fragment != "" || u.User != nil {
		return []string{fmt.Sprintf("%q is not an address that takes notices: write https://hooks.example.org/drawbridge", v)}
	}
	return nil
}

func oneOf(words ...string) func(*Config, string) []string {
	return func(_ *Config, v string) []string {
		if slices.Contains(words, v) {
			return nil
		}
		quoted := make([]string, len(words))
		for i, w := range words {
			quoted[i] = strconv.Quote(w)
		}
		return []string{fmt.Sprintf("%.80q is not one of %s", v, strings.Join(quoted, ", "))}
	}
}

func between(low, high int) func(*Config, int) []string {
	return bounds(low, high, strconv.Itoa)
}

// nat64 checks prefixes for addresses that embed IPv4 addresses, RFC 6052.
func nat64(_ *Config, list []string) (faults []string) {
	for _, text := range list {
		n, err := netip.ParsePrefix(text)
		switch {
		case err != nil || !n.Addr().Is6() || n.Addr().Is4In6():
			faults = append(faults, fmt.Sprintf("%.60q is not an IPv6 prefix: write one such as \"64:ff9b::/96\"", text))
		case !slices.Contains([]int{32, 40, 48, 56, 64, 96}, n.Bits()):
			faults = append(faults, fmt.Sprintf("%s: a NAT64 prefix has 32, 40, 48, 56, 64 or 96 bits", n))
		case n != n.Masked():
			faults = append(faults, fmt.Sprintf("%s has bits beyond its length: write %s", n, n.Masked()))
		}
	}
	return faults
}

func span(low, high time.Duration) func(*Config, time.Duration) []string {
	return bounds(low, high, func(d time.Duration) string { return strconv.Quote(formatDuration(d)) })
}

func bounds[T cmp.Ordered](low, high T, format func(T) string) func(*Config, T) []string {
	return func(_ *Config, v T) []string {
		if v < low || v > high {
			return []string{fmt.Sprintf("%s is out of bounds: from %s to %s", format(v), format(low), format(high))}
		}
		return nil
	}
}

func checkTarget(c *Config, _ StoreURL) []string {
	_, faults := c.Store.target()
	return faults
}

func needsList(c *Config, v string) []string {
	if v != "" && !c.Store.URL.List {
		return []string{`needs a list of Sentinels: store.url = ["host:26379", …]`}
	}
	return nil
}

func needsMaster(c *Config, v string) []string {
	if v != "" && c.Store.Master == "" {
		return []string{"needs store.master: only Sentinels are asked with it"}
	}
	return nil
}

func needsOwnServer(c *Config, v string) []string {
	if v != "" && c.Store.Embedded() {
		return []string{`has no meaning with store.url = "embedded": remove it`}
	}
	return nil
}

func needsEmbedded(c *Config, v string) []string {
	if v != "" && !c.Store.Embedded() {
		return []string{`has no meaning with a Redis of your own: remove it, or write store.url = "embedded"`}
	}
	return nil
}

func needsPassword(c *Config, v string) []string {
	if v != "" && c.Store.PasswordFile == "" {
		return []string{"needs store.password_file: name the file with that user's password"}
	}
	return nil
}

func needsDatabases(c *Config, v int) []string {
	t, faults := c.Store.target()
	if v != 0 && len(faults) == 0 && (t.Embedded || t.Cluster) {
		return []string{"must be 0: neither a Cluster nor the embedded store has other databases"}
	}
	return nil
}

func needsTLS(c *Config, v string) []string {
	t, faults := c.Store.target()
	if v != "" && len(faults) == 0 && !t.TLS {
		return []string{"has no effect without TLS: write rediss:// in store.url, or remove it"}
	}
	return nil
}

func needsOther(name string, other func(*Config) string) func(*Config, string) []string {
	return func(c *Config, v string) []string {
		if v != "" && other(c) == "" {
			return []string{"needs " + name + " as well"}
		}
		return nil
	}
}

func needsReplicas(c *Config, v int) []string {
	if v != 0 && c.Store.Embedded() {
		return []string{`must be 0 with store.url = "embedded", which has no replicas`}
	}
	return nil
}

func guardsLogin(c *Config, v string) []string {
	inet := slices.IndexFunc(c.Login.Listen, func(s listen.Spec) bool { return !s.Unix() })
	if v == "" && inet >= 0 {
		return []string{fmt.Sprintf("is needed for %s in login.listen: name a file with a long random key ('openssl rand -hex 32')", c.Login.Listen[inet])}
	}
	return nil
}

// plain refuses TLS where Postfix would not speak it.
func plain(_ *Config, v []listen.Spec) (faults []string) {
	for _, s := range v {
		if s.TLS() {
			faults = append(faults, fmt.Sprintf("%s: Postfix speaks no TLS here: use allow_from", s))
		}
	}
	return faults
}

// unixOnly refuses inet, where anybody on the machine could claim any client address.
func unixOnly(_ *Config, v []listen.Spec) (faults []string) {
	for _, s := range v {
		if !s.Unix() {
			faults = append(faults, fmt.Sprintf("%s: the protocol has no key, so any client that connects could claim any login: use a unix socket", s))
		}
	}
	return faults
}

func inetOnly(_ *Config, v []listen.Spec) (faults []string) {
	for _, s := range v {
		if s.Unix() {
			faults = append(faults, fmt.Sprintf("%s: browsers do not connect to unix sockets: write inet:127.0.0.1:8482", s))
		}
	}
	return faults
}

func doveadms(_ *Config, v OneOrMore) (faults []string) {
	const most = 64
	if len(v) > most {
		return []string{fmt.Sprintf("names %d servers: at most %d", len(v), most)}
	}
	for i, text := range v {
		if _, err := doveadm.Parse(text, []byte("any")); err != nil {
			faults = append(faults, err.Error())
		} else if slices.Contains(v[:i], text) {
			faults = append(faults, fmt.Sprintf("names %s twice", text))
		}
	}
	return faults
}

func needsKey(c *Config, v string) []string {
	http := slices.IndexFunc(c.Sessions.Doveadm, func(s string) bool { return strings.HasPrefix(s, "http") })
	if v == "" && http >= 0 {
		return []string{fmt.Sprintf("is needed for %.200s: name a file with Dovecot's doveadm_api_key", c.Sessions.Doveadm[http])}
	}
	return nil
}

func needsNext(c *Config, v string) []string {
	if len(c.SASL.Listen) == 0 || v != "" {
		return nil
	}
	if c.Login.NextPassdb || c.Login.Unmanaged == Next {
		return []string{`is needed with sasl.listen: name Dovecot's socket, or keep mailbox passwords here (login.next_passdb = false and login.unmanaged = "deny")`}
	}
	return nil
}

// apart reports the listeners of this setting that an earlier one, or the same, has already.
func apart(name string) func(*Config, []listen.Spec) []string {
	return func(c *Config, _ []listen.Spec) (faults []string) {
		taken := make(map[string]string)
		for _, s := range []struct {
			name  string
			specs []listen.Spec
		}{
			{"login.listen", c.Login.Listen},
			{"sasl.listen", c.SASL.Listen},
			{"policyd.listen", c.Policyd.Listen},
			{"milter.listen", c.Milter.Listen},
			{"api.listen", c.API.Listen},
			{"console.listen", c.Console.Listen},
		} {
			for _, spec := range s.specs {
				if !spec.Unix() && spec.Addr.Port() == 0 {
					continue // the kernel chooses, each time another
				}
				if first, ok := taken[spec.Address()]; ok && s.name == name {
					faults = append(faults, fmt.Sprintf("%s is already in %s: choose another", spec.Address(), first))
				} else if !ok {
					taken[spec.Address()] = s.name
				}
			}
		}
		return faults
	}
}

// needsDomains refuses "next" without domains: whoever writes it expects that logins pass.
func needsDomains(c *Config, v string) []string {
	if v == Next && len(c.Login.UnmanagedDomains) == 0 {
		return []string{`is "next", but login.unmanaged_domains names no domain: list the domains, or write login.unmanaged_domains = ["*"] for all of them`}
	}
	return nil
}

func unmanagedDomains(c *Config, v []string) (faults []string) {
	if c.Login.Unmanaged != Next && len(v) > 0 {
		return []string{`has no effect while login.unmanaged is "deny": write login.unmanaged = "next", or remove it`}
	}
	for i, name := range v {
		if name == "*" {
			if len(v) > 1 {
				faults = append(faults, `has "*" (all domains) beside others: write ["*"] alone`)
			}
			continue
		}
		canonical, err := address.ParseDomain(name)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%.100q %v", name, err))
			continue
		}
		v[i] = canonical
	}
	return faults
}

// label refuses what cannot be shown on a button.
func label(_ *Config, v string) []string {
	if len(v) > 100 || strings.ContainsFunc(v, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return []string{fmt.Sprintf("%.200q is not a name: write at most 100 bytes of printable characters", v)}
	}
	return nil
}

// issuer refuses an issuer that anybody on the way could be.
func issuer(_ *Config, v string) []string {
	u, err := url.Parse(v)
	if v == "" {
		return nil
	}
	ip, _ := netip.ParseAddr(strings.Trim(u.Hostname(), "[]"))
	if err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !ip.IsLoopback()) {
		return []string{fmt.Sprintf("%q is not an issuer: write https://login.example.org, as the provider names itself", v)}
	}
	return nil
}

// domains validates a list of domains.
func domains(_ *Config, v []string) (faults []string) {
	for i, name := range v {
		canonical, err := address.ParseDomain(name)
		if err != nil {
			faults = append(faults, fmt.Sprintf("%.100q %v", name, err))
			continue
		}
		v[i] = canonical
	}
	return faults
}

// claims validates a list of claims with their values.
func claims(_ *Config, v []string) (faults []string) {
	for _, claim := range v {
		if name, value, ok := strings.Cut(claim, "="); !ok || name == "" || value == "" {
			faults = append(faults, fmt.Sprintf("%.100q is not a claim with its value: write amr=mfa", claim))
		}
	}
	return faults
}

// networks validates a list of networks.
func networks(_ *Config, v []string) (faults []string) {
	_, faulty := address.ParseNetworks(v)
	for _, f := range faulty {
		faults = append(faults, f.Err.Error())
	}
	return faults
}

func delimiters(_ *Config, v string) []string {
	for _, c := range v {
		if !strings.ContainsRune("+-_=.#", c) {
			return []string{fmt.Sprintf(`has %.10q: use "+", or several of + - _ = . #`, string(c))}
		}
	}
	return nil
}

func separator(_ *Config, v string) []string {
	if len(v) > 1 || v != "" && !strings.ContainsAny(v, "*%!/|&^~") {
		return []string{fmt.Sprintf("%.10q is not a separator: use one of * %% ! / | & ^ ~", v)}
	}
	return nil
}

func domain(_ *Config, v string) []string {
	if v == "" {
		return nil
	}
	label := func(s string) bool {
		return s != "" && len(s) <= 63 && s[0] != '-' && s[len(s)-1] != '-' && !strings.ContainsFunc(s, func(r rune) bool {
			return r != '-' && !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsMark(r)
		})
	}
	for l := range strings.SplitSeq(v, ".") {
		if len(v) > 253 || !label(l) {
			return []string{fmt.Sprintf("%.260q is not a domain: write it like example.org", v)}
		}
	}
	return nil
}

// protocols checks login.services. The names that Dovecot itself uses are not to be bent.
func protocols(_ *Config, v map[string]string) (faults []string) {
	for _, name := range slices.Sorted(maps.Keys(v)) {
		switch {
		case name == "" || len(name) > 64 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }):
			faults = append(faults, fmt.Sprintf("%.70q is not a service name: 1 to 64 ASCII characters without blanks", name))
		case slices.Contains([]string{"imap", "pop3", "smtp", "submission", "sieve", "lmtp", "doveadm"}, name):
			faults = append(faults, fmt.Sprintf("%q has a fixed meaning: remove it", name))
		case !slices.Contains([]string{"imap", "pop3", "smtp", "sieve"}, v[name]):
			faults = append(faults, fmt.Sprintf("%q is mapped to %.80q, which is not one of \"imap\", \"pop3\", \"smtp\", \"sieve\"", name, v[name]))
		}
	}
	return faults
}
