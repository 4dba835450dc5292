// Drawbridge-trial runs the trial stack: a private Dovecot, Postfix and drawbridged on loopback,
// with a demo domain. "make run" builds and starts it.
//
//	drawbridge-trial -bin DIR [-dir DIR] [-port-offset N]
//
// It runs as root, in the foreground, until Ctrl-C or SIGTERM, and keeps its data in -dir for the
// next run. The default is ./run, or /var/lib/drawbridge-trial if the servers' users cannot reach
// ./run, as in most home directories.
//
// Exit status: 0 after Ctrl-C or SIGTERM, 1 if a server did not start, ended by itself or ended
// with a fault, 64 for wrong arguments.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/drawbridge/drawbridge/internal/trialstack"
	"github.com/drawbridge/drawbridge/internal/trialstack/demo"
)

func main() { os.Exit(run()) }

func run() int {
	flags := flag.NewFlagSet("drawbridge-trial", flag.ContinueOnError)
	bin := flags.String("bin", "bin", "`directory` of the built commands")
	dir := flags.String("dir", "", "`directory` of the trial stack (default ./run)")
	offset := flags.Int("port-offset", 0, "`number` that is added to every port")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return 64
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	if err := trial(ctx, *bin, *dir, *offset); err != nil {
		fmt.Fprintln(os.Stderr, "drawbridge-trial:", err)
		return 1
	}
	return 0
}

// trial creates the stack, runs it and cleans up.
func trial(ctx context.Context, bin, dir string, offset int) error {
	dir, err := choose(dir)
	if err != nil {
		return err
	}
	regions, err := trialstack.Regions(".")
	if err != nil {
		return err
	}
	stack, err := trialstack.New(dir, trialstack.Options{
		Settings: map[string]any{"regions.database": regions},
		Bin:      bin, Ports: trialstack.DemoPorts(offset),
		DovecotConf: trialstack.QuickFailures, // refusals without a delay
	})
	if err != nil {
		return err
	}
	fmt.Printf("Starting Dovecot, Postfix and drawbridged in %s …\n", stack.Dir)
	err = serve(ctx, stack)
	if ctx.Err() != nil {
		err = nil // an interruption is no fault
	}
	if errors.Is(err, trialstack.ErrPortTaken) {
		return fmt.Errorf("%w\n\"make run PORT_OFFSET=1000\" adds that to every port", err)
	}
	fmt.Println("\nStopping …")
	if err := errors.Join(err, stack.Stop()); err != nil {
		return err
	}
	fmt.Printf("Stopped. Its data is kept in %s for the next run.\n", stack.Dir)
	return nil
}

// serve starts all servers and returns when ctx ends or a server fails.
func serve(ctx context.Context, stack *trialstack.Stack) error {
	if err := stack.Start(ctx); err != nil {
		return err
	}
	fresh, err := demo.SetUp(ctx, stack)
	if err != nil {
		return err
	}
	if err := demo.Guide(os.Stdout, stack, fresh); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-stack.Died():
		return err
	}
}

// choose returns the named directory, or the default.
func choose(dir string) (string, error) {
	if dir != "" {
		return dir, nil
	}
	here, err := filepath.Abs("run")
	if err != nil {
		return "", err
	}
	fault := trialstack.CheckDir(here)
	if fault == nil {
		return here, nil
	}
	const elsewhere = "/var/lib/drawbridge-trial"
	fmt.Printf("The trial stack cannot use ./run:\n%v\nIt uses %s instead. TRIAL_DIR selects another directory.\n\n", fault, elsewhere)
	return elsewhere, nil
}
