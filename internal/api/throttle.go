package api

import "time"

// Throttle lists the accounts and addresses whose counters of wrong secrets reached a limit.
type Throttle struct {
	Items       []Throttled           `json:"items"`
	Next        string                `json:"next,omitempty" doc:"The cursor of the next page; missing on the last page."`
	Distributed []DistributedGuessing `json:"distributed" doc:"Domains where wrong secrets come from many addresses, few from each. Nobody is refused for it unless throttle.distributed is known."`
}

// Throttled is an account or an address whose mailbox passwords are refused without being verified.
type Throttled struct {
	Account      string    `json:"account,omitempty" doc:"The account that is throttled; empty for an address."`
	Address      string    `json:"address,omitempty" doc:"The address that is throttled, an IPv6 network of 64 bits; with account, an address that the account is used from, which has counters of its own."`
	Reason       string    `json:"reason" enum:"wrong_secrets_per_address,wrong_secrets_per_account" doc:"The setting whose limit was reached."`
	WrongSecrets int       `json:"wrong_secrets" doc:"Number of different wrong secrets that count now."`
	Since        time.Time `json:"since" doc:"When the limit was reached."`
	Last         time.Time `json:"last" doc:"The last wrong secret."`
	Until        time.Time `json:"until" doc:"When it ends if no further wrong secret comes."`
	From         []string  `json:"from,omitempty" doc:"Addresses that tried the account, ten at most."`
	Tried        []string  `json:"tried,omitempty" doc:"Accounts that were tried from the address, ten at most."`
}

// DistributedGuessing is a domain at which many addresses guess.
type DistributedGuessing struct {
	Domain    string    `json:"domain"`
	Addresses int       `json:"addresses" doc:"Number of addresses, estimated, within throttle.window."`
	Accounts  int       `json:"accounts" doc:"Number of accounts that were tried, estimated."`
	Since     time.Time `json:"since"`
}
