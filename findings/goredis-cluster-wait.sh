#!/bin/sh
# github.com/redis/go-redis/v9 v9.23.0: ClusterClient.Wait asks a node that was not written to.
#
# WAIT reports how many replicas have acknowledged the writes of its own connection. In a cluster
# only the master that took the write can answer. ClusterClient.Wait has no key, and the client sends
# it to the masters in turn, so that most answers are about connections on which nothing was written.
#
# Seen, on three masters: of six calls of Set on one key and Wait, each master received two of the
# WAITs. On MasterForKey(key).Conn() the same six WAITs reach the key's master.
# Needs Go, the module, and redis-server (Debian 12: 5:7.0.15-1~deb12u); ports 27101 to 27103 and
# 37101 to 37103 on loopback. Writes to a temporary directory only. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
pids=
trap 'kill $pids 2>/dev/null || :; wait; rm -rf "$dir"' EXIT
cd "$dir"
redis-server --version
for port in 27101 27102 27103; do
	mkdir $port
	redis-server --port $port --bind 127.0.0.1 --dir "$dir/$port" --cluster-enabled yes --save '' --daemonize no >$port/log 2>&1 &
	pids="$pids $!"
done
sleep 1
for port in 27101 27102 27103; do redis-cli -p $port ping >/dev/null; done
redis-cli --cluster create 127.0.0.1:27101 127.0.0.1:27102 127.0.0.1:27103 --cluster-yes >created
until [ "$(for port in 27101 27102 27103; do redis-cli -p $port cluster info; done | grep -c 'cluster_state:ok')" = 3 ]; do sleep 0.2; done
go mod init finding >/dev/null 2>&1
go get github.com/redis/go-redis/v9@v9.23.0 >/dev/null 2>&1
cat >main.go <<'EOF'
package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var addrs = []string{"127.0.0.1:27101", "127.0.0.1:27102", "127.0.0.1:27103"}

// waits is how many WAITs each node has received.
func waits(ctx context.Context) (counts []int) {
	for _, addr := range addrs {
		c := redis.NewClient(&redis.Options{Addr: addr})
		text, err := c.Info(ctx, "commandstats").Result()
		check(err)
		n := 0
		for _, line := range strings.Split(text, "\r\n") {
			_, _ = fmt.Sscanf(line, "cmdstat_wait:calls=%d,", &n)
		}
		counts = append(counts, n)
		check(c.Close())
	}
	return counts
}

func main() {
	ctx := context.Background()
	c := redis.NewClusterClient(&redis.ClusterOptions{Addrs: addrs})
	for range 6 {
		check(c.Set(ctx, "key", "value", 0).Err())
		check(c.Wait(ctx, 0, time.Second).Err())
	}
	first := waits(ctx)
	fmt.Println("ClusterClient.Wait:", first)
	master, err := c.MasterForKey(ctx, "key")
	check(err)
	conn := master.Conn()
	for range 6 {
		check(conn.Set(ctx, "key", "value", 0).Err())
		check(conn.Wait(ctx, 0, time.Second).Err())
	}
	second := waits(ctx)
	for i := range second {
		second[i] -= first[i]
	}
	fmt.Println("MasterForKey(key).Conn():", second)
}

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}
EOF
go mod tidy >/dev/null 2>&1
go run . | tee seen
cat >want <<'EOF'
ClusterClient.Wait: [2 2 2]
MasterForKey(key).Conn(): [0 0 6]
EOF
diff want seen
