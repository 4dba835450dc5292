// Command measure compares drawbridge-checkpassword with peer, a static C program that makes the
// same exchange with the daemon, and with a Go program that does nothing, which is the least that a
// Go program can take: time from fork to the program's end, processor time, and peak of memory. It
// needs gcc and the go command, runs the programs in turns, and prints medians and their ratios.
//
//	go run ./contrib/bench/checkpassword/measure [-rounds 1000]
package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

func main() {
	rounds := flag.Int("rounds", 1000, "runs of each program")
	flag.Parse()
	if *rounds < 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := measure(context.Background(), os.Stdout, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// The programs, in the order of their results: base is what the others are compared with.
var programs = []string{base, "empty", "drawbridge-checkpassword"}

const base = "peer"

// A sample is one run.
type sample struct{ wall, cpu, rss float64 }

func measure(ctx context.Context, out io.Writer, rounds int) (err error) {
	dir, err := os.MkdirTemp("", "drawbridge-bench")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if err := build(ctx, dir); err != nil {
		return err
	}
	socket := filepath.Join(dir, "login.sock")
	stop, err := serve(ctx, socket)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()

	samples, err := spawn(ctx, dir, socket, rounds)
	if err != nil {
		return err
	}
	return report(out, samples)
}

// build puts the programs, and spawn, into dir.
func build(ctx context.Context, dir string) error {
	const module = "github.com/drawbridge/drawbridge/"
	source, err := command(ctx, "go", "list", "-f", "{{.Dir}}", module+"contrib/bench/checkpassword/measure")
	if err != nil {
		return err
	}
	for _, name := range []string{base, "spawn"} {
		file := filepath.Join(filepath.Dir(string(bytes.TrimSpace(source))), name+".c")
		if _, err := command(ctx, "gcc", "-O2", "-static", "-s", "-o", filepath.Join(dir, name), file); err != nil {
			return err
		}
	}
	empty := filepath.Join(dir, "empty.go")
	if err := os.WriteFile(empty, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return err
	}
	for name, pkg := range map[string]string{"empty": empty, "drawbridge-checkpassword": module + "cmd/drawbridge-checkpassword"} {
		_, err := command(ctx, "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-buildmode=exe", "-ldflags", "-s -w", "-o", filepath.Join(dir, name), pkg)
		if err != nil {
			return err
		}
	}
	return nil
}

func command(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...) //nolint:gosec // the names are in this file
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", name, err, stderr.Bytes())
	}
	return out, nil
}

// serve stands for the daemon: every login is allowed, at once.
func serve(ctx context.Context, socket string) (stop func() error, err error) {
	var listen net.ListenConfig
	listener, err := listen.Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	const answer = `{"outcome":"allow","reason":"ok","message":"","account":"ann@example.org","client":"third-party","region":"","policy_id":"","credential_id":""}`
	server := &http.Server{
		ReadHeaderTimeout: time.Minute,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, answer)
		}),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	return func() error {
		err := server.Close()
		if serveErr := <-served; !errors.Is(serveErr, http.ErrServerClosed) {
			err = errors.Join(err, serveErr)
		}
		return err
	}, nil
}

// spawn runs all programs in turns and returns their samples by name.
func spawn(ctx context.Context, dir, socket string, rounds int) (map[string][]sample, error) {
	args := []string{strconv.Itoa(rounds), socket}
	for _, name := range programs {
		args = append(args, filepath.Join(dir, name))
	}
	out, err := command(ctx, filepath.Join(dir, "spawn"), args...)
	if err != nil {
		return nil, err
	}
	samples := map[string][]sample{}
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		var index, status int
		var s sample
		if _, err := fmt.Sscan(lines.Text(), &index, &s.wall, &s.cpu, &s.rss, &status); err != nil {
			return nil, fmt.Errorf("reading %q: %w", lines.Text(), err)
		}
		if status != 0 {
			return nil, fmt.Errorf("%s ended with status %d", programs[index], status)
		}
		samples[programs[index]] = append(samples[programs[index]], s)
	}
	return samples, lines.Err()
}

func report(out io.Writer, samples map[string][]sample) error {
	median := func(name string, of func(sample) float64) float64 {
		var values []float64
		for _, s := range samples[name] {
			values = append(values, of(s))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	wall := func(s sample) float64 { return s.wall }
	cpu := func(s sample) float64 { return s.cpu }
	rss := func(s sample) float64 { return s.rss / 1024 }
	table := fmt.Sprintf("%-26s %9s %6s %9s %6s %7s\n", "one login", "median µs", "×", "CPU µs", "×", "RSS MB")
	for _, name := range programs {
		table += fmt.Sprintf("%-26s %9.0f %6.2f %9.0f %6.2f %7.2f\n", name,
			median(name, wall), median(name, wall)/median(base, wall),
			median(name, cpu), median(name, cpu)/median(base, cpu), median(name, rss))
	}
	_, err := io.WriteString(out, table)
	return err
}
