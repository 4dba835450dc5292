package store

import "time"

// Take is an amount to be taken from a bucket that all daemons share.
type Take struct {
	Key  string        `json:"key"`  // of the bucket
	N    int           `json:"n"`    // negative to give back
	Rate int           `json:"rate"` // the bucket's size
	Per  time.Duration `json:"per"`  // in which it refills evenly
	// Besides is what must be there, too, but is not taken.
	Besides int `json:"besides,omitempty"`
}

// Spend is what was taken without asking, and what is given back, of the buckets of a domain.
type Spend struct {
	ID     string    `json:"id"` // repeated, it takes nothing more
	Domain string    `json:"domain"`
	Time   time.Time `json:"time"` // it refills since then
	Takes  []Take    `json:"takes"`
}
