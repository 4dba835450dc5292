package adminapi

import (
	"net/url"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
)

func listClientTypes(c *call) (*answer, error) { return reported(c.req.ClientTypes(c.page())) }

func getClientType(c *call) (*answer, error) {
	return shown(c.req.ClientType(c.r.PathValue("type")))
}

func putClientType(c *call) (*answer, error) {
	var f api.Faults
	name := c.r.PathValue("type")
	in := decode[api.ClientType](c, &f)
	res, err := c.req.PutClientType(c.ctx, name, in, &f)
	return created("/v1/client-types/"+url.PathEscape(name), res, err)
}

func deleteClientType(c *call) (*answer, error) {
	return deleted(c.req.DeleteClientType(c.ctx, c.r.PathValue("type")))
}

func listKeys(c *call) (*answer, error) { return reported(c.req.Keys(c.ctx, c.page())) }

func createKey(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewKey](c, &f)
	res, err := c.req.CreateKey(c.ctx, in, &f)
	if err != nil {
		return nil, err
	}
	ans, err := created("/v1/keys/"+res.View.ID, res, nil)
	ans.wipe = res.View.Secret
	return ans, err
}

func deleteKey(c *call) (*answer, error) { return deleted(c.req.RevokeKey(c.ctx, c.r.PathValue("id"))) }

func getRegions(c *call) (*answer, error) { return reported(c.req.RegionStatus()) }

func listRegions(c *call) (*answer, error) { return reported(c.req.RegionCodes(c.page())) }

func getRegion(c *call) (*answer, error) { return reported(c.req.RegionOf(c.r.PathValue("ip"))) }

func getStore(c *call) (*answer, error) { return reported(c.req.StoreStatus()) }

func adoptStore(c *call) (*answer, error) { return reported(c.req.AdoptStore(c.ctx)) }

// backupStore streams the documents to a client that accepts lines; others get their number.
func backupStore(c *call) (*answer, error) {
	if err := c.caller.May(admin.ForAdmin); err != nil {
		return nil, err
	}
	return streamed(c, c.req.Backup)
}

func restoreStore(c *call) (*answer, error) {
	var f api.Faults
	return reported(c.req.Restore(c.ctx, decode[api.StoreRestore](c, &f), &f))
}

func repairStore(c *call) (*answer, error) { return reported(c.req.RepairStore(c.ctx)) }
