package adminapi

import (
	"context"
	"net/url"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

func policyPath(domain, id string) string {
	return domainPath(domain) + "/policies/" + url.PathEscape(id)
}

func listPolicies(c *call) (*answer, error) { return reported(c.domain.Policies(c.page())) }

func getPolicy(c *call) (*answer, error) { return shown(c.domain.Policy(c.r.PathValue("id"))) }

func createPolicy(c *call) (*answer, error) {
	id := ""
	if named := c.body.Get("id"); named != nil && named.Kind == rest.String {
		id = rest.Unquote(named.Raw)
	}
	res, err := c.domain.CreatePolicy(c.ctx, id, decoder[api.Policy](c))
	if err != nil {
		return nil, err
	}
	return created(policyPath(c.domain.Name(), res.View.ID), res, nil)
}

func putPolicy(c *call) (*answer, error) {
	id := c.r.PathValue("id")
	res, err := c.domain.PutPolicy(c.ctx, id, decoder[api.Policy](c))
	return created(policyPath(c.domain.Name(), id), res, err)
}

func patchPolicy(c *call) (*answer, error) {
	return shown(c.domain.PatchPolicy(c.ctx, c.r.PathValue("id"), patch[api.Policy](c)))
}

func deletePolicy(c *call) (*answer, error) {
	return deleted(c.domain.DeletePolicy(c.ctx, c.r.PathValue("id")))
}

func migratePolicies(c *call) (*answer, error) {
	res, err := c.domain.MigratePolicies(c.ctx, decoder[api.Migration](c))
	if err != nil {
		return nil, err
	}
	return &answer{body: &res.View, pending: res.Pending}, nil
}

func testPolicy(c *call) (*answer, error) { return tryPolicy(c, "") }

func testStoredPolicy(c *call) (*answer, error) { return tryPolicy(c, c.r.PathValue("id")) }

// tryPolicy evaluates a hypothetical login: with the stored policy of an id, "" for none, and with
// the draft in the body, if there is one.
func tryPolicy(c *call, id string) (*answer, error) {
	var f api.Faults
	if login := c.body.Get("login"); login != nil && login.Kind == rest.Object {
		for _, name := range []string{"secret", "secret_b64"} {
			if login.Get(name) != nil {
				f.Add("/login/"+name, "unknown_field", "a test takes no secret: name a secure password by credential_id, or leave both out for a verified mailbox password")
			}
		}
	}
	in := decode[api.PolicyTest](c, &f)
	return reported(c.TestPolicy(c.domain, id, in, &f))
}

func previewPolicy(c *call) (*answer, error) {
	var f api.Faults
	preview, err := c.domain.PreviewPolicy(decode[api.PolicyPreview](c, &f), &f)
	if err != nil {
		return nil, err
	}
	return c.long(func(ctx context.Context, report rest.Progress) (any, error) {
		return preview(ctx, func(p api.PreviewProgress) error { return report(p) })
	})
}

func listBlocks(c *call) (*answer, error) { return reported(c.domain.IPBlocks(c.page())) }

func createBlock(c *call) (*answer, error) {
	var f api.Faults
	return shown(c.domain.CreateIPBlock(c.ctx, decode[api.IPBlock](c, &f), &f))
}

func deleteBlock(c *call) (*answer, error) {
	return deleted(c.domain.DeleteIPBlock(c.ctx, c.r.PathValue("id")))
}

func revertPath(domain, id string) string {
	return domainPath(domain) + "/reverts/" + url.PathEscape(id)
}

func listReverts(c *call) (*answer, error) { return reported(c.domain.Reverts(c.page())) }

func getRevert(c *call) (*answer, error) { return shown(c.domain.Revert(c.r.PathValue("id"))) }

func confirmRevert(c *call) (*answer, error) {
	return reported(c.domain.ConfirmRevert(c.ctx, c.r.PathValue("id")))
}
