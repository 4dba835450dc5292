package mailflow

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"
	"unicode"
)

// Judgement is the decision on a whole message.
type Judgement struct {
	Recipients []Judged
	// From is the decoded From field, for the texts of warnings.
	From string
	// Untag are subject tags of the domains that the message leaves: replies do not carry them on.
	Untag []string
	// Relayed: a client of the site's own hands it over without authenticating. If it were refused,
	// the client would send a bounce to a sender that may be forged.
	Relayed bool
	// Again: the message was treated before, and comes back from a content filter of the site.
	Again bool
}

// Treatment is what happens to a message. The zero Treatment lets it pass, without header fields
// that pretend to be ours.
type Treatment struct {
	Refusal *Verdict // the message is refused
	Discard bool     // accepted, and delivered to nobody
	Without []string // recipients that do not get it, as they were given
	Fields  []Field  // header fields to be added
	Tag     string   // before the subject
	Untag   []string // tags to be removed from the subject
	Banner  string   // above the text
	OnFault Fault    // if there cannot be a banner
	Keep    bool     // header fields of ours that the message has stay
}

// The names of our header fields.
const (
	FieldPrefix   = "X-Drawbridge-"
	FieldTrace    = "X-Drawbridge-Client"
	FieldExternal = "X-Drawbridge-External"
	FieldFolder   = "X-Drawbridge-Folder"
)

// DefaultTag is the subject tag of a warning that names none.
const DefaultTag = "[EXT]"

const (
	textReturned = "The message is not accepted here."
	textGeneral  = "This message comes from outside the organization: {name}."
	textAdvanced = "Caution: this message comes from outside the organization, and its sender may not be who it seems: {name} {address}."
)

// Treat returns what happens to a message by the decision about each recipient, without its marks,
// and notes at the recipients what a filter does. A refusal refuses the message for all of them.
func (j *Judgement) Treat() Treatment {
	var t Treatment
	if j.Again {
		for i := range j.Recipients { // it was approved
			r := &j.Recipients[i]
			r.Effects = slices.DeleteFunc(r.Effects, func(e Effect) bool { return e.Holds() })
		}
		return Treatment{Keep: true}
	}
	for i := range j.Recipients {
		r := &j.Recipients[i]
		if r.Refused {
			return Treatment{Refusal: &r.Verdict}
		}
		switch effect := r.filtered(); {
		case effect == nil:
		case effect.Rule.Action.Do == DoDelete:
			t.Without = append(t.Without, r.Given)
			r.Deleted, r.Effects = true, nil // it is neither held nor copied
		case effect.Rule.Action.Do == DoReturn && !j.Relayed:
			return Treatment{Refusal: &Verdict{
				Refused: true, Text: shown(cmp.Or(effect.Rule.Action.Text, textReturned)), Reason: ReasonFiltered, Rule: effect.Rule.ID,
			}}
		default:
			r.Spam = true
		}
	}
	if len(j.Recipients) > 0 && len(t.Without) == len(j.Recipients) {
		return Treatment{Discard: true}
	}
	return t
}

// Mark adds the marks of the message to its treatment: by the rules of the recipients who get it,
// who share its bytes. Those in gone do not.
func (j *Judgement) Mark(t *Treatment, gone []int) {
	if t.Keep {
		return
	}
	w := warnings{from: j.From}
	spam := false
	for i := range j.Recipients {
		r := &j.Recipients[i]
		if r.Deleted || slices.Contains(gone, i) {
			continue
		}
		spam = spam || r.Spam
		for k := range r.Effects {
			if e := &r.Effects[k]; e.Rule != nil && e.Rule.Kind == KindWarning {
				w.add(e)
			}
		}
	}
	if spam {
		t.Fields = append(t.Fields, Field{FieldFolder, "spam"})
	}
	w.treat(t)
	if len(j.Untag) > 0 && t.Tag == "" {
		t.Untag = j.Untag
	}
}

// filtered returns the effect of the first filter rule that matches at a recipient; nil for none.
func (r *Judged) filtered() *Effect {
	for i := range r.Effects {
		if e := &r.Effects[i]; e.Rule != nil && e.Rule.Kind == KindFilter {
			return e
		}
	}
	return nil
}

