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

// Type is the placeholder in the help: all words, unless their line would be too long.
func (ch choice) Type() string {
	if words := strings.Join(ch.from, "|"); len(words) <= 35 {
		return words
	}
	return "word"
}

// Set implements [pflag.Value].
func (ch choice) Set(s string) error {
	if !slices.Contains(ch.from, s) {
		return errors.New("must be " + strings.Join(ch.from[:len(ch.from)-1], ", ") + " or " + ch.from[len(ch.from)-1])
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
	cmd.Flags().BoolVar(&w.dryRun, "dry-run", false, "show what would change, and change nothing")
	return w
}

// versioned adds --if-version, for a resource that has an ETag.
func (w *writing) versioned(cmd *cobra.Command) *writing {
	cmd.Flags().StringVar(&w.ifMatch, "if-version", "", "change it only if it still has this `version`, as show prints it")
	cmd.Flags().StringVar(&w.ifMatch, "if-match", "", "")
	_ = cmd.Flags().MarkHidden("if-match") // its former name
	return w
}

// confirmed adds --confirm, for a change that the daemon refuses at first.
func (w *writing) confirmed(cmd *cobra.Command, help string) *writing {
	cmd.Flags().BoolVar(&w.confirm, "confirm", false, help)
	return w
}

// creating adds --create, for a change of an account that may not exist.
func (w *writing) creating(cmd *cobra.Command) *writing {
	cmd.Flags().BoolVar(&w.create, "create", false, "create the account if it does not exist; needed where the domain's accounts are listed")
	return w
}

// revertible adds --revert-after, for a change that can be reverted.
func (w *writing) revertible(cmd *cobra.Command) *writing {
	cmd.Flags().DurationVar(&w.revertAfter, "revert-after", 0, "revert the change after this `time`, such as 10m, unless you confirm it with drawbridge revert confirm")
	return w
}

// guarded adds the flags that override the protection against lock-outs.
func (w *writing) guarded(cmd *cobra.Command) *writing {
	return w.revertible(cmd).confirmed(cmd, "make the change even if it locks people out; end a pending revert of the same rule")
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

// header is the condition for a version, which may have quotes or, after a shell, none.
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

// put sets a field; a dot in its name leads into an object.
func (o object) put(field string, v any) {
	outer, inner, nested := strings.Cut(field, ".")
	if !nested {
		o[field] = v
		return
	}
	part, _ := o[outer].(object)
	if part == nil {
		part = object{}
		o[outer] = part
	}
	part.put(inner, v)
}

// get returns a field that put may have set, or that was decoded; nil if there is none.
func (o object) get(field string) any {
	outer, inner, nested := strings.Cut(field, ".")
	if !nested {
		return o[field]
	}
	switch part := o[outer].(type) {
	case object:
		return part.get(inner)
	case map[string]any:
		return object(part).get(inner)
	}
	return nil
}

// onOff adds a flag for a field that is true or false.
func (s *settings) onOff(flag, field, help string) {
	word := choose(s.cmd, flag, help, "on", "off")
	s.add(flag, func(body, _ object) error { body.put(field, *word == "on"); return nil })
}

// word adds a flag for a field that takes one of a few words.
func (s *settings) word(flag, field, help string, from ...string) {
	word := choose(s.cmd, flag, help, from...)
	s.add(flag, func(body, _ object) error { body.put(field, *word); return nil })
}

// text adds a flag for a field that takes any text.
func (s *settings) text(flag, field, help string) {
	v := s.cmd.Flags().String(flag, "", help)
	s.add(flag, func(body, _ object) error { body.put(field, *v); return nil })
}

// number adds a flag for a field that takes a whole number.
func (s *settings) number(flag, field, help string) {
	n := s.cmd.Flags().Int(flag, 0, help)
	s.add(flag, func(body, _ object) error { body.put(field, *n); return nil })
}

// protocols adds a flag for each protocol switch.
func (s *settings) protocols(otherwise string) {
	for _, name := range protocols {
		word := choose(s.cmd, name, "allow logins over "+upper(name)+"; default: "+otherwise, "on", "off", "default")
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
	values := s.cmd.Flags().StringArray(flag, nil, help+" (repeatable; replaces the list; \"\" empties it)")
	s.add(flag, func(body, _ object) error {
		if err := single(flag, *values); err != nil {
			return err
		}
		body.put(field, slices.DeleteFunc(slices.Clone(*values), func(v string) bool { return v == "" }))
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
			if err := errors.Join(single(add, *adding), single(remove, *removing)); err != nil {
				return err
			}
			list, replaced := body.get(field).([]string)
			if !replaced {
				list = texts(current.get(field))
			}
			list, err := edited(list, *adding, *removing, remove)
			body.put(field, list)
			return err
		},
	})
}

// single refuses several values in one, which a comma shows. Only departments and texts may have
// one.
func single(flag string, values []string) error {
	name := strings.TrimPrefix(strings.TrimPrefix(flag, "add-"), "remove-")
	free := strings.Contains(flag, "department") || name == "subject" || name == "word"
	for _, v := range values {
		if first, _, several := strings.Cut(v, ","); several && !free && !strings.HasPrefix(v, "department:") {
			return usage("--%s %s: give one value each time and repeat --%s: --%s %s …", flag, v, flag, flag, strings.TrimSpace(first))
		}
	}
	return nil
}

// upper is the name of a protocol for people.
func upper(protocol string) string {
	if protocol == "sieve" {
		return "ManageSieve"
	}
	return strings.ToUpper(protocol)
}

// edited returns the list without the values of the flag remove, and with those of the flag add.
func edited(list, adding, removing []string, remove string) ([]string, error) {
	for _, v := range removing {
		i := slices.Index(list, v)
		if i < 0 {
			return nil, usage("--%s %s: not in the list, which is: %s", remove, v, cell("", strings.Join(list, ", ")))
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

// scope adds what edits a scope: the flags of whom replace it, and others add and remove single
// accounts and departments.
func (s *settings) scope(whom *scope) {
	s.fields = append(s.fields, setting{flags: scopeFlags[:], apply: func(body, _ object) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		for _, part := range []string{"all", "departments", "members", "except"} {
			if _, ok := scope[part]; !ok {
				scope[part] = nil // a patch would leave it as it was
			}
		}
		body["scope"] = scope
		return nil
	}})
	s.members("add-member", "remove-member", "the scope", false)
	s.members("add-except-member", "remove-except-member", "the exceptions of the scope", true)
	for _, sub := range []bool{false, true} {
		for _, except := range []bool{false, true} {
			s.scopeDepartments(sub, except)
		}
	}
}

// members adds two flags that add and remove single accounts of a scope, or of its exceptions, and
// leave the rest of the scope as it is.
func (s *settings) members(add, remove, list string, except bool) {
	adding := s.cmd.Flags().StringArray(add, nil, "add an `account` to "+list+" (repeatable)")
	removing := s.cmd.Flags().StringArray(remove, nil, "remove an `account` from "+list+" (repeatable)")
	s.fields = append(s.fields, setting{
		flags: []string{add, remove},
		edits: true,
		apply: func(body, current object) error {
			if err := errors.Join(single(add, *adding), single(remove, *removing)); err != nil {
				return err
			}
			part, before, err := s.scopePart(body, current, except, add, remove)
			if err != nil {
				return err
			}
			members, err := edited(texts(before["members"]), *adding, *removing, remove)
			part["members"] = members
			return err
		},
	})
}

// scopeDepartments adds flags that add and remove single departments of a scope, with or without
// those below them, or of its exceptions.
func (s *settings) scopeDepartments(sub, except bool) {
	name, what := "department", "the department with this `path`"
	if sub {
		name, what = "sub-department", "the department with this `path` and those below it"
	}
	where := "scope"
	if except {
		name, where = "except-"+name, "exceptions of the scope"
	}
	adding := s.cmd.Flags().StringArray("add-"+name, nil, "add "+what+" to the "+where+" (repeatable)")
	removing := s.cmd.Flags().StringArray("remove-"+name, nil, "remove "+what+" from the "+where+" (repeatable)")
	s.fields = append(s.fields, setting{
		flags: []string{"add-" + name, "remove-" + name},
		edits: true,
		apply: func(body, current object) error {
			part, before, err := s.scopePart(body, current, except, "add-"+name, "remove-"+name)
			if err != nil {
				return err
			}
			list, edited := part["departments"].([]object)
			if !edited {
				all, _ := before["departments"].([]any)
				for _, d := range all {
					if department, ok := d.(map[string]any); ok {
						list = append(list, department)
					}
				}
			}
			find := func(path string) int {
				return slices.IndexFunc(list, func(d object) bool { return d["path"] == path && (d["sub"] == true) == sub })
			}
			for _, path := range *removing {
				i := find(path)
				if i < 0 {
					return usage("--remove-%s %s: not in the list", name, path)
				}
				list = slices.Delete(list, i, i+1)
			}
			for _, path := range *adding {
				if find(path) < 0 {
					list = append(list, object{"path": path, "sub": sub})
				}
			}
			part["departments"] = append([]object{}, list...)
			return nil
		},
	})
}

// scopePart returns the scope in body, or its exceptions, for editing, and its present value.
func (s *settings) scopePart(body, current object, except bool, add, remove string) (part object, before map[string]any, err error) {
	if slices.ContainsFunc(scopeFlags[:], s.cmd.Flags().Changed) {
		return nil, nil, usage("--%s and --%s edit the scope: leave out the flags that replace it", add, remove)
	}
	before, _ = current["scope"].(map[string]any)
	part, _ = body["scope"].(object)
	if part == nil {
		part = object{}
		body["scope"] = part
	}
	if !except {
		return part, before, nil
	}
	before, _ = before["except"].(map[string]any)
	inner, _ := part["except"].(object)
	if inner == nil {
		inner = object{}
		part["except"] = inner
	}
	return inner, before, nil
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

// edited reports whether a flag changes the resource.
func (s *settings) edited() bool {
	return slices.ContainsFunc(s.fields, func(f setting) bool { return f.edits && f.given(s.cmd) })
}

// into adds the fields of the flags to body; current is the present resource.
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
	f.BoolVar(&s.all, "all", false, "all accounts of the domain")
	f.StringArrayVar(&s.departments, "department", nil, "accounts in the department with this `path` (repeatable)")
	f.StringArrayVar(&s.trees, "sub-department", nil, "accounts in the department with this `path` or in one below it (repeatable)")
	f.StringArrayVar(&s.members, "member", nil, "this `account` (repeatable)")
	f.StringArrayVar(&s.exceptDepartments, "except-department", nil, "except accounts in the department with this `path` (repeatable)")
	f.StringArrayVar(&s.exceptTrees, "except-sub-department", nil, "except accounts in the department with this `path` or in one below it (repeatable)")
	f.StringArrayVar(&s.exceptMembers, "except-member", nil, "except this `account` (repeatable)")
	return s
}

// body returns the scope in the API's form. An empty scope is a usage error.
func (s *scope) body() (object, error) {
	if !s.all && len(s.departments)+len(s.trees)+len(s.members) == 0 {
		return nil, usage("the scope is missing: give --all, --department, --sub-department or --member")
	}
	if err := errors.Join(single("member", s.members), single("except-member", s.exceptMembers)); err != nil {
		return nil, err
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
				path += " (with sub-departments)"
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
		text += " except " + strings.Join(out, ", ")
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
