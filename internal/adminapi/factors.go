package adminapi

import (
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *call) factors() *factors.Owned { return c.Factors.Of(c.account) }

func listFactors(c *call) (*answer, error) { return reported(c.factors().List()) }

func (c *call) createdFactor(res *admin.Result[api.CreatedFactor], err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	ans, err := created(accountPath(c.account.Address())+"/second-factors/"+res.View.ID, res, nil)
	ans.wipe = res.View.Secret
	return ans, err
}

func createTOTP(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewFactor](c, &f)
	return c.createdFactor(c.factors().CreateTOTP(c.ctx, in, &f))
}

func createPasskey(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewFactor](c, &f)
	return c.createdFactor(c.factors().CreatePasskey(c.ctx, in, &f))
}

func createRecoveryCodes(c *call) (*answer, error) {
	return c.createdFactor(c.factors().CreateRecoveryCodes(c.ctx))
}

func createMailFactor(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewFactor](c, &f)
	return c.createdFactor(c.factors().CreateMail(c.ctx, in, &f))
}

func createSMSFactor(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewFactor](c, &f)
	return c.createdFactor(c.factors().CreateSMS(c.ctx, in, &f))
}

func confirmFactor(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.FactorProof](c, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return shown(c.factors().Confirm(c.ctx, c.r.PathValue("id"), in))
}

func sendCode(c *call) (*answer, error) {
	return reported(c.factors().SendCode(c.ctx, c.r.PathValue("id")))
}

func challengePasskey(c *call) (*answer, error) { return reported(c.factors().Challenge(c.ctx)) }

func answerPasskey(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.PasskeyProof](c, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return reported(c.factors().Answer(c.ctx, in.ID, in.Credential))
}

func deleteFactor(c *call) (*answer, error) {
	return deleted(c.factors().Delete(c.ctx, c.r.PathValue("id")))
}

func resetFactors(c *call) (*answer, error) { return deleted(c.factors().Reset(c.ctx)) }