// warnings collects the marks of a message from outside.
type warnings struct {
	from  string
	level string
	rules []*Rule
	hows  map[string]*Rule // the first rule that wants each
}

func (w *warnings) add(e *Effect) {
	if e.Level == LevelAdvanced || w.level == "" {
		w.level = e.Level
	}
	if slices.Contains(w.rules, e.Rule) {
		return
	}
	w.rules = append(w.rules, e.Rule)
	if w.hows == nil {
		w.hows = map[string]*Rule{}
	}
	hows := e.Rule.Action.How
	if len(hows) == 0 {
		hows = []string{HowHeader}
	}
	for _, how := range hows {
		if w.hows[how] == nil {
			w.hows[how] = e.Rule
		}
	}
}

// treat adds the marks to the treatment.
func (w *warnings) treat(t *Treatment) {
	if len(w.rules) == 0 {
		return
	}
	if w.hows[HowHeader] != nil {
		t.Fields = append(t.Fields, Field{FieldExternal, cmp.Or(w.level, LevelGeneral)})
	}
	if r := w.hows[HowSubject]; r != nil {
		t.Tag = r.tag()
	}
	if r := w.hows[HowBanner]; r != nil {
		t.Banner, t.OnFault = w.text(r), r.OnFault
	}
}

// CheckTag validates a subject tag: it must be recognized at the beginning of a subject again.
func CheckTag(tag string) error {
	switch {
	case tag == "":
		return nil
	case strings.TrimSpace(tag) != tag:
		return errors.New("begins or ends with space: leave that out")
	case strings.ContainsFunc(tag, unicode.IsControl):
		return errors.New("has a line break or another control character")
	case strings.Contains(tag, "=?"), strings.Contains(tag, "?="):
		return errors.New("looks like an encoded word: leave out =? and ?=")
	case strings.HasSuffix(tag, ":") || strings.HasSuffix(tag, "："):
		return errors.New("ends with a colon, as words such as Re: do: write it in brackets")
	}
	return nil
}

// tag returns the subject tag of a warning rule.
func (r *Rule) tag() string { return cmp.Or(r.Action.Tag, DefaultTag) }

// text returns the texts of a warning, one a line, in the order of their languages.
func (w *warnings) text(r *Rule) string {
	texts, text := r.Action.Texts, textGeneral
	if w.level == LevelAdvanced {
		text = textAdvanced
		if len(r.Action.AdvancedTexts) > 0 {
			texts = r.Action.AdvancedTexts
		}
	}
	lines := []string{text}
	if len(texts) > 0 {
		lines = nil
		for _, language := range slices.Sorted(maps.Keys(texts)) {
			lines = append(lines, texts[language])
		}
	}
	name, addr := displayed(w.from)
	return strings.NewReplacer("{name}", cmp.Or(name, addr), "{address}", addr).Replace(strings.Join(lines, "\n"))
}

// displayed returns the name and the address of a decoded From field, bounded and on one line.
func displayed(from string) (name, addr string) {
	from = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, from)
	name, addr = "", from
	if i := strings.LastIndexByte(from, '<'); i >= 0 {
		name, addr = from[:i], strings.TrimRight(from[i+1:], "> \t")
	}
	return bounded(strings.Trim(name, "\" \t")), bounded(strings.TrimSpace(addr))
}

func bounded(text string) string {
	const enough = 100
	if r := []rune(text); len(r) > enough {
		return string(r[:enough]) + "..."
	}
	return text
}

// Tags returns the subject tags of the domain's warning rules.
func (r *Rules) Tags() []string {
	if r == nil {
		return nil
	}
	return r.tags
}

// Level returns the level of a warning about a message from outside: advanced if the rule looks for
// imposters and the From field looks like one. Known reports whether an address of the recipient's
// domain has an account, and named whether one of its accounts has a display name.
func (r *Rules) Level(rule *Rule, content *Content, known, named func(text string) bool) string {
	if rule.Action.Level != LevelAdvanced || content == nil {
		return LevelGeneral
	}
	var values []string
	for _, f := range content.Header {
		if strings.EqualFold(strings.TrimRight(f.Name, " \t"), "From") {
			values = append(values, f.Value)
		}
	}
	if imposter(values, slices.Sorted(maps.Keys(r.names)), known, named) {
		return LevelAdvanced
	}
	return LevelGeneral
}
