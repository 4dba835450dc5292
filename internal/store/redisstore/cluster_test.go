package redisstore_test

import (
	"context"
	"reflect"
	"runtime"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// servers are what a test of this package runs on: one server, or a Cluster.
type servers interface {
	Options() redisstore.Options
	Kill()
	Restart()
	Pause()
	Resume()
}

// cluster is what [begin] returns instead of a server of the test's own; nil for such a server.
var cluster *redistest.Cluster

// begin returns empty servers, and is called once by a test. Tests with a server of their own run at
// once, after those of the Cluster, which share it.
func begin(t *testing.T) servers {
	t.Helper()
	if cluster == nil {
		t.Parallel()
		return redistest.Start(t)
	}
	if _, err := cluster.Masters[0].Try("PING"); err != nil {
		cluster.Restart() // the test before left it so
	}
	for _, s := range cluster.Masters {
		s.Do("FLUSHALL")
	}
	return cluster
}

// dial returns a client of the servers, for what a test does beside the store.
func dial(t *testing.T, r servers) redis.UniversalClient {
	t.Helper()
	opt := r.Options()
	c := redis.NewUniversalClient(&redis.UniversalOptions{Addrs: opt.Addrs, IsClusterMode: opt.Cluster, MasterName: opt.Master})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// flush empties all servers.
func flush(t *testing.T, c redis.UniversalClient) {
	t.Helper()
	empty := func(ctx context.Context, c *redis.Client) error { return c.FlushAll(ctx).Err() }
	var err error
	if many, ok := c.(*redis.ClusterClient); ok {
		err = many.ForEachMaster(context.Background(), empty)
	} else {
		err = empty(context.Background(), c.(*redis.Client))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// The tests of the store, on a Cluster. Those that set limits of a server's memory have one server
// only.
func TestOnCluster(t *testing.T) {
	cluster = redistest.StartCluster(t, false)
	defer func() { cluster = nil }()
	for _, test := range []func(*testing.T){
		TestChangeHoldsOnEveryDaemon, TestConcurrentChangesAreSerialised, TestLoadForgetsWhatIsGone, TestEmptiedStoreIsNotBelieved,
		TestRolledBackStoreIsNotBelieved, TestTrimmedStream, TestClaimsOfTheOldForm, TestNewerSchemaIsRefused,
		TestMinReplicas, TestDamagedKeysTakeNoHalfChange, TestDamagedRecordsHoldUpNoOthers, TestRecords, TestRecord,
		TestExpireForgetsOldRecords, TestAuditIsOneTransactionWithItsChange, TestEventsReachOtherDaemons, TestLastUses,
		TestRecordsAreWrittenOnce, TestDamagedStore, TestMissingHead, TestDamagedStoreIsAccepted,
		TestHungRedisRefusesChangesInTime, TestAcknowledgedChangesSurviveKill,
	} {
		name := runtime.FuncForPC(reflect.ValueOf(test).Pointer()).Name()
		t.Run(name[strings.LastIndex(name, ".Test")+len(".Test"):], test)
	}
}
