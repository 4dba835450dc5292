package adminapi

import (
	"net/url"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin/document"
	"github.com/drawbridge/drawbridge/internal/api"
)

func domainPath(name string) string { return "/v1/domains/" + url.PathEscape(name) }

func listDomains(c *call) (*answer, error) { return reported(c.req.Domains(c.page())) }

func createDomain(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.NewDomain](c, &f)
	res, err := c.req.CreateDomain(c.ctx, in, &f)
	if err != nil {
		return nil, err
	}
	return created(domainPath(res.View.Name), res, nil)
}

func getDomain(c *call) (*answer, error) { return shown(c.domain.Settings()) }

func patchDomain(c *call) (*answer, error) { return shown(c.domain.Patch(c.ctx, patch[api.Domain](c))) }

func deleteDomain(c *call) (*answer, error) { return deleted(c.domain.Delete(c.ctx)) }

func exportDomain(c *call) (*answer, error) {
	doc, err := document.Export(c.domain, c.query.Get("accounts") != "false")
	if err != nil {
		return nil, err
	}
	return &answer{tag: doc.Revision, body: doc}, nil
}

func applyDomain(c *call) (*answer, error) {
	var f api.Faults
	plan, err := document.Apply(c.ctx, c.domain, decode[api.DomainDocument](c, &f), &f)
	if err != nil {
		return nil, err
	}
	return &answer{tag: plan.Revision, body: plan, pending: plan.Pending}, nil
}

func getThirdParty(c *call) (*answer, error) { return shown(c.domain.ThirdPartyAccess()) }

func putThirdParty(c *call) (*answer, error) {
	var f api.Faults
	return shown(c.domain.PutThirdPartyAccess(c.ctx, decode[api.ThirdPartyAccess](c, &f), &f))
}

func getSecurePolicy(c *call) (*answer, error) { return shown(c.domain.SecurePasswordPolicy()) }

func putSecurePolicy(c *call) (*answer, error) {
	return shown(c.domain.PutSecurePasswordPolicy(c.ctx, decoder[api.SecurePasswordPolicy](c)))
}

func departmentPath(domain, path string) string {
	parts := strings.Split(path, "/")
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	return domainPath(domain) + "/departments/" + strings.Join(parts, "/")
}

func listDepartments(c *call) (*answer, error) { return reported(c.domain.Departments(c.page())) }

func getDepartment(c *call) (*answer, error) {
	return shown(c.domain.Department(c.r.PathValue("path")))
}

func putDepartment(c *call) (*answer, error) {
	var f api.Faults
	path := c.r.PathValue("path")
	res, err := c.domain.PutDepartment(c.ctx, path, decode[api.Department](c, &f), &f)
	return created(departmentPath(c.domain.Name(), path), res, err)
}

func patchDepartment(c *call) (*answer, error) {
	path := c.r.PathValue("path")
	res, err := c.domain.PatchDepartment(c.ctx, path, patch[api.Department](c))
	ans, err := shown(res, err)
	if err == nil && res.View.Path != path {
		ans.location = departmentPath(c.domain.Name(), res.View.Path)
	}
	return ans, err
}

func deleteDepartment(c *call) (*answer, error) {
	return deleted(c.domain.DeleteDepartment(c.ctx, c.r.PathValue("path")))
}

func getEnforcementProgress(c *call) (*answer, error) {
	return reported(c.domain.EnforcementProgress(c.ctx))
}
