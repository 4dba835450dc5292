// Turns runs the benchmarks of two builds in turns, and prints the medians of each figure and their ratio:
// what else the machine does slows both alike.
//
//	make bench BASE=v0.1.0 ROWS='decision internal/store,Check,7x' ROUNDS=5
//
//	internal/store,Check,7x
//	  BenchmarkCheck
//	    ns-check                         1275 →      850   0.67
//
// Its arguments are how many rounds, the directories of the older and of the newer source, which the
// Makefile has built, and rows: a name that drawbridge-bench knows, "exec" for checkpassword's, or the
// package, pattern and time of a Go benchmark. A figure that only one of the builds prints is left out.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) < 4 {
		return errors.New("usage: turns ROUNDS OLDER NEWER ROW …")
	}
	rounds, err := strconv.Atoi(args[0])
	if err != nil || rounds < 1 {
		return fmt.Errorf("%q rounds: write a number from 1", args[0])
	}
	builds := [2]string{args[1], args[2]}
	for _, row := range args[3:] {
		var results [2]results
		for round := range rounds {
			for i := range builds {
				i ^= round & 1 // each goes first in turn
				out, err := measure(ctx, builds[i], row)
				if err != nil {
					return fmt.Errorf("%s of %s: %w", row, builds[i], err)
				}
				results[i].add(out)
			}
		}
		fmt.Printf("%s\n%s", row, compare(&results[0], &results[1]))
	}
	return nil
}

// measure runs a row of a build, and returns what it prints.
func measure(ctx context.Context, source, row string) (string, error) {
	source, err := filepath.Abs(source)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(source, "bin")
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "drawbridge-bench"), row) //nolint:gosec // G204: as the Makefile says
	cmd.Dir = source
	switch parts := strings.Split(row, ","); {
	case row == "exec":
		cmd = exec.CommandContext(ctx, filepath.Join(bin, "drawbridge-bench-exec")) //nolint:gosec // G204: as above
		cmd.Dir = source
	case len(parts) == 3:
		program := filepath.Join(bin, "tests", filepath.Base(parts[0])+".bench")
		cmd = exec.CommandContext(ctx, program, "-test.run", "^$", "-test.bench", parts[1], "-test.benchtime", parts[2]) //nolint:gosec // G204: as above
		cmd.Dir = filepath.Join(source, parts[0])
	}
	cmd.Env = append(os.Environ(), "DRAWBRIDGE_BIN="+bin)
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%w: %.1000s%.1000s", err, said.Bytes(), out)
	}
	return string(out), nil
}

// figure is one number of one line that a benchmark prints.
type figure struct{ line, unit string }

// results are what several rounds printed.
type results struct {
	order  []figure
	values map[figure][]float64
}

// number is a number with what it counts. The number of a Go benchmark's turns has no unit.
var number = regexp.MustCompile(`([0-9]+(?:\.[0-9]+)?)[ \t]?([^\s;:,()]*)`)

// add adds the figures of a round. What a line measures is left of a tab or two blanks, its goal is no
// figure.
func (r *results) add(out string) {
	if r.values == nil {
		r.values = map[figure][]float64{}
	}
	within, seen := "", map[figure]bool{}
	for line := range strings.Lines(out) {
		line, _, _ = strings.Cut(strings.TrimRight(line, "\n"), " goal ")
		if strings.HasSuffix(line, ":") {
			within = line + " " // the lines below are indented
			continue
		}
		what, rest := split(line)
		if strings.HasPrefix(line, "  ") {
			what = within + what
		}
		if strings.HasPrefix(what, "Benchmark") {
			_, rest, _ = strings.Cut(strings.TrimSpace(rest), "\t")
		}
		for i, m := range number.FindAllStringSubmatch(rest, -1) {
			value, err := strconv.ParseFloat(m[1], 64)
			f := figure{what, strings.TrimSpace(fmt.Sprint(i+1, " ", m[2]))}
			if err != nil || seen[f] {
				continue
			}
			seen[f] = true
			if r.values[f] == nil {
				r.order = append(r.order, f)
			}
			r.values[f] = append(r.values[f], value)
		}
	}
}

// split returns what a line measures, and its figures.
func split(line string) (what, figures string) {
	line = strings.TrimSpace(line)
	end := strings.IndexByte(line, '\t')
	if blanks := strings.Index(line, "  "); end < 0 || blanks >= 0 && blanks < end {
		end = blanks
	}
	if end < 0 {
		return "", ""
	}
	return line[:end], line[end:]
}

// compare prints the medians of both and their ratio.
func compare(older, newer *results) string {
	var b strings.Builder
	last := ""
	for _, f := range newer.order {
		if older.values[f] == nil {
			continue
		}
		if f.line != last {
			fmt.Fprintf(&b, "  %s\n", f.line)
			last = f.line
		}
		was, is := median(older.values[f]), median(newer.values[f])
		ratio := "–"
		if was != 0 {
			ratio = strconv.FormatFloat(is/was, 'f', 2, 64)
		}
		fmt.Fprintf(&b, "    %-24s %12g → %12g %6s\n", f.unit, was, is, ratio)
	}
	return b.String()
}

func median(list []float64) float64 {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}
