package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/mime"
)

// benchContent measures what is done with the content of messages, against putting the same message
// together from the chunks of a milter and reading it once.
func benchContent(context.Context) error {
	message := largeMessage(5 << 20)
	lines := 0
	read := func() error {
		lines += bytes.Count(gather(message), []byte("\n"))
		return nil
	}
	kinds := []struct {
		what, goal string
		run        func() error
	}{
		{"banner in a multipart of 5 MB", "≤ 1.5 ×, ≤ 2 × the message", func() error {
			body := gather(message)
			m, err := mime.Parse(body, mime.Limits{})
			if err != nil {
				return err
			}
			changes, err := m.Banner("This message is from outside.")
			if err != nil || len(changes.Body) != 2 {
				return fmt.Errorf("no banner: %w", err)
			}
			for piece := range changes.Pieces(body, m.BodyStart()) {
				lines += bytes.Count(piece, []byte("\n"))
			}
			return nil
		}},
		{"texts and attachments of the same, decoded", "-", func() error {
			m, err := mime.Parse(gather(message), mime.Limits{})
			if err != nil {
				return err
			}
			if _, err := m.Texts(); err != nil {
				return err
			}
			_, err = m.Attachments()
			return err
		}},
	}
	for _, k := range kinds {
		var ratios []float64
		for range rounds {
			once, err := timed(read)
			if err != nil {
				return err
			}
			with, err := timed(k.run)
			if err != nil {
				return err
			}
			ratios = append(ratios, float64(with)/float64(once))
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := k.run(); err != nil {
			return err
		}
		runtime.ReadMemStats(&after)
		allocated := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(message))
		line(k.what, fmt.Sprintf("%.2f × reading, %.1f × memory", median(ratios), allocated), k.goal)
	}
	return nil
}

// timed runs f 20 times.
func timed(f func() error) (time.Duration, error) {
	start := time.Now()
	for range 20 {
		if err := f(); err != nil {
			return 0, err
		}
	}
	return time.Since(start), nil
}

// gather puts the chunks of a message together, as the milter does.
func gather(message []byte) []byte {
	const chunk = 65535
	var chunks [][]byte
	for rest := message; len(rest) > 0; {
		n := min(chunk, len(rest))
		chunks = append(chunks, bytes.Clone(rest[:n]))
		rest = rest[n:]
	}
	return bytes.Join(chunks, nil)
}

// largeMessage returns a message of text, HTML and an attachment.
func largeMessage(size int) []byte {
	var b strings.Builder
	b.WriteString("From: pat@partner.example\r\nSubject: x\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n" +
		"--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n" +
		"--a\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nHello\r\n" +
		"--a\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body>" + strings.Repeat("<p>Hello</p>\r\n", 1000) + "</body></html>\r\n" +
		"--a--\r\n--m\r\nContent-Type: application/pdf; name=x.pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n")
	line := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{1, 2, 3}, 19)) + "\r\n"
	b.WriteString(strings.Repeat(line, size/len(line)))
	b.WriteString("--m--\r\n")
	return []byte(b.String())
}
