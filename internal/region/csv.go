package region

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Bounds of a CSV file. Debian's have 16 MB, in lines of 100 bytes.
const (
	maxCSV  = 64 << 20
	maxLine = 256
)

// readCSV adds the ranges of one family: LOW,HIGH,REGION in ascending order, IPv4 addresses as
// decimal numbers. Lines that begin with # are comments; one may contain the date of the data.
func (b *builder) readCSV(r io.Reader, name string, parse func(string) (netip.Addr, error)) error {
	limited := &io.LimitedReader{R: r, N: maxCSV + 1}
	lines := bufio.NewScanner(limited)
	lines.Buffer(make([]byte, maxLine), maxLine)
	number, before := 0, b.RangesV4+b.RangesV6
	for lines.Scan() {
		number++
		line := lines.Text()
		if line == "" {
			continue
		}
		if line[0] == '#' {
			if date, ok := dated(line); ok && (b.Date.IsZero() || date.Before(b.Date)) { // of the two files the older counts
				b.Date = date
			}
			continue
		}
		if err := b.line(line, parse); err != nil {
			return fmt.Errorf("%s:%d: %w", name, number, err)
		}
	}
	switch err := lines.Err(); {
	case limited.N <= 0:
		return fmt.Errorf("%s: is larger than %d MiB", name, maxCSV>>20)
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d: the line is longer than %d bytes", name, number+1, maxLine)
	case err != nil:
		return fmt.Errorf("%s: %w", name, err)
	case b.RangesV4+b.RangesV6 == before:
		return fmt.Errorf("%s: holds no ranges", name)
	}
	return nil
}

func (b *builder) line(line string, parse func(string) (netip.Addr, error)) error {
	low, rest, _ := strings.Cut(line, ",")
	high, name, ok := strings.Cut(rest, ",")
	if !ok {
		return errors.New("not LOW,HIGH,REGION")
	}
	from, err := parse(low)
	if err != nil {
		return err
	}
	to, err := parse(high)
	if err != nil {
		return err
	}
	code, err := b.code(name)
	if err != nil {
		return err
	}
	return b.add(from, to, code)
}

func parseDecimal(s string) (netip.Addr, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil {
		return netip.Addr{}, errors.New("not an IPv4 address as a decimal number")
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], uint32(n))
	return netip.AddrFrom4(b), nil
}

func parseIPv6(s string) (netip.Addr, error) {
	ip, err := netip.ParseAddr(s)
	if err != nil || !ip.Is6() || ip.Is4In6() || ip.Zone() != "" {
		return netip.Addr{}, errors.New("not an IPv6 address")
	}
	return ip, nil
}

// dated reads the date of the data from the header: "# Generated: Thu, 25 Jun 2026 04:33:59 GMT",
// formerly "# Last updated based on February 7 2018 Maxmind GeoLite2 Country".
func dated(comment string) (time.Time, bool) {
	if text, ok := strings.CutPrefix(comment, "# Generated: "); ok {
		date, err := time.Parse(time.RFC1123, text)
		return date.UTC(), err == nil
	}
	if text, ok := strings.CutPrefix(comment, "# Last updated based on "); ok {
		words := strings.Fields(text)
		date, err := time.Parse("January 2 2006", strings.Join(words[:min(3, len(words))], " "))
		return date, err == nil
	}
	return time.Time{}, false
}
