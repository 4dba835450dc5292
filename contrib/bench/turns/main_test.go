package main

import (
	"strings"
	"testing"
)

// What the benchmarks print is read, matched by line and figure, and the medians are compared.
func TestCompare(t *testing.T) {
	var older, newer results
	older.add("pkg: x/y\nBenchmarkCheck-2   \t       5\t 437671585 ns/op\t       976.4 ns-cached\t      1706 ns-check\nPASS\n")
	older.add("a decision, with so many accounts:\n  1000       237 ns, 77 to find the account      goal flat\n" +
		"start from the snapshot, Redis away              0.55 s; CPU 0.45 s    goal ≤ 1 s\nonly the older             3 ms   goal -\n")
	older.add("static C program                40   1.00        20   1.00    0.50\n")
	for _, ns := range []string{"853", "900", "1"} {
		newer.add("BenchmarkCheck-2\t       7\t 100 ns/op\t       488.2 ns-cached\t      " + ns + " ns-check\n")
	}
	newer.add("a decision, with so many accounts:\n  1000       474 ns, 77 to find the account      goal flat\n" +
		"start from the snapshot, Redis away              0.11 s; CPU 0.90 s    goal ≤ 1 s\n")
	newer.add("static C program                20   1.00        20   1.00    0.50\n")
	got := strings.Join(strings.Fields(compare(&older, &newer)), " ")
	want := "BenchmarkCheck-2 1 ns/op 4.37671585e+08 → 100 0.00 2 ns-cached 976.4 → 488.2 0.50 3 ns-check 1706 → 853 0.50 " +
		"a decision, with so many accounts: 1000 1 ns 237 → 474 2.00 2 to 77 → 77 1.00 " +
		"start from the snapshot, Redis away 1 s 0.55 → 0.11 0.20 2 s 0.45 → 0.9 2.00 " +
		"static C program 1 40 → 20 0.50 2 1 → 1 1.00 3 20 → 20 1.00 4 1 → 1 1.00 5 0.5 → 0.5 1.00"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
