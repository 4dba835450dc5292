package redisstore

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/drawbridge/drawbridge/internal/store"
)

// dial returns a client of one server, of the master that Sentinels name, or of a Cluster. Nothing
// is read from replicas, which may lag behind.
func (r *Redis) dial(poolSize int) redis.UniversalClient {
	opt := &redis.UniversalOptions{ // each client appends to its Addrs
		Addrs: slices.Clone(r.opt.Addrs), MasterName: r.opt.Master, DB: r.opt.DB, PoolSize: poolSize,
		SentinelUsername: r.opt.SentinelUsername, SentinelPassword: r.opt.SentinelPassword,
		CredentialsProvider: func() (username, password string) {
			a := r.access.Load()
			return a.Username, a.Password
		},
		Dialer:                r.dialServer,
		Protocol:              2,
		ContextTimeoutEnabled: true, // otherwise calls wait for a hung server beyond the context's end
		DialTimeout:           dialTimeout, DialerRetries: 1,
		MaxRetries:               -1, // a change that may have been applied is not sent again
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	switch {
	case r.opt.Master != "":
		return redis.NewFailoverClient(opt.Failover())
	case r.opt.Cluster:
		c := opt.Cluster()
		c.DisableRoutingPolicies = true // commands with several keys go where the first one is
		// The client follows MOVED and ASK and repeats after TRYAGAIN. It repeats after a lost
		// connection, too: see Commit.
		c.MaxRedirects = 8
		return redis.NewClusterClient(c)
	default:
		return redis.NewClient(opt.Simple())
	}
}

// dialTimeout bounds the connection to a server.
const dialTimeout = 2 * time.Second

// dialServer connects to a server, or a Sentinel.
func (r *Redis) dialServer(ctx context.Context, network, addr string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout, KeepAlive: 5 * time.Minute}
	if t := r.access.Load().TLS; t != nil {
		return (&tls.Dialer{NetDialer: d, Config: t}).DialContext(ctx, network, addr)
	}
	return d.DialContext(ctx, network, addr)
}

// lookAgain makes the client of a Cluster ask which nodes have which slots: by itself it does so only
// when a node answers MOVED, and a dead one does not.
func (r *Redis) lookAgain(ctx context.Context) {
	if c, ok := r.client.(*redis.ClusterClient); ok {
		c.ReloadState(ctx)
	}
}

// masters calls f for every master that holds a part of the store, one call at a time.
func (r *Redis) masters(ctx context.Context, f func(*redis.Client) error) error {
	switch c := r.client.(type) {
	case *redis.ClusterClient:
		var alone sync.Mutex
		return c.ForEachMaster(ctx, func(_ context.Context, master *redis.Client) error {
			alone.Lock()
			defer alone.Unlock()
			return f(master)
		})
	case *redis.Client:
		return f(c)
	default:
		return fmt.Errorf("%w: a client of an unknown kind", store.ErrUnavailable)
	}
}

// Servers returns which servers hold the store now, and how they are set. It takes 3 s at most. The
// policy is the first that is not noeviction. It is an error when no master answers.
func (r *Redis) Servers(ctx context.Context) (store.Servers, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	s := store.Servers{Mode: store.ModeSingle}
	switch {
	case r.opt.Master != "":
		s.Mode, s.Sentinels = store.ModeSentinel, r.sentinels(ctx)
	case r.opt.Cluster:
		s.Mode = store.ModeCluster
	}
	var fault error
	err := r.masters(ctx, func(c *redis.Client) error {
		m, err := r.inspect(ctx, c)
		if err != nil {
			fault, m.Fault = err, err.Error()
		} else if s.Policy == "" || s.Policy == store.NoEviction {
			s.Policy = m.Policy
		}
		s.Masters = append(s.Masters, m)
		return nil
	})
	if err == nil && s.Policy == "" {
		err = cmp.Or(fault, store.ErrUnavailable)
	}
	if err != nil {
		return store.Servers{}, wrap(err)
	}
	slices.SortFunc(s.Masters, func(a, b store.Master) int { return cmp.Compare(a.Address, b.Address) })
	return s, nil
}

// inspect asks one master.
func (r *Redis) inspect(ctx context.Context, c *redis.Client) (m store.Master, err error) {
	if r.opt.Master == "" { // the options of the other client name no server
		m.Address = c.Options().Addr
	} else if info, err := c.ClientInfo(ctx).Result(); err == nil {
		m.Address = info.LAddr
	}
	info := map[string]string{}
	for _, section := range []string{"memory", "replication", "persistence"} { // Redis 6 and earlier take one
		if info[section], err = c.Info(ctx, section).Result(); err != nil {
			return m, wrap(err)
		}
	}
	if m.Policy = infoField(info["memory"], "maxmemory_policy"); m.Policy == "" {
		return m, fmt.Errorf("reading INFO memory: no maxmemory_policy: %w", store.ErrUnavailable)
	}
	m.AppendOnly = infoField(info["persistence"], "aof_enabled") == "1"
	if set, err := c.ConfigGet(ctx, "appendfsync").Result(); err == nil { // an ACL may forbid CONFIG
		m.AppendFsync = set["appendfsync"]
	}
	// The field is there only while min-replicas-to-write is set.
	m.NeedsReplicas = infoField(info["replication"], "min_slaves_good_slaves") != ""
	for i := 0; ; i++ {
		replica := infoField(info["replication"], "slave"+strconv.Itoa(i))
		if replica == "" {
			break
		}
		if strings.Contains(replica, "state=online") {
			m.Replicas++
		}
	}
	if r.opt.Cluster {
		state, err := c.ClusterInfo(ctx).Result()
		if err == nil && infoField(state, "cluster_state") != "ok" {
			m.Fault = "cluster_state is " + infoField(state, "cluster_state") + ": slots have no master that it reaches"
		}
	}
	return m, nil
}

// sentinels asks each Sentinel whether enough of them are there to fail over.
func (r *Redis) sentinels(ctx context.Context) []store.Sentinel {
	list := make([]store.Sentinel, len(r.opt.Addrs))
	var asked sync.WaitGroup
	for i, addr := range r.opt.Addrs {
		list[i].Address = addr
		asked.Go(func() {
			c := redis.NewSentinelClient(&redis.Options{
				Addr: addr, Username: r.opt.SentinelUsername, Password: r.opt.SentinelPassword, Dialer: r.dialServer,
				Protocol: 2, PoolSize: 1, ContextTimeoutEnabled: true, DialerRetries: 1, MaxRetries: -1, DisableIdentity: true,
				MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
			})
			defer func() { _ = c.Close() }()
			if err := c.CkQuorum(ctx, r.opt.Master).Err(); err != nil {
				list[i].Fault = err.Error()
			}
		})
	}
	asked.Wait()
	return list
}

func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return value
		}
	}
	return ""
}
