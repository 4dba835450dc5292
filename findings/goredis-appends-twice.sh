#!/bin/sh
# github.com/redis/go-redis/v9 v9.23.0 appends to a stream more than once, and reports one success.
#
# By default the client repeats a command whose answer does not come within ReadTimeout, whatever the
# command is. A server that stands still for longer and then goes on executes every attempt. For XADD,
# INCR or a script that is no repetition but a second effect. Transactions (TxPipelined) are not
# repeated: they report the time-out.
#
# Seen: one XAdd without an error, several entries in the stream. With MaxRetries -1 there is one entry and a
# time-out. What must happen once carries a number of its own, or is not repeated.
# Needs Go, the module, and redis-server (Debian 12: 5:7.0.15-1~deb12u); writes to a temporary directory
# only. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
pid=
trap 'kill -CONT $pid 2>/dev/null || :; kill $pid 2>/dev/null || :; wait; rm -rf "$dir"' EXIT
cd "$dir"
redis-server --version
redis-server --port 0 --unixsocket "$dir/socket" --dir "$dir" --save '' --daemonize no >log 2>&1 &
pid=$!
until redis-cli -s socket ping >/dev/null 2>&1; do sleep 0.1; done
go mod init finding >/dev/null 2>&1
go get github.com/redis/go-redis/v9@v9.23.0 >/dev/null 2>&1
cat >main.go <<'EOF'
package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

func main() {
	server, err := strconv.Atoi(os.Args[1])
	check(err)
	for _, retries := range []int{0, -1} { // the default, none
		stream := "stream" + strconv.Itoa(retries)
		c := redis.NewClient(&redis.Options{Network: "unix", Addr: "socket", ReadTimeout: time.Second, MaxRetries: retries})
		ctx := context.Background()
		check(c.Ping(ctx).Err())
		check(syscall.Kill(server, syscall.SIGSTOP))
		time.AfterFunc(1300*time.Millisecond, func() { check(syscall.Kill(server, syscall.SIGCONT)) })
		failed := c.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: []string{"event", "once"}}).Err()
		time.Sleep(3 * time.Second)
		n, err := c.XLen(ctx, stream).Result()
		check(err)
		fmt.Printf("MaxRetries %d: error %t, more than one entry %t\n", retries, failed != nil, n > 1)
	}
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}
EOF
go mod tidy >/dev/null 2>&1
go build -o finding .
./finding $pid | tee seen
cat >want <<'EOF'
MaxRetries 0: error false, more than one entry true
MaxRetries -1: error true, more than one entry false
EOF
diff want seen
