package main

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func mailRulePath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"mail-rules"}, more...)...)
}

func (c *cli) mailRule() *cobra.Command {
	return group("mail-rule", "Manage mail rules: what accounts may send and receive",
		c.mailRuleList(), c.mailRuleShow(), c.mailRuleCreate(), c.mailRuleSet(),
		c.mailRuleSwitch("enable", "Enable a mail rule", true), c.mailRuleSwitch("disable", "Disable a mail rule without deleting it", false),
		c.mailRuleDelete(), c.mailRuleTest(), c.mailRulePreview(), c.mailRuleSuspended(), c.mailRuleUnsuspend())
}

func (c *cli) mailRuleList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the mail rules of a domain",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, mailRulePath(args[0]), nil, *limit,
			col("ID", "id"), col("NAME", "name").shortened(), col("KIND", "kind"), col("ENABLED", "enabled"), col("MODE", "mode"),
			column{heading: "SCOPE", field: "scope", text: whomText, soft: true}, col("DIRECTION", "direction").onlyWide(),
			col("EXCEPT", "except_domains").onlyWide(), col("UNTIL", "until").onlyWide())
	}
	return cmd
}

// onMailRule is a command about one mail rule.
func (c *cli) onMailRule(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " DOMAIN ID",
		Short:             short,
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "mail-rules", "id")),
	}
}

func (c *cli) mailRuleShow() *cobra.Command {
	cmd := c.onMailRule("show", "Show a mail rule")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.show(cmd, mailRulePath(args[0], args[1])) }
	return cmd
}

// moment adds a flag for a field that takes a time.
func (s *settings) moment(flag, field, help string) {
	v := s.cmd.Flags().String(flag, "", help)
	s.add(flag, func(body, _ object) error {
		if *v == "" {
			body[field] = nil
			return nil
		}
		when, err := future(*v, time.Now())
		if err != nil {
			return usage("--%s: %w", flag, err)
		}
		body[field] = when.UTC().Format(time.RFC3339)
		return nil
	})
}

// listFlag is the flag of a field that has a list. Commands that change it have two more, for single
// entries.
type listFlag struct {
	flag, field string
	of          string // the kinds that have it, or match
	one         string // an entry, for the help
}

var mailRuleLists = [...]listFlag{
	{"except-domain", "except_domains", "", "`domain` of the other party that the rule does not apply to, or *.domain"},
	{"recipient-domain", "match.recipient_domains", "match: ", "`domain` of the recipient, or *.domain"},
	{"sender", "match.senders", "match: ", "`address` of the sender, or *@domain"},
	{"recipient", "match.recipients", "match: ", "`address` of the recipient, or *@domain"},
	{"subject", "match.subject", "match: ", "`text` in the subject"},
	{"word", "match.text", "match: ", "`text` in the subject or the text"},
	{"attachment", "match.attachments.names", "match: ", "`pattern` of an attachment's name, such as *.exe"},
	{"attachment-type", "match.attachments.types", "match: ", "media `type` of an attachment, such as application/*"},
	{"to", "action.to", "monitor: ", "`address` that receives copies"},
	{"approver", "action.approvers", "audit: ", "`address` of an approver, or department:path"},
	{"how", "action.how", "warning: ", "`word`: header, subject or banner"},
	{"whitelist", "action.whitelist", "warning: ", "sender `domain` that is not marked, or *.domain"},
}

// article puts a or an before a noun.
func article(noun string) string {
	if strings.ContainsAny(strings.TrimPrefix(noun, "`")[:1], "aeiou") {
		return "an " + noun
	}
	return "a " + noun
}

