package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/chromedp"
)

// text returns a value of the accessibility tree.
func text(v *accessibility.Value) (text string) {
	if v != nil {
		_ = json.Unmarshal(v.Value, &text) // what is no string is none of ours
	}
	return text
}

// alike are the controls of a page that are called the same and do not do the same.
const alike = `(() => {
	const seen = new Map(), found = [];
	for (const e of document.querySelectorAll("a[href], button")) {
		if (!e.checkVisibility() || e.ariaLabel || e.querySelector(".sr")) continue; // somebody thought of a name
		const name = e.innerText.trim();
		const does = e.tagName === "A" ? e.href : [e.form && e.form.action, e.form && new URLSearchParams([...new FormData(e.form)].filter(([, v]) => typeof v === "string")), e.name, e.value].join(" ");
		const key = e.tagName + " " + name;
		if (seen.has(key) && seen.get(key) !== does) found.push(key + ": " + seen.get(key) + " and " + does);
		seen.set(key, does);
	}
	return found;
})()`

// heard looks at the open page as a screen reader does, by the browser's accessibility tree: whatever
// takes the focus has a role and a name of its own, headings follow one another, and the language is
// that of the page.
func heard(ctx context.Context, language string) (faults []string, err error) {
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }
	var nodes []*accessibility.Node
	var said string
	var same []string
	err = chromedp.Run(ctx, chromedp.ActionFunc(func(ctx context.Context) (err error) {
		nodes, err = accessibility.GetFullAXTree().Do(ctx)
		return err
	}), chromedp.Evaluate(`document.documentElement.lang`, &said), chromedp.Evaluate(alike, &same))
	if err != nil {
		return nil, err
	}
	if said != language {
		fault("the page is in %q, not %q", said, language)
	}
	for _, s := range same {
		fault("%s", s)
	}
	level, controls := 0, 0
	for _, n := range nodes {
		if n.Ignored {
			continue
		}
		role, name := text(n.Role), text(n.Name)
		focusable, of := false, 0
		for _, p := range n.Properties {
			switch p.Name {
			case accessibility.PropertyNameFocusable:
				focusable = string(p.Value.Value) == "true"
			case accessibility.PropertyNameLevel:
				of, _ = strconv.Atoi(string(p.Value.Value))
			default:
			}
		}
		switch role {
		case "heading":
			if of == 1 == (level > 0) || of > level+1 {
				fault("heading %q of level %d follows level %d", name, of, level)
			}
			if level = of; name == "" {
				fault("a heading without a text")
			}
		case "RootWebArea":
			if name == "" {
				fault("the page has no title")
			}
			continue
		}
		if !focusable {
			continue
		}
		if controls++; name == "" && role != "status" || role == "" || role == "generic" || role == "none" {
			fault("what takes the focus has role %q and name %q", role, name)
		}
	}
	if level == 0 || controls == 0 {
		fault("%d controls, and headings to level %d", controls, level)
	}
	return faults, nil
}
