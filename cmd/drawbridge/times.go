package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// past reads a time, a day, or how long before now it was.
func past(s string, now time.Time) (time.Time, error) {
	if t, ok := pointInTime(s); ok {
		return t, nil
	}
	if d, ok := howLong(s); ok {
		return now.Add(-d), nil
	}
	return time.Time{}, fmt.Errorf("%q is no time: write one like 2026-01-31T09:30:00Z, a day like 2026-01-31, or how long ago: 90m, 24h, 7d", s)
}

// future reads a time, a day, or how long after now it is.
func future(s string, now time.Time) (time.Time, error) {
	t, ok := pointInTime(s)
	if !ok {
		d, ok := howLong(s)
		if !ok {
			return time.Time{}, fmt.Errorf("%q is no time: write one like 2027-01-31T09:30:00Z, a day like 2027-01-31, or after how long: 24h, 90d", s)
		}
		t = now.Add(d)
	}
	if !t.After(now) {
		return time.Time{}, fmt.Errorf("%q has passed: give a later time", s)
	}
	return t, nil
}

// pointInTime reads RFC 3339, or a local day.
func pointInTime(s string) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, true
	}
	t, err := time.ParseInLocation(time.DateOnly, s, time.Local)
	return t, err == nil
}

// howLong reads a duration of Go's notation, or whole days of 24 hours up to 65535.
func howLong(s string) (time.Duration, bool) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 16)
		return time.Duration(n) * 24 * time.Hour, err == nil
	}
	d, err := time.ParseDuration(s)
	return d, err == nil && d >= 0
}
