package adminapi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/store"
)

// wantRegions says what to do where there is no database of regions.
const wantRegions = "the daemon has no database of regions: install tor-geoipdb, or name a database in the setting regions.database"

func getRegions(c *call) (*answer, error) {
	s := api.RegionStatus{Kind: "none", Paths: []string{}, Domains: list(c.Store.State.NamingRegions())}
	if d := c.Regions.Database(); d != nil {
		s.Kind, s.Paths, s.V4, s.V6 = d.Kind, d.Paths, d.RangesV4, d.RangesV6
		s.Date, s.LoadedAt, s.Missing = d.Date, d.ReadAt, d.Missing()
		s.AgeDays = max(0, int(c.now.Sub(d.Date)/(24*time.Hour)))
	}
	if err := c.Regions.Fault(); err != nil {
		s.Error = err.Error()
	}
	if c.id.role == store.RoleDomain { // where the site keeps its files, and who else is here, is not theirs to know
		s.Paths = []string{}
		if s.Error != "" {
			s.Error = "the database that is there now could not be read; the daemon's log says why"
		}
		s.Domains = slices.DeleteFunc(s.Domains, func(name string) bool { return name != c.id.domain })
	}
	return &answer{body: s}, nil
}

func listRegions(c *call) (*answer, error) {
	after, err := c.after()
	if err != nil {
		return nil, err
	}
	all := []api.Region{}
	for _, country := range append(region.Countries(), region.Wider()...) {
		all = append(all, api.Region{Region: country.Code, Name: country.Name})
	}
	for _, code := range c.Regions.Database().Codes() {
		if region.Name(code) == "" {
			all = append(all, api.Region{Region: code, Name: ""})
		}
	}
	slices.SortFunc(all, func(a, b api.Region) int { return cmp.Compare(a.Region, b.Region) })
	items := slices.DeleteFunc(all, func(r api.Region) bool { return r.Region <= after })
	return &answer{body: paged(items, c.limit(), func(r api.Region) string { return r.Region })}, nil
}

func getRegion(c *call) (*answer, error) {
	ip, err := address.ParseIP(c.r.PathValue("ip"))
	if err != nil {
		var f api.Faults
		f.Parameter("ip", "invalid_network", "%v", err)
		return nil, f.Err()
	}
	code := c.Regions.Lookup(ip)
	if code == access.RegionNoDatabase {
		return nil, api.Conflict("regions_unavailable", "%s", wantRegions)
	}
	return &answer{body: api.AddressRegion{IP: ip.String(), Region: api.Region{Region: code, Name: region.Name(code)}}}, nil
}

// policyRegions reads the regions of a policy. Those that it had already may stay.
func (c *call) policyRegions(in, had []string, pointer string, f *api.Faults) []string {
	regions := []string{}
	for i, text := range in {
		code, at := strings.ToUpper(text), api.At(pointer, i)
		switch meant := region.Meant(text); {
		case slices.Contains(regions, code):
			continue
		case slices.Contains(had, code):
		case strings.EqualFold(text, access.RegionUnknown):
			f.Add(at, "unknown_region", "stands for addresses whose region nobody knows, and would match nothing; a whitelist refuses them anyway: leave it out")
		case meant != "":
			f.Add(at, "unknown_region", "is not the code of a region: did you mean %s?", meant)
		case region.Name(code) == "" && !c.Regions.Database().Holds(code):
			f.Add(at, "unknown_region", "is not the code of a region: name a country by two letters, as GET /v1/regions/codes lists them")
		case c.Regions.Database() == nil:
			f.Add(at, "regions_unavailable", "%s; or name the addresses in ips", wantRegions)
		}
		regions = append(regions, code)
	}
	return regions
}

// recentLogins is how many of the newest login records a warning about regions looks at.
const recentLogins = 1000

// regionWarning reports which share of the domain's recent logins came from public addresses
// without a country, which a whitelist of countries refuses. A store that does not answer gives no
// warning.
func (c *call) regionWarning(p *store.Policy) []api.Warning {
	if p.Type != access.Whitelist || len(p.Regions) == 0 {
		return nil
	}
	records, _, err := c.Journal.Records(c.ctx, store.RecordQuery{Domain: c.domain, Limit: recentLogins})
	if err != nil {
		return nil
	}
	outside := 0
	for i := range records {
		code := records[i].Region
		wider := slices.ContainsFunc(region.Wider(), func(w region.Country) bool { return w.Code == code })
		if (code == access.RegionUnknown || wider) && !slices.Contains(p.Regions, code) {
			outside++
		}
	}
	if outside == 0 {
		return nil
	}
	return []api.Warning{{
		Code: "regions_without_country", Detail: fmt.Sprintf("%d of the domain's %d most recent logins came from addresses without a country (unknown, EU, AP, ZZ), which the policy does not admit. "+
			"Name EU, AP or ZZ in regions, or their addresses in ips, to admit them.", outside, len(records)),
	}}
}