// mailRuleSettings are the fields of a mail rule that create and set have in common.
func (c *cli) mailRuleSettings(cmd *cobra.Command) (*settings, *scope) {
	s := &settings{cmd: cmd}
	s.text("name", "name", "`name` of the rule")
	s.onOff("enabled", "enabled", "whether the rule is evaluated")
	s.word("mode", "mode", "enforce, or report: only record which messages match", "enforce", "report")
	s.word("direction", "direction", "messages that accounts in the scope send, receive, or both", "sent", "received", "both")
	s.moment("from", "from", "`time` at which the rule begins")
	s.moment("until", "until", "`time` at which the rule ends")
	s.word("on-fault", "on_fault", "if the rule cannot be evaluated: defer the message (tempfail) or skip the rule (ignore)", "tempfail", "ignore")
	for _, l := range mailRuleLists {
		s.list(l.flag, l.field, l.of+l.one)
	}
	s.headers()
	s.number("min-size", "match.min_size", "match: at least this `number` of octets")
	s.number("messages-per-hour", "action.messages_per_hour", "limit: maximum `number` of messages in an hour")
	s.number("messages-per-day", "action.messages_per_day", "limit: maximum `number` of messages in a day")
	s.number("recipients-per-hour", "action.recipients_per_hour", "limit: maximum `number` of recipients in an hour")
	s.number("recipients-per-day", "action.recipients_per_day", "limit: maximum `number` of recipients in a day")
	s.number("warn-at", "action.warn_at", "limit: `percentage` of a bound that is logged when it is reached")
	s.word("per", "action.per", "limit: count for each account, credential or domain", "account", "credential", "domain")
	s.word("then", "action.then", "limit: refuse, or suspend_credential; audit, when it expires: reject or release", "refuse", "suspend_credential", "reject", "release")
	s.word("allow", "action.allow", "forwarding: within the domain, or not at all", "inside", "none")
	s.word("do", "action.do", "filter: deliver to the spam folder, delete, or return to the sender", "spam", "delete", "return")
	s.text("text", "action.text", "filter: `text` that the sender of a returned message reads")
	s.word("need", "action.need", "audit: whether any approver decides, or all must agree", "any", "all")
	s.text("expires", "action.expires", "audit: `duration` to wait for a decision, such as 72h")
	s.word("level", "action.level", "warning: general, or advanced: also look-alikes of colleagues and domains", "general", "advanced")
	s.text("tag", "action.tag", "warning: `text` before the subject; default: [EXT]")
	s.byLanguage("warning-text", "action.texts", "warning: what readers see, as `language=text`")
	s.byLanguage("advanced-text", "action.advanced_texts", "warning: what readers see on look-alikes, as `language=text`")
	return s, scoped(cmd)
}

// headers adds the flags of a mail rule's header matches. Each replaces the whole list with what
// both give.
func (s *settings) headers() {
	const help = " (repeatable; both flags together replace the list; \"\" empties it)"
	contains := s.cmd.Flags().StringArray("header", nil, "match: a header field that contains a text, as `name:text`"+help)
	regex := s.cmd.Flags().StringArray("header-regex", nil, "match: a header field that a regular expression matches, as `name:regex`"+help)
	s.fields = append(s.fields, setting{flags: []string{"header", "header-regex"}, apply: func(body, _ object) error {
		list, err := headerMatches("header", "contains", *contains)
		if err != nil {
			return err
		}
		more, err := headerMatches("header-regex", "regex", *regex)
		body.put("match.headers", append(list, more...))
		return err
	}})
}

// editHeaders adds flags that add and remove single header matches.
func (s *settings) editHeaders() {
	for _, kind := range []struct{ flag, field, value string }{
		{"header", "contains", "`name:text`"}, {"header-regex", "regex", "`name:regex`"},
	} {
		add, remove := "add-"+kind.flag, "remove-"+kind.flag
		adding := s.cmd.Flags().StringArray(add, nil, "add a header match "+kind.value+" (repeatable)")
		removing := s.cmd.Flags().StringArray(remove, nil, "remove a header match "+kind.value+" (repeatable)")
		s.fields = append(s.fields, setting{flags: []string{add, remove}, edits: true, apply: func(body, current object) error {
			list, replaced := body.get("match.headers").([]object)
			if !replaced {
				all, _ := current.get("match.headers").([]any)
				for _, h := range all {
					if header, ok := h.(map[string]any); ok {
						list = append(list, header)
					}
				}
			}
			without, err := headerMatches(remove, kind.field, *removing)
			if err != nil {
				return err
			}
			more, err := headerMatches(add, kind.field, *adding)
			if err != nil {
				return err
			}
			find := func(h object) int {
				return slices.IndexFunc(list, func(one object) bool { return one["name"] == h["name"] && one[kind.field] == h[kind.field] })
			}
			for i, h := range without {
				at := find(h)
				if at < 0 {
					return usage("--%s %s: not in the list", remove, (*removing)[i])
				}
				list = slices.Delete(list, at, at+1)
			}
			for _, h := range more {
				if find(h) < 0 {
					list = append(list, h)
				}
			}
			body.put("match.headers", append([]object{}, list...))
			return nil
		}})
	}
}

