package habit

import (
	"cmp"
	"fmt"
	"math"
	"net/netip"
	"time"
)

// Place is where an address is, and within how many km it is certain; 0 if the database does not say.
type Place struct {
	Latitude, Longitude float64
	Radius              float64
}

// earth is its radius in km.
const earth = 6371

// apart returns the distance of two places in km, on a great circle.
func apart(a, b Place) float64 {
	rad := func(degrees float64) float64 { return degrees * math.Pi / 180 }
	sin2 := func(x float64) float64 { return math.Pow(math.Sin(x/2), 2) }
	h := sin2(rad(b.Latitude-a.Latitude)) + math.Cos(rad(a.Latitude))*math.Cos(rad(b.Latitude))*sin2(rad(b.Longitude-a.Longitude))
	return 2 * earth * math.Asin(math.Sqrt(min(1, h)))
}

// travel says how a login came too soon after the one before, and how that may be explained; "" if it
// did not. Where the places are known, the distance counts that is left if both are as near as they
// may be; else two countries within an hour do.
func (m *Memory) travel(l *Login, locate func(netip.Addr) (Place, bool)) string {
	took := max(0, l.Time.Sub(m.last.Time))
	from, to := m.last.Region, l.Region
	if locate != nil {
		a, knownA := locate(m.last.IP)
		b, knownB := locate(l.IP)
		if knownA && knownB {
			distance := apart(a, b)
			least := max(0, distance-a.Radius-b.Radius)
			speed := least / max(took, time.Minute).Hours()
			if least < tooFar || speed < tooFast {
				return ""
			}
			certain := fmt.Sprintf("at least %.0f km, as exact as the database says it is", least)
			if a.Radius == 0 || b.Radius == 0 {
				certain = "the database does not say how exact that is"
			}
			return fmt.Sprintf("%s, about %.0f km away (%s), which would be %.0f km/h: a VPN, a relay of the mobile network or an inexact database may explain it",
				route(from, to, took), distance, certain, speed)
		}
	}
	if from == "" || to == "" || from == to || took >= tooQuick {
		return ""
	}
	return route(from, to, took) + ", how far away is not known: two countries may be near, and a VPN, a relay of the mobile network or an inexact region database may explain it"
}

func route(from, to string, took time.Duration) string {
	named := func(region string) string { return cmp.Or(region, "an unknown country") }
	return fmt.Sprintf("from %s %d minutes after %s", named(to), int(took.Minutes()), named(from))
}
