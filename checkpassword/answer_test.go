package checkpassword

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

func TestReadAnswer(t *testing.T) {
	tests := []struct {
		name, in string
		want     string
		err      error
	}{
		{name: "by length", in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: y\r\n\r\n{}more", want: "{}"},
		{name: "in chunks", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n1\r\n{\r\n01;x=y\r\n}\r\n0\r\n\r\n", want: "{}"},
		{name: "to the end", in: "HTTP/1.0 200 OK\r\n\r\n{}", want: "{}"},
		{name: "without a phrase", in: "HTTP/1.1 200\r\ncontent-length:2\r\n\r\n{}", want: "{}"},
		{name: "bare LF", in: "HTTP/1.1 200 OK\nCONTENT-LENGTH: 2\n\n{}", want: "{}"},
		{name: "another status", in: "HTTP/1.1 503 Service Unavailable\r\n", err: StatusError{Status: 503}},
		{name: "a problem", in: "HTTP/1.1 422 Unprocessable Entity\r\nContent-Length: 20\r\n\r\n{\"code\":\"\x1b[31m\xff\u00e9\"}\n....", err: StatusError{422, `{"code":"?[31m???"}`}},
		{name: "a problem cut short", in: "HTTP/1.1 500 X\r\nContent-Length: 9\r\n\r\n{", err: StatusError{Status: 500}},
		{name: "empty", in: "", err: io.ErrUnexpectedEOF},
		{name: "cut in the head", in: "HTTP/1.1 200 OK\r\nContent-", err: io.ErrUnexpectedEOF},
		{name: "cut in the body", in: "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{}", err: io.ErrUnexpectedEOF},
		{name: "cut in a chunk", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{", err: io.ErrUnexpectedEOF},
		{name: "cut between chunks", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n", err: io.ErrUnexpectedEOF},
		{name: "chunk longer than said", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", err: errAnswer},
		{name: "not HTTP", in: "220 mail.example.org ESMTP\r\n", err: errAnswer},
		{name: "status of two digits", in: "HTTP/1.1 20 OK\r\n\r\n", err: errAnswer},
		{name: "status of four digits", in: "HTTP/1.1 2000 OK\r\n\r\n", err: errAnswer},
		{name: "no colon", in: "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\n{}", err: errAnswer},
		{name: "negative length", in: "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", err: errAnswer},
		{name: "two lengths", in: "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\n{}", err: errAnswer},
		{name: "length and chunks", in: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", err: errAnswer},
		{name: "compressed", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", err: errAnswer},
		{name: "largest", in: "HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n" + strings.Repeat(" ", 65536), want: strings.Repeat(" ", 65536)},
		{name: "too large", in: "HTTP/1.1 200 OK\r\nContent-Length: 65537\r\n\r\n", err: errAnswerSize},
		{name: "absurdly large", in: "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", err: errAnswerSize},
		{name: "too large a chunk", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n", err: errAnswerSize},
		{name: "too many chunks", in: "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1000\r\n"+strings.Repeat(" ", 4096)+"\r\n", 17), err: errAnswerSize},
		{name: "too large to the end", in: "HTTP/1.1 200 OK\r\n\r\n" + strings.Repeat(" ", 65537), err: errAnswerSize},
		{name: "endless head", in: "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 40000), err: errAnswerSize},
		{name: "endless line", in: "HTTP/1.1 200 " + strings.Repeat("x", 5000), err: errAnswer},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(tt.in), iotest.OneByteReader(strings.NewReader(tt.in)), iotest.DataErrReader(strings.NewReader(tt.in))} {
				got, err := ReadAnswer(r)
				if !errors.Is(err, tt.err) || string(got) != tt.want {
					t.Errorf("got %.50q, error %v; want %.50q, error %v", got, err, tt.want, tt.err)
				}
			}
		})
	}
}

// FuzzReadAnswer reads back what net/http writes, in each of its forms.
func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"outcome":"allow"}`), true, true)
	f.Add([]byte(""), false, true)
	f.Add([]byte("\r\n0\r\n\r\n"), true, false)
	f.Fuzz(func(t *testing.T, body []byte, chunked, bytewise bool) {
		response := http.Response{
			StatusCode: http.StatusOK, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{"Content-Type": {"application/json"}},
			ContentLength: int64(len(body)), Body: io.NopCloser(bytes.NewReader(body)),
		}
		if chunked {
			response.ContentLength, response.TransferEncoding = -1, []string{"chunked"}
		}
		var wire bytes.Buffer
		if err := response.Write(&wire); err != nil {
			t.Fatal(err)
		}
		var r io.Reader = bytes.NewReader(wire.Bytes())
		if bytewise {
			r = iotest.OneByteReader(r)
		}
		got, err := ReadAnswer(r)
		switch {
		case len(body) > maxAnswer:
			if !errors.Is(err, errAnswerSize) {
				t.Errorf("%d bytes: error %v", len(body), err)
			}
		case err != nil || !bytes.Equal(got, body):
			t.Errorf("%q: got %q, error %v", wire.Bytes(), got, err)
		}
		// Whatever else it reads, it takes no more than a head and a body of the largest size.
		source := io.MultiReader(bytes.NewReader(body), strings.NewReader(strings.Repeat("x", 4*maxAnswer)))
		if got, err := ReadAnswer(source); err == nil && len(got) > maxAnswer {
			t.Errorf("%d bytes", len(got))
		}
	})
}