// headerMatches reads values of the form "name:value", with blanks after the colon or without.
func headerMatches(flag, field string, values []string) ([]object, error) {
	list := []object{}
	for _, v := range values {
		if v == "" {
			continue
		}
		name, value, ok := strings.Cut(v, ":")
		if !ok {
			return nil, usage("--%s %s: write it as name:value", flag, v)
		}
		list = append(list, object{"name": strings.TrimSpace(name), field: strings.TrimSpace(value)})
	}
	return list, nil
}

// byLanguage adds a flag for a field that has texts by language. It changes the languages that are
// given; an empty text removes its language.
func (s *settings) byLanguage(flag, field, help string) {
	values := s.cmd.Flags().StringArray(flag, nil, help+" (repeatable; an empty text removes the language)")
	s.add(flag, func(body, _ object) error {
		texts := object{}
		for _, v := range *values {
			language, text, ok := strings.Cut(v, "=")
			if !ok || language == "" {
				return usage("--%s %s: write it as language=text, such as en=…", flag, v)
			}
			if texts[language] = text; text == "" {
				texts[language] = nil
			}
		}
		body.put(field, texts)
		return nil
	})
}

func (c *cli) mailRuleCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DOMAIN KIND",
		Short: "Create a mail rule",
		Long: "Create a mail rule for the messages of the accounts in its scope (--all, --department …). KIND is internal_only,\n" +
			"limit, forwarding, filter, audit, monitor or warning. Flags described with a kind are for rules of that kind only.\n" +
			"Those described with match: limit filter, audit, monitor and warning to messages that match all of them.",
		Example: "  drawbridge mail-rule create example.org internal_only --id interns --name \"Interns: inside only\" --department interns\n" +
			"  drawbridge mail-rule create example.org limit --name \"Passwords\" --all --per credential --recipients-per-hour 100 --then suspend_credential",
		Args:              takes("DOMAIN", "KIND"),
		ValidArgsFunction: arguments(c.completeDomain, cobra.FixedCompletions([]string{"internal_only", "limit", "forwarding", "filter", "audit", "monitor", "warning"}, cobra.ShellCompDirectiveNoFileComp)),
	}
	s, whom := c.mailRuleSettings(cmd)
	s.text("id", "id", "`id` that commands use; default: generated")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		body := object{"kind": args[1], "scope": scope, "action": object{}}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodPost, mailRulePath(args[0]), body)
	}
	return cmd
}

func (c *cli) mailRuleSet() *cobra.Command {
	cmd := c.onMailRule("set", "Change a mail rule")
	cmd.Long = "Change the settings of a mail rule that are given; the others stay as they are. The scope flags (--all,\n" +
		"--department, --member …) replace the whole scope; the flags --add-… and --remove-… edit one list."
	cmd.Example = "  drawbridge mail-rule set example.org interns --add-except-domain university.example\n" +
		"  drawbridge mail-rule set example.org outside --how header --how subject --tag '[outside]'"
	s, whom := c.mailRuleSettings(cmd)
	for _, l := range mailRuleLists {
		s.edits("add-"+l.flag, "remove-"+l.flag, l.field, article(l.one))
	}
	s.editHeaders()
	s.scope(whom)
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.patch(cmd, w, mailRulePath(args[0], args[1]), s)
	}
	return cmd
}

func (c *cli) mailRuleSwitch(verb, short string, on bool) *cobra.Command {
	cmd := c.onMailRule(verb, short)
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPatch, mailRulePath(args[0], args[1]), object{"enabled": on})
	}
	return cmd
}

func (c *cli) mailRuleDelete() *cobra.Command {
	cmd := c.onMailRule("delete", "Delete a mail rule")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, mailRulePath(args[0], args[1]), nil)
	}
	return cmd
}

