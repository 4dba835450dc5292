// Package console is the administrators' console: pages over package admin, with the caller that an
// API key names. It calls no HTTP API.
//
// Somebody logs in with an API key of role admin, read or domain; keys of role login and self open
// nothing here. The session holds the key's hash and ends with the key. What a page shows and
// changes is what package admin allows that caller, so a domain's key sees its domain only. Requests
// to change something dangerous (rules, keys, batches, documents) want the key again if it was
// entered more than ten minutes ago.
//
// Every page has an address of its own, and names the command that does the same.
//
// # Diagnostics
//
// As those of package web. A change that the lock-out guard refuses is shown with whom it would lock
// out, and with buttons that make it all the same, or for ten minutes unless it is kept.
package console

import (
	"cmp"
	"context"
	"embed"
	"fmt"
	"hash/fnv"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

//go:embed templates
var files embed.FS

var pages = web.Parse(files)

// Pages are the console's pages. All fields are needed.
type Pages struct {
	Admin   *admin.Admin
	Open    opensessions.Site
	Mail    mail.Site
	Factors factors.Site
	// Withdraw deletes what a credential of a domain has sent; a dry run only looks.
	Withdraw func(ctx context.Context, d *admin.Domain, in *api.Withdrawal, f *api.Faults) (*api.Withdrawn, error)
	// TestPolicy is [admin.Domain.TestPolicy] for a login as the API takes it.
	TestPolicy func(d *admin.Domain, id string, in *api.PolicyTest, f *api.Faults) (*api.PolicyTested, error)
}

// route is one page: who may open it at all, and whether it wants the key again.
type route struct {
	pattern string
	roles   admin.Roles
	serve   func(*visit) error
	danger  danger
}

// danger says when a page wants the key again.
type danger uint8

const (
	harmless danger = iota
	always
	unlessPlanned // a form with do=plan changes nothing
)

// The roles that may open pages, beside admin.
const (
	readers = admin.ForRead | admin.ForDomain
	writers = admin.ForDomain
)

// routes is every page that needs a log-in.
func routes() []route {
	const d = "/domains/{domain}"
	return []route{
		{"GET /{$}", readers, (*visit).overview, harmless},
		{"POST /logout", readers, (*visit).logout, harmless},
		{"POST /logout-everywhere", readers, (*visit).logoutEverywhere, harmless},
		{"GET " + d, readers, (*visit).domainPage, harmless},
		{"POST " + d, writers, (*visit).setRecords, always},
		{"GET " + d + "/logins", readers, (*visit).logins, harmless},
		{"GET " + d + "/logins/chart", readers, (*visit).chartPage, harmless},
		{"GET " + d + "/logins/{id}", readers, (*visit).login, harmless},
		{"POST " + d + "/logins/{id}/confirm", writers, (*visit).confirmLogin, harmless},
		{"POST " + d + "/logins/{id}/secure", writers, (*visit).secureLogin, always},
		{"GET " + d + "/inspection", readers, (*visit).inspect, harmless},
		{"POST " + d + "/inspection", writers, (*visit).reclaim, unlessPlanned},
		{"GET " + d + "/policies", readers, (*visit).policies, harmless},
		{"GET " + d + "/policies/new", writers, (*visit).newPolicy, harmless},
		{"POST " + d + "/policies/check", readers, (*visit).checkPolicy, harmless},
		{"POST " + d + "/policies", writers, (*visit).savePolicy, always},
		{"GET " + d + "/policies/{id}", readers, (*visit).policy, harmless},
		{"POST " + d + "/policies/{id}", writers, (*visit).changePolicy, always},
		{"POST " + d + "/reverts/{id}", writers, (*visit).revert, harmless},
		{"GET " + d + "/third-party", readers, (*visit).thirdParty, harmless},
		{"POST " + d + "/third-party", writers, (*visit).setThirdParty, always},
		{"GET " + d + "/secure-passwords", readers, (*visit).enforcement, harmless},
		{"POST " + d + "/secure-passwords", writers, (*visit).enforce, unlessPlanned},
		{"GET " + d + "/secure-passwords/progress", readers, (*visit).progress, harmless},
		{"POST " + d + "/secure-passwords/progress", writers, (*visit).pauseEnforcement, always},
		{"GET " + d + "/accounts", readers, (*visit).accounts, harmless},
		{"GET /accounts/{address}", readers, (*visit).account, harmless},
		{"GET /accounts/{address}/forwards", readers, (*visit).forwards, harmless},
		{"POST /accounts/{address}", writers, (*visit).changeAccount, harmless},
		{"POST /accounts/{address}/delete", writers, (*visit).deleteAccount, always},
		{"POST /accounts/{address}/secure-passwords/{id}/revoke", writers, (*visit).revokeDevice, harmless},
		{"POST /accounts/{address}/factors/reset", writers, (*visit).resetFactors, always},
		{"GET " + d + "/batch", writers, (*visit).batchForm, harmless},
		{"POST " + d + "/batch", writers, (*visit).batch, unlessPlanned},
		{"GET " + d + "/departments", readers, (*visit).departments, harmless},
		{"POST " + d + "/departments/pick", readers, (*visit).pick, harmless},
		{"POST " + d + "/departments", writers, (*visit).changeDepartment, harmless},
		{"GET " + d + "/ip-blocks", readers, (*visit).blocks, harmless},
		{"POST " + d + "/ip-blocks", writers, (*visit).changeBlocks, always},
		{"GET " + d + "/held", readers, (*visit).held, harmless},
		{"POST " + d + "/held/{id}", writers, (*visit).decideHeld, harmless},
		{"GET " + d + "/mail-rules", readers, (*visit).mailRules, harmless},
		{"GET " + d + "/mail-rules/{id}", readers, (*visit).mailRule, harmless},
		{"POST " + d + "/mail-rules/{id}/check", readers, (*visit).checkMailRule, harmless},
		{"POST " + d + "/mail-rules/{id}", writers, (*visit).changeMailRule, always},
		{"POST " + d + "/suspensions/{id}", writers, (*visit).unsuspend, always},
		{"GET " + d + "/groups", readers, (*visit).groups, harmless},
		{"GET " + d + "/groups/new", writers, (*visit).newGroup, harmless},
		{"POST " + d + "/groups", writers, (*visit).createGroup, always},
		{"GET /groups/{address}", readers, (*visit).group, harmless},
		{"POST /groups/{address}", writers, (*visit).changeGroup, always},
		{"GET " + d + "/messages", readers, (*visit).messages, harmless},
		{"GET " + d + "/messages/explain", readers, (*visit).explainMessage, harmless},
		{"GET " + d + "/withdraw", writers, (*visit).withdrawForm, harmless},
		{"POST " + d + "/withdraw", writers, (*visit).withdraw, unlessPlanned},
		{"GET " + d + "/sessions", readers, (*visit).sessions, harmless},
		{"POST " + d + "/sessions/{id}/end", writers, (*visit).endSession, harmless},
		{"GET " + d + "/document", readers, (*visit).document, harmless},
		{"POST " + d + "/document", writers, (*visit).applyDocument, unlessPlanned},
		{"GET /keys", readers, (*visit).keys, harmless},
		{"POST /keys", writers, (*visit).createKey, always},
		{"POST /keys/{id}/revoke", writers, (*visit).revokeKey, always},
		{"GET /audit", readers, (*visit).audit, harmless},
		{"GET /throttle", readers, (*visit).throttle, harmless},
		{"POST /throttle", writers, (*visit).unblock, harmless},
		{"GET /store", admin.ForRead, (*visit).store, harmless},
	}
}

// Register adds the pages to a mux.
func (p *Pages) Register(mux *http.ServeMux, site *web.Site) {
	mux.Handle("GET /login", site.Page(p.loginForm))
	mux.Handle("POST /login", site.Page(p.login))
	for _, r := range routes() {
		mux.Handle(r.pattern, site.Page(func(c *web.Call) error { return p.visit(c, r) }))
	}
	mux.Handle("/", site.Page(func(*web.Call) error { return web.NotFound() }))
}

// visit is a request of an administrator who is logged in.
type visit struct {
	*web.Call
	*Pages
	caller admin.Caller
	hash   string // of the caller's key
}

func (p *Pages) visit(c *web.Call, r route) error {
	hash, err := c.SignedIn(web.Console)
	if err != nil {
		return err
	}
	if loaded, _ := p.Admin.Store.State.Ready(); !loaded {
		return store.ErrUnavailable
	}
	caller, ok := p.holder(c, hash)
	if !ok {
		to := "/login"
		if c.R.Method == http.MethodGet && c.R.URL.Path != "/" {
			to += "?next=" + template.URLQueryEscaper(c.R.URL.RequestURI())
		}
		return c.Redirect(to)
	}
	if err := c.Form(); err != nil {
		return err
	}
	v := &visit{c, p, caller, hash}
	if name, addr := c.R.PathValue("domain"), c.R.PathValue("address"); name != "" || addr != "" {
		if err := v.as(admin.Options{}).Reach(name, addr); err != nil {
			return err // before the role: what is out of reach is not found
		}
	}
	if err := caller.May(r.roles); err != nil {
		return err
	}
	if r.danger == always || r.danger == unlessPlanned && v.Value("do") != "plan" {
		if err := v.again(); err != nil {
			return err
		}
	}
	for _, long := range []bool{false, true} {
		if !long || lasts(r.pattern) {
			done, err := c.Take(caller.Tenant(), long)
			if err != nil {
				return err
			}
			defer done()
		}
	}
	return r.serve(v)
}

// lasts reports whether a page reads many records or changes many accounts.
func lasts(pattern string) bool {
	if method, path, _ := strings.Cut(pattern, " "); method == "GET" {
		for _, end := range []string{"/forwards", "/inspection", "/progress", "/chart"} {
			if strings.HasSuffix(path, end) {
				return true
			}
		}
		return false
	}
	for _, end := range []string{"/check", "/batch", "/document", "/inspection", "/withdraw"} {
		if strings.HasSuffix(pattern, end) {
			return true
		}
	}
	return false
}

// holder returns the caller that the hash of a key names, if that key opens the console.
func (p *Pages) holder(c *web.Call, hash string) (admin.Caller, bool) {
	caller, ok := p.Admin.HolderOf(hash)
	if !ok || hash == "" || !caller.Expires.IsZero() && !c.Now.Before(caller.Expires) || caller.May(readers) != nil {
		return admin.Caller{}, false
	}
	caller.From = c.IP
	return caller, true
}

// again checks the key in the form, unless it was entered a short while ago.
func (v *visit) again() error {
	if v.Proved(web.Console) {
		return nil
	}
	key := []byte(v.Value("key"))
	defer clear(key)
	if v.Throttled() || admin.HashKey(key) != v.hash {
		v.Wrong(token(key))
		return api.Refuse(http.StatusForbidden, "step_up", "this change needs your API key again, because you entered it more than ten minutes ago: go back, and enter it in the form")
	}
	v.Prove(web.Console)
	return nil
}

func token(key []byte) uint64 {
	h := fnv.New64a()
	_, _ = h.Write(key) // never fails
	return h.Sum64()
}

// as starts a request of the caller.
func (v *visit) as(o admin.Options) *admin.Request { return v.Admin.As(v.caller, o) }

// options are those of a change by a form.
func (v *visit) options() admin.Options {
	after, _ := time.ParseDuration(v.Value("revert_after"))
	return admin.Options{Confirm: v.Value("confirm") == "true", Create: v.Value("create") == "true", RevertAfter: min(max(after, 0), 168*time.Hour)}
}

// domain returns the domain in the path.
func (v *visit) domain(o admin.Options) (*admin.Domain, error) {
	return v.as(o).Domain(v.R.PathValue("domain"))
}

// page is the part of a list that the query asks for.
func (v *visit) page() admin.Page {
	return admin.Page{Limit: 100, Cursor: v.R.URL.Query().Get("cursor")}
}

// nav is what the layout shows around a page.
type nav struct {
	Who, Role, Domain, Area, Command string
	Changes                          bool // the caller may change something
	Ask                              bool // for the key, in forms of dangerous changes
	Site                             bool // the caller sees the whole site
}

// line returns a command of words; see [word].
func line(words ...string) string {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = word(w)
	}
	return strings.Join(quoted, " ")
}

