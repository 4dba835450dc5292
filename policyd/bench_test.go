package policyd

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

// BenchmarkServe compares requests per second on 64 connections of a unix socket with those of a Go
// server that answers DUNNO without looking. Client and server share the processors, so the ratio
// flatters the slower one a bit.
func BenchmarkServe(b *testing.B) {
	permit := says(access.Decision{Outcome: access.Next})
	b.Run("blind", func(b *testing.B) { benchmark(b, serveBlindly) })
	b.Run("policyd", func(b *testing.B) {
		s := &Server{Gate: permit, Log: hclog.NewNullLogger()}
		benchmark(b, func(ctx context.Context, ln net.Listener) { _ = s.Serve(ctx, ln) })
	})
}

// serveBlindly answers whatever it reads.
func serveBlindly(ctx context.Context, ln net.Listener) {
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	for {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, firstBuffer)
			for {
				if _, err := c.Read(buf); err != nil {
					return
				}
				if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
					return
				}
			}
		}()
	}
}

func benchmark(b *testing.B, serve func(context.Context, net.Listener)) {
	const connections = 64
	socket := filepath.Join(b.TempDir(), "s")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done, clients sync.WaitGroup
	done.Go(func() { serve(ctx, ln) })
	defer done.Wait()
	defer cancel()
	b.ReportAllocs()
	b.ResetTimer()
	for i := range connections {
		c, err := net.Dial("unix", socket)
		if err != nil {
			b.Fatal(err)
		}
		clients.Go(func() {
			defer func() { _ = c.Close() }()
			request, answer := []byte(postfix), make([]byte, 64)
			for range (b.N + i) / connections {
				if _, err := c.Write(request); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(c, answer[:len("action=DUNNO\n\n")]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	b.StopTimer()
}

// BenchmarkRead is the codec alone.
func BenchmarkRead(b *testing.B) {
	r := newReader(endless(postfix))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