func (c *cli) mailRuleTest() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test DOMAIN [ID]",
		Short: "Test how the rules decide a message, and why",
		Long: "Test how the rules decide a message for each recipient, step by step. Nothing is sent, recorded or counted. Without\n" +
			"--login the message comes from outside. With --draft, a mail rule in a JSON file is evaluated as if it were enabled,\n" +
			"in place of the rule ID, if given.",
		Example: "  drawbridge mail-rule test example.org --login ann@example.org --from ann@example.org --to bob@elsewhere.example\n" +
			"  drawbridge mail-rule test example.org --from x@elsewhere.example --to ann@example.org --message message.eml",
		Args:              takes("DOMAIN", "[ID]"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "mail-rules", "id")),
	}
	s := &settings{cmd: cmd}
	s.text("login", "login", "`address` that authenticated")
	s.text("ip", "ip", "client's IP `address`")
	s.text("from", "sender", "`address` of MAIL FROM")
	s.list("to", "recipients", "`address` of a recipient")
	s.text("redirected-by", "redirected_by", "`address` of the mailbox that forwards the message automatically")
	message := cmd.Flags().String("message", "", "`file` with the message, or its header; - for standard input")
	draft := drafted(cmd, "mail rule")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in := object{}
		if err := s.into(in, nil); err != nil {
			return err
		}
		if *message != "" {
			text, err := readFile(cmd, *message)
			if err != nil {
				return err
			}
			in["text"] = string(text)
		}
		body := object{"message": in}
		if *draft != "" {
			rule, err := readJSON(cmd, "draft", *draft)
			if err != nil {
				return err
			}
			body["rule"] = rule
		}
		return c.write(cmd, &writing{}, http.MethodPost, mailRulePath(args[0], append(args[1:], "test")...), body)
	}
	return cmd
}

func (c *cli) mailRulePreview() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "preview DOMAIN",
		Short: "Preview which recorded messages a rule would have refused",
		Long: "Preview which recorded messages a mail rule in a JSON file, of kind internal_only or limit, would have refused, by\n" +
			"account. Nothing is changed. For the other kinds records do not suffice: use --mode report.",
		Example:           "  drawbridge mail-rule preview example.org --draft rule.json --days 7",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	draft := drafted(cmd, "mail rule")
	days := cmd.Flags().Int("days", 30, "`number` of days to look back")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *draft == "" {
			return usage("the rule is missing: give --draft: %s", cmd.UseLine())
		}
		rule, err := readJSON(cmd, "draft", *draft)
		if err != nil {
			return err
		}
		return c.write(cmd, &writing{}, http.MethodPost, mailRulePath(args[0], "preview"), object{"rule": rule, "days": *days})
	}
	return cmd
}

func (c *cli) mailRuleSuspended() *cobra.Command {
	return &cobra.Command{
		Use:               "suspended DOMAIN",
		Short:             "List the credentials that limits have suspended",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, domainPath(args[0], "suspensions"), nil, 0,
				col("ID", "id"), col("ACCOUNT", "account").shortened(), col("CREDENTIAL", "credential").onlyWide(), col("LABEL", "label").shortened(), col("RULE", "rule"),
				col("REACHED", "note").shortened(), col("SINCE", "at"))
		},
	}
}

func (c *cli) mailRuleUnsuspend() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "unsuspend DOMAIN ID",
		Short:             "Lift the suspension of a credential",
		Long:              "Lift the suspension of a credential. ID is one that drawbridge mail-rule suspended lists.",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "suspensions", "id")),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, domainPath(args[0], "suspensions", args[1]), nil)
	}
	return cmd
}

func groupPath(address string) string { return adminclient.Path("v1", "groups", address) }

func (c *cli) mailGroup() *cobra.Command {
	return group("group", "Manage who may write to groups", c.groupList(), c.groupShow(), c.groupSet(), c.groupDelete())
}

func (c *cli) groupList() *cobra.Command {
	return &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the groups of a domain",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, domainPath(args[0], "groups"), nil, 0,
				col("ADDRESS", "address").shortened(), col("WHO MAY SEND", "who_may_send"), col("MEMBERS", "members").shortened(), col("SENDERS", "senders").onlyWide(),
				col("DEPARTMENTS", "departments").onlyWide(), col("APPROVERS", "approvers").onlyWide(), col("ALIASES", "aliases").onlyWide())
		},
	}
}

func (c *cli) groupShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ADDRESS",
		Short: "Show a group",
		Args:  takes("ADDRESS"),
		RunE:  func(cmd *cobra.Command, args []string) error { return c.show(cmd, groupPath(args[0])) },
	}
}

