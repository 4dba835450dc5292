package api

import "time"

// Forwards is what sends an account's mail on, files, answers or deletes it.
type Forwards struct {
	Account     string        `json:"account"`
	Items       []Forward     `json:"items"`
	Scripts     []SieveScript `json:"scripts" doc:"The account's Sieve scripts. Dovecot runs the active one."`
	ManageSieve []SieveLogin  `json:"manage_sieve" doc:"The latest logins by ManageSieve, newest first, at most 10: scripts can be changed by them. Webmail can change scripts too."`
	Problems    []string      `json:"problems,omitempty" doc:"What could not be looked up, with the reason: the list may be incomplete."`
	// Unread names the Dovecot, map or setting of each problem, which stays the same while its reason differs.
	Unread []string `json:"-"`
}

// Forward is one action of a Sieve script, or one target of an alias map.
type Forward struct {
	Source    string    `json:"source" enum:"sieve,alias_map"`
	Name      string    `json:"name" doc:"The script, or the map as Postfix names it."`
	Active    bool      `json:"active" doc:"false: of a script that Dovecot does not run."`
	ChangedAt time.Time `json:"changed_at,omitzero" doc:"When the script was changed, if sessions.sieve_dir says where it is."`
	Line      int       `json:"line,omitempty" doc:"Of the script."`
	Action    string    `json:"action" doc:"redirect, fileinto, discard, reject, ereject, refuse, vacation, notify, report, include, pipe, execute or filter; alias for a map."`
	Target    string    `json:"target,omitempty" doc:"The address, folder, method or script."`
	Outside   bool      `json:"outside" doc:"The target is not in a managed domain, or is not known before the script runs."`
	Computed  bool      `json:"computed,omitempty" doc:"The script makes the target when it runs."`
	Copy      bool      `json:"copy,omitempty" doc:"The mailbox keeps a copy."`
}

// SieveScript is a script of an account.
type SieveScript struct {
	Name      string    `json:"name"`
	Active    bool      `json:"active"`
	ChangedAt time.Time `json:"changed_at,omitzero" doc:"When its file was changed, if sessions.sieve_dir says where it is."`
	Size      int       `json:"size" doc:"In bytes."`
	Problem   string    `json:"problem,omitempty" doc:"Why it could not be read whole."`
}

// SieveLogin is a login by ManageSieve.
type SieveLogin struct {
	ID     string    `json:"id" doc:"Of the login record."`
	Time   time.Time `json:"time"`
	IP     string    `json:"ip"`
	Device string    `json:"device,omitempty" doc:"The label of the secure password."`
}
