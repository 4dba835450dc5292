package main

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// choice is a flag that takes one of a few words.
type choice struct {
	word *string
	from []string
}

var _ pflag.Value = choice{}

func oneOf(word *string, from ...string) choice { return choice{word, from} }

func (ch choice) String() string {
	if ch.word == nil { // pflag asks the zero value
		return ""
	}
	return *ch.word
}

// Type is what the help shows for the value.
func (ch choice) Type() string { return strings.Join(ch.from, "|") }

// Set implements [pflag.Value].
func (ch choice) Set(s string) error {
	if !slices.Contains(ch.from, s) {
		return errors.New("say " + strings.Join(ch.from, " or "))
	}
	*ch.word = s
	return nil
}

// choose adds a flag that takes one of a few words, and their completion.
func choose(cmd *cobra.Command, flag, help string, from ...string) *string {
	word := new(string)
	cmd.Flags().Var(oneOf(word, from...), flag, help)
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(from, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	return word
}

// writing are the flags of a command that changes something.
type writing struct {
	dryRun  bool
	confirm bool
	create  bool
	ifMatch string
	// revertAfter is when the change is undone unless it is confirmed; 0 for never.
	revertAfter time.Duration
}

// writes adds --dry-run.
func writes(cmd *cobra.Command) *writing {
	w := new(writing)
	cmd.Flags().BoolVar(&w.dryRun, "dry-run", false, "say what would happen, and change nothing")
	return w
}

// versioned adds --if-match, for a resource that has an ETag.
func (w *writing) versioned(cmd *cobra.Command) *writing {
	cmd.Flags().StringVar(&w.ifMatch, "if-match", "", "change it only if its `etag` is still this one")
	return w
}

// confirmed adds --confirm, for a change that the daemon wants to be told twice.
func (w *writing) confirmed(cmd *cobra.Command, help string) *writing {
	cmd.Flags().BoolVar(&w.confirm, "confirm", false, help)
	return w
}

// creating adds --create, for a change of an account that may not exist.
func (w *writing) creating(cmd *cobra.Command) *writing {
	cmd.Flags().BoolVar(&w.create, "create", false, "create the account if it does not exist, in a domain whose accounts are listed here")
	return w
}

// undone adds --revert-after, for a change that can undo itself.
func (w *writing) undone(cmd *cobra.Command) *writing {
	cmd.Flags().DurationVar(&w.revertAfter, "revert-after", 0, "make it, and undo it after so `long`, such as 10m, unless it is confirmed (drawbridge revert confirm)")
	return w
}

// guarded adds what gets a change made that would lock people out.
func (w *writing) guarded(cmd *cobra.Command) *writing {
	return w.undone(cmd).confirmed(cmd, "make it although it would lock people out")
}

func (w *writing) query() url.Values {
	q := url.Values{}
	if w.dryRun {
		q.Set("dry_run", "true")
	}
	if w.confirm {
		q.Set("confirm", "true")
	}
	if w.create {
		q.Set("create", "true")
	}
	if w.revertAfter != 0 {
		q.Set("revert_after", w.revertAfter.String())
	}
	return q
}

// header takes an etag as it is shown, with its quotes or, as shells eat them, without.
func (w *writing) header(otherwise string) http.Header {
	etag := w.ifMatch
	switch {
	case etag == "":
		etag = otherwise
	case etag != "*" && !strings.HasSuffix(etag, `"`):
		etag = `"` + etag + `"`
	}
	if etag == "" {
		return nil
	}
	return http.Header{"If-Match": {etag}}
}

// settings are flags that each set a field of a resource; those not given leave theirs alone.
type settings struct {
	cmd    *cobra.Command
	fields []setting
}

type setting struct {
	flags []string // any of them given sets the field
	apply func(body, current object) error
	edits bool // needs the current value
}

// object is a JSON object whose fields this command does not all know.
type object map[string]any

// onOff adds a flag for a field that is true or false.
func (s *settings) onOff(flag, field, help string) {
	word := choose(s.cmd, flag, help, "on", "off")
	s.add(flag, func(body, _ object) error { body[field] = *word == "on"; return nil })
}

// word adds a flag for a field that takes one of a few words.
func (s *settings) word(flag, field, help string, from ...string) {
	word := choose(s.cmd, flag, help, from...)
	s.add(flag, func(body, _ object) error { body[field] = *word; return nil })
}

// text adds a flag for a field that takes any text.
func (s *settings) text(flag, field, help string) {
	v := s.cmd.Flags().String(flag, "", help)
	s.add(flag, func(body, _ object) error { body[field] = *v; return nil })
}

// number adds a flag for a field that takes a whole number.
func (s *settings) number(flag, field, help string) {
	n := s.cmd.Flags().Int(flag, 0, help)
	s.add(flag, func(body, _ object) error { body[field] = *n; return nil })
}

// protocols adds a flag for each protocol switch.
func (s *settings) protocols(otherwise string) {
	for _, name := range protocols {
		word := choose(s.cmd, name, "let "+name+" in, or not; default is "+otherwise, "on", "off", "default")
		s.add(name, func(body, _ object) error {
			switches, _ := body["protocols"].(object)
			if switches == nil {
				switches = object{}
				body["protocols"] = switches
			}
			switches[name] = switchValue(*word)
			return nil
		})
	}
}

// protocols are those that have a switch.
var protocols = [...]string{"imap", "pop3", "smtp", "sieve"}

// switchValue is the JSON of a switch: true, false, or null to inherit.
func switchValue(word string) any {
	if word == "default" {
		return nil
	}
	return word == "on"
}

// list adds a repeatable flag that replaces a field's list; one empty value empties it.
func (s *settings) list(flag, field, help string) {
	values := s.cmd.Flags().StringArray(flag, nil, help+" (repeatable; replaces the list, \"\" empties it)")
	s.add(flag, func(body, _ object) error {
		body[field] = slices.DeleteFunc(slices.Clone(*values), func(v string) bool { return v == "" })
		return nil
	})
}

// edits adds to the flag of a list two more that add and remove single entries.
func (s *settings) edits(add, remove, field, what string) {
	adding := s.cmd.Flags().StringArray(add, nil, "add "+what+" (repeatable)")
	removing := s.cmd.Flags().StringArray(remove, nil, "remove "+what+" (repeatable)")
	s.fields = append(s.fields, setting{
		flags: []string{add, remove},
		edits: true,
		apply: func(body, current object) error {
			list, replaced := body[field].([]string)
			if !replaced {
				list = texts(current[field])
			}
			list, err := edited(list, *adding, *removing, remove)
			body[field] = list
			return err
		},
	})
}

// edited returns the list without what is removed, by the flag remove, and with what is added.
func edited(list, adding, removing []string, remove string) ([]string, error) {
	for _, v := range removing {
		i := slices.Index(list, v)
		if i < 0 {
			return nil, usage("--%s %s: the list does not hold that, but: %s", remove, v, cell("", strings.Join(list, ", ")))
		}
		list = slices.Delete(list, i, i+1)
	}
	for _, v := range adding {
		if !slices.Contains(list, v) {
			list = append(list, v)
		}
	}
	return list, nil
}

// members adds two flags that add and remove single accounts of a scope, or of its exceptions, and
// leave the rest of the scope as it is.
func (s *settings) members(add, remove, whom string, except bool) {
	adding := s.cmd.Flags().StringArray(add, nil, "add one `account` "+whom+" (repeatable)")
	removing := s.cmd.Flags().StringArray(remove, nil, "remove one `account` "+whom+" (repeatable)")
	s.fields = append(s.fields, setting{
		flags: []string{add, remove},
		edits: true,
		apply: func(body, current object) error {
			if slices.ContainsFunc(scopeFlags[:], s.cmd.Flags().Changed) {
				return usage("--%s and --%s change whom it concerns: leave out the flags that replace that", add, remove)
			}
			part := object{}
			before, _ := current["scope"].(map[string]any)
			scope, _ := body["scope"].(object)
			if scope == nil {
				scope = object{}
				body["scope"] = scope
			}
			if except {
				before, _ = before["except"].(map[string]any)
				scope["except"] = part
			} else {
				part = scope
			}
			list, err := edited(texts(before["members"]), *adding, *removing, remove)
			part["members"] = list
			return err
		},
	})
}

func (s *settings) add(flag string, apply func(body, current object) error) {
	s.fields = append(s.fields, setting{flags: []string{flag}, apply: apply})
}

func (f setting) given(cmd *cobra.Command) bool {
	return slices.ContainsFunc(f.flags, cmd.Flags().Changed)
}

// given reports whether any setting was named.
func (s *settings) given() bool {
	return slices.ContainsFunc(s.fields, func(f setting) bool { return f.given(s.cmd) })
}

// edited reports whether a setting was named that changes what is there.
func (s *settings) edited() bool {
	return slices.ContainsFunc(s.fields, func(f setting) bool { return f.edits && f.given(s.cmd) })
}

// into puts the fields that were named into body; current is the resource as it is.
func (s *settings) into(body, current object) error {
	for _, f := range s.fields {
		if f.given(s.cmd) {
			if err := f.apply(body, current); err != nil {
				return err
			}
		}
	}
	return nil
}

// texts returns a decoded JSON list of strings.
func texts(list any) []string {
	values, _ := list.([]any)
	out := make([]string, 0, len(values))
	for _, v := range values {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return out
}

// scope are the flags that say whom a rule concerns.
type scope struct {
	all                bool
	departments, trees []string
	members            []string
	exceptDepartments  []string
	exceptTrees        []string
	exceptMembers      []string
}

// scopeFlags are the flags of a scope.
var scopeFlags = [...]string{"all", "department", "sub-department", "member", "except-department", "except-sub-department", "except-member"}

func scoped(cmd *cobra.Command) *scope {
	s := new(scope)
	f := cmd.Flags()
	f.BoolVar(&s.all, "all", false, "everybody in the domain")
	f.StringArrayVar(&s.departments, "department", nil, "members of a department, by its `path` (repeatable)")
	f.StringArrayVar(&s.trees, "sub-department", nil, "members of a department and of those below it, by its `path` (repeatable)")
	f.StringArrayVar(&s.members, "member", nil, "one `account` (repeatable)")
	f.StringArrayVar(&s.exceptDepartments, "except-department", nil, "but not the members of this department, by its `path` (repeatable)")
	f.StringArrayVar(&s.exceptTrees, "except-sub-department", nil, "but not the members of this department and of those below it, by its `path` (repeatable)")
	f.StringArrayVar(&s.exceptMembers, "except-member", nil, "but not this `account` (repeatable)")
	return s
}

// body is the scope as the API wants it. A scope that nobody is in is a fault of usage.
func (s *scope) body() (object, error) {
	if !s.all && len(s.departments)+len(s.trees)+len(s.members) == 0 {
		return nil, usage("say whom it concerns: --all, --department, --sub-department or --member")
	}
	o := object{}
	if s.all {
		o["all"] = true
	}
	whom(o, s.departments, s.trees, s.members)
	except := object{}
	whom(except, s.exceptDepartments, s.exceptTrees, s.exceptMembers)
	if len(except) > 0 {
		o["except"] = except
	}
	return o, nil
}

// whomText is a scope in words.
func whomText(value any) string {
	named := func(scope map[string]any) []string {
		var list []string
		departments, _ := scope["departments"].([]any)
		for _, d := range departments {
			department, _ := d.(map[string]any)
			path := cell("", department["path"])
			if department["sub"] == true {
				path += " and below"
			}
			list = append(list, path)
		}
		return append(list, texts(scope["members"])...)
	}
	scope, _ := value.(map[string]any)
	list := named(scope)
	if scope["all"] == true {
		list = []string{"all"}
	}
	text := strings.Join(list, ", ")
	except, _ := scope["except"].(map[string]any)
	if out := named(except); len(out) > 0 {
		text += " but " + strings.Join(out, ", ")
	}
	return cell("", text)
}

func whom(o object, departments, trees, members []string) {
	var list []object
	for _, p := range departments {
		list = append(list, object{"path": p})
	}
	for _, p := range trees {
		list = append(list, object{"path": p, "sub": true})
	}
	if list != nil {
		o["departments"] = list
	}
	if members != nil {
		o["members"] = members
	}
}