func (c *cli) groupSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "set ADDRESS",
		Short: "Create or replace a group",
		Long: "Create or replace a group. The mail server expands the group; the members given here only decide who may write as a\n" +
			"member. A member may be another group. Settings that are not given are empty.",
		Example: "  drawbridge group set team@example.org --member ann@example.org --member bob@example.org --who-may-send members\n" +
			"  drawbridge group set all@example.org --member team@example.org --who-may-send listed --sender-department board",
		Args: takes("ADDRESS"),
	}
	s := &settings{cmd: cmd}
	s.word("who-may-send", "who_may_send", "who may write to the group", "anyone", "domain", "members", "listed")
	s.list("member", "members", "`address` of a member: an account, a group, or an address elsewhere")
	s.list("alias", "aliases", "further `address` of the group")
	s.list("sender", "senders", "listed: `address`, *@domain, or a group for its members")
	s.list("sender-department", "departments", "listed: `path` of a department")
	s.list("approver", "approvers", "`address` of an approver, who decides before messages are delivered")
	s.onOff("exempt-approvers", "exempt_approvers", "deliver messages of approvers without approval")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodPut, groupPath(args[0]), body)
	}
	return cmd
}

func (c *cli) groupDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete ADDRESS",
		Short: "Delete a group, so that anyone may write to its address",
		Args:  takes("ADDRESS"),
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, groupPath(args[0]), nil)
	}
	return cmd
}

func (c *cli) messages() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "messages DOMAIN",
		Short: "Show recorded messages, and explain one",
		Long: "Show the message records of a domain, newest first: messages that its accounts sent, and incoming messages to\n" +
			"recipients with a mail rule or group. Records do not contain the messages. --since and --until take a time, a day or\n" +
			"an age, as for drawbridge logins.",
		Example: "  drawbridge messages example.org --account ann@example.org --since 24h\n" +
			"  drawbridge messages explain example.org --queue-id 4XyZ",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	f := cmd.Flags()
	f.String("account", "", "only messages that this `address` sent or received")
	f.String("credential", "", "only messages sent with the secure password with this `id`, or mailbox")
	f.String("queue-id", "", "only messages with this queue `id`")
	f.String("message-id", "", "only messages with this Message-ID, as `<id>`")
	f.String("rule", "", "only messages whose record names the rule with this `id`, or a group")
	choose(cmd, "verdict", "only messages with this verdict", "accepted", "refused", "partly_refused")
	f.String("since", "", "only messages since this `time`")
	f.String("until", "", "only messages until this `time`")
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for flag, name := range map[string]string{"account": "account", "credential": "credential", "queue-id": "queue_id", "message-id": "message_id", "rule": "rule", "verdict": "verdict"} {
			if v := f.Lookup(flag).Value.String(); v != "" {
				q.Set(name, v)
			}
		}
		if err := periodInto(q, f); err != nil {
			return err
		}
		return c.list(cmd, domainPath(args[0], "messages"), q, *limit,
			column{heading: "TIME", field: "time", layout: "01-02 15:04:05"}, col("SENDER", "sender").shortened(), col("TO DOMAINS", "recipient_domains").shortened(),
			col("RECIPIENTS", "recipients"), col("VERDICT", "verdict"), col("RULE", "rule"), col("CREDENTIAL", "credential").onlyWide(), col("IP", "ip").onlyWide(),
			col("SIZE", "size").onlyWide(), col("QUEUE ID", "queue_id").onlyWide(), col("MESSAGE-ID", "message_id").onlyWide())
	}
	cmd.AddCommand(c.messagesExplain())
	return cmd
}

func (c *cli) messagesExplain() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "explain DOMAIN",
		Short:             "Explain a recorded message by its queue id or Message-ID",
		Long:              "Show the records of a message, and how the current rules decide its envelope for each recipient, step by step.",
		Example:           "  drawbridge messages explain example.org --message-id '<4711@example.org>'",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	queue := cmd.Flags().String("queue-id", "", "queue `id` of Postfix")
	message := cmd.Flags().String("message-id", "", "the message's Message-ID, as `<id>`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if (*queue == "") == (*message == "") {
			return usage("give either --queue-id or --message-id: %s", cmd.UseLine())
		}
		q := url.Values{}
		if *queue != "" {
			q.Set("queue_id", *queue)
		} else {
			q.Set("message_id", *message)
		}
		a, err := c.get(cmd, domainPath(args[0], "messages", "explain"), q)
		if err != nil {
			return err
		}
		return c.printAnswer(cmd, a)
	}
	return cmd
}
