package console

import (
	"cmp"
	"net/http"
	"net/url"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/web"
)

func (v *visit) groups() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	list, err := v.Mail.Of(d).Groups(v.page())
	if err != nil {
		return err
	}
	return v.show("groups", "groups", "Groups", line("group", "list", d.Name()), list)
}

type groupData struct {
	api.Group
	New bool
}

func (v *visit) newGroup() error {
	view := v.view("groups", "New group", line("group", "set", "team@"+v.R.PathValue("domain")), groupData{api.Group{WhoMaySend: "anyone"}, true})
	return v.Show(pages, "group", view)
}

// groupView is the form of a group; its page is below the group's address.
func (v *visit) groupView(a *admin.Account, g *api.Group) web.View {
	view := v.view("groups", "Group "+a.Address(), line("group", "show", a.Address()), groupData{Group: *g})
	n, _ := view.Nav.(nav)
	n.Domain = a.Name()
	view.Nav = n
	return view
}

func (v *visit) group() error {
	a, err := v.as(admin.Options{}).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	res, err := v.Mail.Group(a)
	if err != nil {
		return err
	}
	return v.Show(pages, "group", v.groupView(a, &res.View))
}

// groupForm reads the fields of a group.
func (v *visit) groupForm(f *api.Faults) *api.Group {
	return web.Check(v.Call, &api.Group{
		Aliases: nonNil(v.Lines("aliases")), Members: nonNil(v.Lines("members")), WhoMaySend: v.Value("who_may_send"),
		Senders: nonNil(v.Lines("senders")), Departments: nonNil(v.rows("departments")), Approvers: nonNil(v.rows("approvers")),
		ExemptApprovers: v.Value("exempt_approvers") == "true",
	}, f)
}

func (v *visit) createGroup() error {
	o := admin.Options{If: func(exists bool, _ string) error {
		if exists {
			return api.Conflict("exists", "there is a group of this address already")
		}
		return nil
	}}
	var f api.Faults
	g := v.groupForm(&f)
	g.Address = v.Value("address")
	again := func(err error) error {
		return v.refused("group", v.view("groups", "New group", "", groupData{*g, true}), err)
	}
	a, err := v.as(o).Account(g.Address)
	if err != nil || a.Name() != v.R.PathValue("domain") {
		f.Add("/address", "outside_domain", "is not an address of this domain")
		return again(f.Err())
	}
	if _, err := v.Mail.PutGroup(v.R.Context(), a, g, &f); err != nil {
		return again(err)
	}
	return v.done("The group was saved"+v.where()+".", "/groups")
}

// changeGroup replaces or deletes a group.
func (v *visit) changeGroup() error {
	a, err := v.as(v.options()).Account(v.R.PathValue("address"))
	if err != nil {
		return err
	}
	if _, err := v.Mail.Group(a); err != nil {
		return err
	}
	list := "/domains/" + url.PathEscape(a.Name()) + "/groups"
	if v.Value("do") == "delete" {
		if _, err := v.Mail.DeleteGroup(v.R.Context(), a); err != nil {
			return err
		}
		v.Note("The group was deleted: anyone may write to its address" + v.where() + ".")
		return v.Redirect(list)
	}
	var f api.Faults
	g := v.groupForm(&f)
	if _, err := v.Mail.PutGroup(v.R.Context(), a, g, &f); err != nil {
		g.Address = a.Address()
		return v.refused("group", v.groupView(a, g), err)
	}
	v.Note("The group was saved" + v.where() + ".")
	return v.Redirect(list)
}

type messagesData struct {
	Items    []api.MessageRecord
	Next     string
	Query    url.Values
	Verdicts []string
}

// messageFilters are the fields that select message records, and the flags of the command.
var messageFilters = []struct{ field, flag string }{
	{"account", "--account"},
	{"credential", "--credential"},
	{"queue_id", "--queue-id"},
	{"message_id", "--message-id"},
	{"rule", "--rule"},
	{"verdict", "--verdict"},
	{"since", "--since"},
	{"until", "--until"},
}

// filters returns the query without its empty fields, which are no filters.
func (v *visit) filters() url.Values {
	q := v.R.URL.Query()
	for name := range q {
		if q.Get(name) == "" {
			q.Del(name)
		}
	}
	return q
}

// day reads a date of a query; it is UTC, and zero if the query has none.
func day(q url.Values, name string, f *api.Faults) time.Time {
	text := q.Get(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		f.Parameter(name, "invalid", "is not a date such as 2026-11-28")
	}
	return at
}

func (v *visit) messages() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	q := v.filters()
	words := []string{"messages", d.Name()}
	for _, x := range messageFilters {
		if q.Get(x.field) != "" {
			words = append(words, x.flag, q.Get(x.field))
		}
	}
	data := messagesData{Query: q, Verdicts: []string{"accepted", "refused", "partly_refused"}}
	view := v.view("messages", "Messages", line(words...), &data)
	var f api.Faults
	query := store.MessageQuery{
		Account: q.Get("account"), Credential: q.Get("credential"), QueueID: q.Get("queue_id"), MessageID: q.Get("message_id"), Rule: q.Get("rule"),
		Verdict: q.Get("verdict"), Since: day(q, "since", &f), Until: day(q, "until", &f), Cursor: q.Get("cursor"),
	}
	if err := f.Err(); err != nil {
		return v.refused("messages", view, err)
	}
	logins, err := d.Logins(d.Name())
	if err != nil {
		return err
	}
	list, err := logins.Messages(v.R.Context(), query)
	if err != nil {
		return v.refused("messages", view, err)
	}
	data.Items, data.Next = list.Items, list.Next
	return v.Show(pages, "messages", view)
}

// explainMessage shows the records of one message, and what the present rules say about it.
func (v *visit) explainMessage() error {
	d, err := v.domain(admin.Options{})
	if err != nil {
		return err
	}
	q := v.R.URL.Query()
	queue, message := q.Get("queue_id"), q.Get("message_id")
	flag := "--queue-id"
	if queue == "" {
		flag = "--message-id"
	}
	view := v.view("messages", "A message explained", line("messages", "explain", d.Name(), flag, cmp.Or(queue, message)), nil)
	out, err := v.Mail.Of(d).Explain(v.R.Context(), queue, message)
	switch p := admin.ProblemOf(err); {
	case err == nil:
		view.Data = out
		return v.Show(pages, "message", view)
	case p.Status == http.StatusNotFound: // its text says why
		view.Problem, view.Data = p, &api.ExplainedMessages{}
		return v.Show(pages, "message", view)
	}
	view.Data = &api.ExplainedMessages{}
	return v.refused("message", view, err)
}
