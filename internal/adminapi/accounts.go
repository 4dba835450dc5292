package adminapi

import (
	"net/url"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func accountPath(address string) string { return "/v1/accounts/" + url.PathEscape(address) }

func listAccounts(c *call) (*answer, error) { return reported(c.domain.Accounts(c.page())) }

func getAccount(c *call) (*answer, error) { return shown(c.account.Record()) }

func putAccount(c *call) (*answer, error) {
	res, err := c.account.Put(c.ctx, func(cur *api.Account, f *api.Faults) (*api.Account, error) {
		if cur != nil && cur.Suspended && !rest.Present(c.body.Get("suspended")) && !c.req.Confirm {
			return nil, api.Conflict("confirm_required", "the account is suspended, and the new record does not say suspended, which would lift the suspension: send it").OrRepeat("confirm=true")
		}
		return decode[api.Account](c, f), nil
	})
	return created(accountPath(c.account.Address()), res, err)
}

func patchAccount(c *call) (*answer, error) {
	if c.req.Caller.Role == store.RoleSelf {
		for _, f := range c.body.Fields {
			if f.Name != "secure_passwords" { // even if it is as before
				return nil, api.Forbidden("a key of role self may change secure_passwords only")
			}
		}
	}
	res, err := c.account.Patch(c.ctx, patchOfAccount(c, c.body))
	return created(accountPath(c.account.Address()), res, err)
}

// patchOfAccount is a merge patch of an account. A preset replaces the present switches, but not
// those in the same patch.
func patchOfAccount(c *call, with *rest.Node) func(*api.Account, *api.Faults) (*api.Account, error) {
	return func(cur *api.Account, f *api.Faults) (*api.Account, error) {
		in, err := rest.Patch(c.schemas, cur, with, f)
		if err != nil || in.Preset == "" {
			return in, err
		}
		sent := rest.Decode[api.Account](c.schemas, with, &api.Faults{}).Protocols
		in.Protocols.IMAP, in.Protocols.POP3, in.Protocols.SMTP = sent.IMAP, sent.POP3, sent.SMTP
		return in, nil
	}
}

func deleteAccount(c *call) (*answer, error) { return deleted(c.account.Delete(c.ctx)) }

func getEffective(c *call) (*answer, error) { return reported(c.account.Effective()) }

func putMailboxPassword(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.MailboxPassword](c, &f)
	defer clear(in.Password)
	return shown(c.account.SetMailboxPassword(c.ctx, in, &f))
}

func listSecurePasswords(c *call) (*answer, error) {
	return reported(c.account.SecurePasswords(c.ctx, c.page()))
}

func getSecurePassword(c *call) (*answer, error) {
	return shown(c.account.SecurePassword(c.ctx, c.r.PathValue("id")))
}

func createSecurePassword(c *call) (*answer, error) {
	var f api.Faults
	if c.body.Get("secret") != nil {
		f.Add("/secret", "unknown_field", "secure passwords are generated, never chosen: leave it out")
	}
	in := decode[api.NewSecurePassword](c, &f)
	res, err := c.account.CreateSecurePassword(c.ctx, in, &f)
	if err != nil {
		return nil, err
	}
	ans, err := created(accountPath(c.account.Address())+"/secure-passwords/"+res.View.ID, res, nil)
	ans.wipe = res.View.Secret
	return ans, err
}

func patchSecurePassword(c *call) (*answer, error) {
	return shown(c.account.PatchSecurePassword(c.ctx, c.r.PathValue("id"), patch[api.SecurePassword](c)))
}

func deleteSecurePassword(c *call) (*answer, error) {
	return deleted(c.account.RevokeSecurePassword(c.ctx, c.r.PathValue("id")))
}
