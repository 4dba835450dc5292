package console

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// charted is the number of records that a chart of days counts, the newest ones.
const charted = 100_000

// chart counts logins by time, outcome and region.
type chart struct {
	From, Until time.Time
	Bars        []bar
	Most        int // logins of the highest bar
	Counted     int
	Regions     []regionCount
	region      map[string]int // in Regions
}

// bar is one period, with the place and heights of its parts in per cent.
type bar struct {
	From                          time.Time
	X                             int
	Allow, Deny, Next             int // logins
	AllowHigh, DenyHigh, NextHigh int
	AllowAt, DenyAt, NextAt       int
}

// regionCount is the logins of a region, with the widths of its bar in per cent.
type regionCount struct {
	Region                   string // "" for none
	Logins, Refused          int
	AllowedWide, RefusedWide int
}

// newChart returns a chart with n bars.
func newChart(from, until time.Time, n int) *chart {
	c := &chart{From: from, Until: until, Bars: make([]bar, n), region: map[string]int{}}
	for i := range c.Bars {
		c.Bars[i].X, c.Bars[i].From = i*10, from.Add(c.span()*time.Duration(i)/time.Duration(n))
	}
	return c
}

func (c *chart) span() time.Duration { return max(c.Until.Sub(c.From), time.Minute) }

// Wide is the width of the drawing, with ten units for a bar.
func (c *chart) Wide() int { return 10 * len(c.Bars) }

func (c *chart) add(r *api.LoginRecord) {
	c.Counted++
	n := int64(len(c.Bars))
	b := &c.Bars[min(max(int64(r.Time.Sub(c.From))/max(int64(c.span())/n, 1), 0), n-1)]
	i, known := c.region[r.Region]
	if !known {
		i = len(c.Regions)
		c.region[r.Region], c.Regions = i, append(c.Regions, regionCount{Region: r.Region})
	}
	c.Regions[i].Logins++
	switch r.Outcome.String() {
	case "allow":
		b.Allow++
	case "next":
		b.Next++
	default:
		b.Deny++
		c.Regions[i].Refused++
	}
}

// scale computes the sizes of the bars, and sorts the regions: most logins first.
func (c *chart) scale() {
	c.Most = 1
	for i := range c.Bars {
		b := &c.Bars[i]
		c.Most = max(c.Most, b.Allow+b.Deny+b.Next)
	}
	for i := range c.Bars {
		b := &c.Bars[i]
		b.AllowHigh, b.DenyHigh, b.NextHigh = b.Allow*100/c.Most, b.Deny*100/c.Most, b.Next*100/c.Most
		b.AllowAt = 100 - b.AllowHigh
		b.NextAt = b.AllowAt - b.NextHigh
		b.DenyAt = b.NextAt - b.DenyHigh
	}
	slices.SortFunc(c.Regions, func(a, b regionCount) int {
		return cmp.Or(b.Logins-a.Logins, cmp.Compare(a.Region, b.Region))
	})
	for i := range c.Regions {
		r := &c.Regions[i]
		r.RefusedWide = r.Refused * 100 / c.Regions[0].Logins
		r.AllowedWide = (r.Logins - r.Refused) * 100 / c.Regions[0].Logins
	}
}

type chartData struct {
	Days  int
	Chart *chart
	All   bool // of the period; otherwise the newest [charted]
}

// chartPage counts the logins of some days.
func (v *visit) chartPage() error {
	d, logins, err := v.loginsOf(admin.Options{})
	if err != nil {
		return err
	}
	data, bars := chartData{Days: 7}, 28
	switch v.R.URL.Query().Get("days") {
	case "1":
		data.Days, bars = 1, 24
	case "30":
		data.Days, bars = 30, 30
	}
	since := v.Now.UTC().AddDate(0, 0, -data.Days)
	data.Chart = newChart(since, v.Now.UTC(), bars)
	q := store.RecordQuery{Since: since, Limit: 1000}
	for {
		list, err := logins.List(v.R.Context(), q)
		if err != nil {
			return err
		}
		for i := range list.Items {
			data.Chart.add(&list.Items[i])
		}
		data.All, q.Cursor = list.Next == "", list.Next
		if data.All || data.Chart.Counted >= charted {
			break
		}
	}
	data.Chart.scale()
	title := "Logins of the last 24 hours"
	if data.Days > 1 {
		title = "Logins of the last " + strconv.Itoa(data.Days) + " days"
	}
	return v.show("chart", "logins", title, line("logins", d.Name(), "--since", since.Format(time.RFC3339), "--limit", "0"), data)
}
