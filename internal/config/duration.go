package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// parseDuration is time.ParseDuration with whole days in front: "90d", "1d12h". A day has 24 hours.
func parseDuration(text string) (time.Duration, error) {
	days, rest, ok := strings.Cut(text, "d")
	if !ok {
		return time.ParseDuration(text)
	}
	n, err := strconv.ParseUint(days, 10, 31)
	if err != nil {
		return 0, errors.New("days are a whole number")
	}
	var d time.Duration
	if rest != "" {
		if d, err = time.ParseDuration(rest); err != nil {
			return 0, err
		}
	}
	if d < 0 || int64(n) > (math.MaxInt64-int64(d))/int64(day) {
		return 0, errors.New("out of range")
	}
	return time.Duration(n)*day + d, nil
}

// formatDuration prints what parseDuration reads back, without the zero units of time.Duration:
// "90d", "24h", "15m".
func formatDuration(d time.Duration) string {
	if d >= 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