// show sends a page. The command is what does the same, without the program's name; see [line].
func (v *visit) show(name, area, title, command string, data any) error {
	return v.Show(pages, name, v.view(area, title, command, data))
}

// word returns a text as one word of a command that people copy into a shell. It may come from a link
// that somebody else made.
func word(text string) string {
	plain := func(r rune) bool {
		return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("@._+-:/,", r)
	}
	if !strings.ContainsFunc(text, func(r rune) bool { return !plain(r) }) {
		return text
	}
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

func (v *visit) view(area, title, command string, data any) web.View {
	n := nav{
		Who: v.caller.Actor.Name, Role: string(v.caller.Role), Domain: v.R.PathValue("domain"), Area: area,
		Changes: v.caller.Role != store.RoleRead, Ask: !v.Proved(web.Console), Site: v.caller.Role != store.RoleDomain,
	}
	if command != "" {
		n.Command = "drawbridge " + command
	}
	if n.Domain == "" && !n.Site {
		n.Domain = v.caller.Domain
	}
	return web.View{Title: title, Nav: n, Data: data}
}

// refused shows a page again with what was wrong with its form.
func (v *visit) refused(name string, view web.View, err error) error {
	view, err = v.Again(view, err)
	if err != nil {
		return err
	}
	if n, ok := view.Nav.(nav); ok { // of fields that are wrong, no command
		n.Command = ""
		view.Nav = n
	}
	return v.Show(pages, name, view)
}

// done continues at a page of the domain after a change.
func (v *visit) done(note, area string) error {
	if after := v.options().RevertAfter; after > 0 {
		note += fmt.Sprintf(" In %s it is reverted unless you confirm it, on the page of policies.", strings.TrimSuffix(after.String(), "0s"))
	}
	v.Note(note)
	return v.Redirect("/domains/" + url.PathEscape(v.R.PathValue("domain")) + area)
}

// changed shows what a change did, or what was wrong with it on a page of its own.
func (v *visit) changed(err error, note, area string) error {
	if err != nil {
		return v.refused("refused", v.view("", "Nothing was changed", "", "/domains/"+url.PathEscape(v.R.PathValue("domain"))+area), err)
	}
	return v.done(note, area)
}

func (p *Pages) loginForm(c *web.Call) error {
	return c.Show(pages, "login", web.View{Title: "Log in", Data: web.Local(c.R.URL.Query().Get("next"))})
}

func (p *Pages) login(c *web.Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	if c.Throttled() {
		return api.TooMany("throttled", "too many wrong keys from your address: try again in a quarter of an hour")
	}
	if loaded, _ := p.Admin.Store.State.Ready(); !loaded {
		return store.ErrUnavailable
	}
	key := []byte(c.Value("key"))
	defer clear(key)
	hash, next := admin.HashKey(key), web.Local(c.Value("next"))
	if _, ok := p.holder(c, hash); !ok {
		c.Wrong(token(key))
		problem := api.Refuse(http.StatusUnauthorized, "wrong", "the key is unknown, has expired, or has a role that opens no console: use one of role admin, read or domain")
		return c.Show(pages, "login", web.View{Title: "Log in", Problem: problem, Data: next})
	}
	if err := c.SignIn(web.Console, hash); err != nil {
		return err
	}
	return c.Redirect(cmp.Or(next, "/"))
}

func (v *visit) logout() error {
	if _, err := v.SignOut(); err != nil {
		return err
	}
	return v.Redirect("/login")
}

func (v *visit) logoutEverywhere() error {
	if err := v.EndSessions(web.Console, v.hash); err != nil {
		return err
	}
	return v.logout()
}
