// Bench prints how fast Drawbridge is, as ratios against a peer that does nothing, measured in
// turns in one run: a busy machine slows both alike.
//
//	make bench
//
// Figures are medians of [rounds] rounds. README.md in this directory holds those that were
// measured, with the machine.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"time"
)

// rounds is how often each side of a comparison is measured.
const rounds = 7

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// benches in the order in which they are printed.
var benches = []struct {
	name string
	run  func(context.Context) error
}{
	{"decision", benchDecision},
	{"scale", benchScale},
	{"policyd", benchPolicyd},
	{"change", benchChange},
	{"followers", benchFollowers},
	{"million", benchMillion},
	{"batch", benchBatch},
	{"logins", benchLogins},
	{"submissions", benchSubmissions},
	{"preview", benchPreview},
	{"content", benchContent},
}

func run(ctx context.Context, args []string) error {
	if len(args) > 2 && args[0] == "serve" {
		if err := serve(ctx, args[1], args[2:]...); ctx.Err() == nil {
			return err
		}
		return nil // asked to end
	}
	for _, b := range benches {
		if len(args) > 0 && !slices.Contains(args, b.name) {
			continue
		}
		if err := b.run(ctx); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return ctx.Err()
}

// line prints one result.
func line(what, figure, goal string) {
	fmt.Printf("%-70s %-26s goal %s\n", what, figure, goal)
}

func median[T ~int64 | ~float64](list []T) T {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[len(list)/2]
}

func percentile(list []time.Duration, p float64) time.Duration {
	list = slices.Clone(list)
	slices.Sort(list)
	return list[min(len(list)-1, int(p*float64(len(list))))]
}
