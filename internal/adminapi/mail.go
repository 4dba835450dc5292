package adminapi

import (
	"net/url"

	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func mailRulePath(domain, id string) string {
	return domainPath(domain) + "/mail-rules/" + url.PathEscape(id)
}

// mail returns the mail of the domain in the path.
func (c *call) mail() *mail.Domain { return c.Mail.Of(c.domain) }

func listMailRules(c *call) (*answer, error) { return reported(c.mail().Rules(c.page())) }

func getMailRule(c *call) (*answer, error) { return shown(c.mail().Rule(c.r.PathValue("id"))) }

func createMailRule(c *call) (*answer, error) {
	id := ""
	if named := c.body.Get("id"); named != nil && named.Kind == rest.String {
		id = rest.Unquote(named.Raw)
	}
	res, err := c.mail().CreateRule(c.ctx, id, decoder[api.MailRule](c))
	if err != nil {
		return nil, err
	}
	return created(mailRulePath(c.domain.Name(), res.View.ID), res, nil)
}

func putMailRule(c *call) (*answer, error) {
	id := c.r.PathValue("id")
	res, err := c.mail().PutRule(c.ctx, id, decoder[api.MailRule](c))
	return created(mailRulePath(c.domain.Name(), id), res, err)
}

func patchMailRule(c *call) (*answer, error) {
	return shown(c.mail().PatchRule(c.ctx, c.r.PathValue("id"), patch[api.MailRule](c)))
}

func deleteMailRule(c *call) (*answer, error) {
	return deleted(c.mail().DeleteRule(c.ctx, c.r.PathValue("id")))
}

func testMail(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.MailRuleTest](c, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return reported(c.mail().Test(c.r.PathValue("id"), in, &f))
}

func previewMailRule(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.MailRulePreview](c, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return reported(c.mail().PreviewRule(c.ctx, in, &f))
}

func listGroups(c *call) (*answer, error) { return reported(c.mail().Groups(c.page())) }

func getGroup(c *call) (*answer, error) { return shown(c.Mail.Group(c.account)) }

func putGroup(c *call) (*answer, error) {
	var f api.Faults
	res, err := c.Mail.PutGroup(c.ctx, c.account, decode[api.Group](c, &f), &f)
	return created("/v1/groups/"+url.PathEscape(c.account.Address()), res, err)
}

func deleteGroup(c *call) (*answer, error) { return deleted(c.Mail.DeleteGroup(c.ctx, c.account)) }

func listSuspensions(c *call) (*answer, error) { return reported(c.mail().Suspensions(c.page())) }

func deleteSuspension(c *call) (*answer, error) {
	return deleted(c.mail().Unsuspend(c.ctx, c.r.PathValue("id")))
}

func listMessages(c *call) (*answer, error) {
	return reported(c.logins.Messages(c.ctx, store.MessageQuery{
		Account: c.query.Get("account"), Credential: c.query.Get("credential"), QueueID: c.query.Get("queue_id"), MessageID: c.query.Get("message_id"),
		Verdict: c.query.Get("verdict"), Rule: c.query.Get("rule"), Since: c.time("since"), Until: c.time("until"),
		Limit: c.page().Limit, Cursor: c.page().Cursor,
	}))
}

func explainMessages(c *call) (*answer, error) {
	d, err := c.req.Domain(c.r.PathValue("domain"))
	if err != nil {
		return nil, err
	}
	return reported(c.Mail.Of(d).Explain(c.ctx, c.query.Get("queue_id"), c.query.Get("message_id")))
}
