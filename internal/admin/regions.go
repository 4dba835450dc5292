package admin

import (
	"cmp"
	"context"
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

// noRegions says what to do without a region database.
const noRegions = "the daemon has no region database: install tor-geoipdb, or name a database in the setting regions.database"

// RegionStatus describes the databases of regions and of networks. Role domain sees neither file names nor other
// domains.
func (r *Request) RegionStatus() (*api.RegionStatus, error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	s := &api.RegionStatus{AddressDatabase: r.database(r.Regions), Domains: list(r.Store.State.NamingRegions())}
	if networks := r.database(r.Networks); networks.Kind != "none" {
		s.Networks = &networks
	}
	if r.Caller.Role == store.RoleDomain {
		s.Domains = slices.DeleteFunc(s.Domains, func(name string) bool { return name != r.Caller.Domain })
	}
	return s, nil
}

// database describes a database, for role domain without file names.
func (r *Request) database(of *region.Source) api.AddressDatabase {
	s := api.AddressDatabase{Kind: "none", Paths: []string{}}
	if db := of.Database(); db != nil {
		s.Kind, s.Paths, s.V4, s.V6 = db.Kind, db.Paths, db.RangesV4, db.RangesV6
		s.Date, s.LoadedAt, s.Missing = db.Date, db.ReadAt, db.Missing()
		s.AgeDays = max(0, int(r.Time.Sub(db.Date)/(24*time.Hour)))
	}
	if err := of.Fault(); err != nil {
		s.Error = err.Error()
	}
	if r.Caller.Role == store.RoleDomain {
		s.Paths = []string{}
		if s.Error != "" {
			s.Error = "the present database could not be read; the daemon's log says why"
		}
	}
	return s
}

// RegionCodes returns one page of the regions that policies can select, by code.
func (r *Request) RegionCodes(p Page) (*api.List[api.Region], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	all := []api.Region{}
	for _, country := range append(region.Countries(), region.Wider()...) {
		all = append(all, api.Region{Region: country.Code, Name: country.Name})
	}
	for _, code := range r.Regions.Database().Codes() {
		if region.Name(code) == "" {
			all = append(all, api.Region{Region: code, Name: ""})
		}
	}
	slices.SortFunc(all, func(a, b api.Region) int { return cmp.Compare(a.Region, b.Region) })
	items := slices.DeleteFunc(all, func(v api.Region) bool { return v.Region <= after })
	return firstPage(p, items, func(v api.Region) string { return v.Region }), nil
}

// RegionOf returns the region of an IP address.
func (r *Request) RegionOf(ip string) (*api.AddressRegion, error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	parsed, err := address.ParseIP(ip)
	if err != nil {
		var f api.Faults
		f.Parameter("ip", "invalid_network", "%v", err)
		return nil, f.Err()
	}
	code := r.Regions.Lookup(parsed)
	if code == access.RegionNoDatabase {
		return nil, api.Conflict("regions_unavailable", "%s", noRegions)
	}
	return &api.AddressRegion{IP: parsed.String(), Region: api.Region{Region: code, Name: region.Name(code)}}, nil
}

// policyRegions reads the regions of a policy. Regions that it already had are kept.
func (r *Request) policyRegions(in, had []string, pointer string, f *api.Faults) []string {
	regions := []string{}
	for i, text := range in {
		code, at := strings.ToUpper(text), api.At(pointer, i)
		switch meant := region.Meant(text); {
		case slices.Contains(regions, code):
			continue
		case slices.Contains(had, code):
		case strings.EqualFold(text, access.RegionUnknown):
			f.Add(at, "unknown_region", "means an unknown region and matches nothing; a whitelist refuses such addresses anyway: leave it out")
		case meant != "":
			f.Add(at, "unknown_region", "is not the code of a region: did you mean %s?", meant)
		case region.Name(code) == "" && !r.Regions.Database().Holds(code):
			f.Add(at, "unknown_region", "is not the code of a region: name a country by two letters, e.g. DE")
		case r.Regions.Database() == nil:
			f.Add(at, "regions_unavailable", "%s; or name the addresses in ips", noRegions)
		}
		regions = append(regions, code)
	}
	return regions
}

// recentLogins is how many of the newest login records of a domain a warning considers.
const recentLogins = 1000

// regionWarning reports which share of the domain's recent logins came from public addresses
// without a country, which a whitelist of countries refuses. If the records cannot be read, there
// is no warning.
func (d *Domain) regionWarning(ctx context.Context, p *store.Policy) []api.Warning {
	if p.Type != access.Whitelist || len(p.Regions) == 0 {
		return nil
	}
	records, _, err := d.Journal.Records(ctx, store.RecordQuery{Domain: d.name, Limit: recentLogins})
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
