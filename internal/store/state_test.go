package store

import "testing"

// A shard with a document that cannot be read takes nothing from what is known.
func TestReplaceIsAllOrNothing(t *testing.T) {
	const name = "example.org"
	shard := ShardOf(name)
	good := Doc{Key: kindDomain + "/" + name, Rev: 1, Body: []byte(`{"name":"example.org","alias_domains":["example.net"]}`)}
	bad := Doc{Key: kindPolicy + "/" + name + "/p", Rev: 2, Body: []byte(`"no policy"`)}
	st := NewState()
	first := Head{StoreID: "s", N: 1, Hash: "a"}
	if err := st.replace(shard, first, []Doc{good}); err != nil {
		t.Fatal(err)
	}
	version := st.Version()
	if err := st.replace(shard, Head{StoreID: "s", N: 2, Hash: "b"}, []Doc{bad}); err == nil {
		t.Fatal("a document that is no policy was read")
	}
	if st.Head(shard) != first || st.Version() != version {
		t.Errorf("head %v, version %d: something changed", st.Head(shard), st.Version())
	}
	if addr, v := st.View("ann@example.net"); !v.Known || v.Rules == nil || addr != "ann@example.org" {
		t.Errorf("the domain is forgotten: %s, %+v", addr, v)
	}
	if err := st.replace(shard, Head{StoreID: "s", N: 3, Hash: "c"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, v := st.View("ann@example.net"); v.Known {
		t.Error("an emptied shard is still known")
	}
}
