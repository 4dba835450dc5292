package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// past parses a time, a day, or an age before now.
func past(s string, now time.Time) (time.Time, error) {
	if t, ok := pointInTime(s); ok {
		return t, nil
	}
	if d, ok := howLong(s); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write 2026-01-31T09:30:00Z, a day such as 2026-01-31, or an age such as 90m, 24h or 7d", s)
}

// future parses a time, a day, or a span after now.
func future(s string, now time.Time) (time.Time, error) {
	t, ok := pointInTime(s)
	if !ok {
		d, ok := howLong(s)
		if !ok {
			return time.Time{}, fmt.Errorf("%q is not a time: write 2027-01-31T09:30:00Z, a day such as 2027-01-31, or a span from now such as 24h or 90d", s)
		}
		t = now.Add(d)
	}
	if !t.After(now) {
		return time.Time{}, fmt.Errorf("%q is in the past: give a later time", s)
	}
	return t, nil
}

// pointInTime parses RFC 3339, or a local day.
func pointInTime(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	return t, err == nil
}

// howLong parses a duration of Go's notation, or whole days of 24 hours up to 65535.
func howLong(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}
