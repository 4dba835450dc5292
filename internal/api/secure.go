package api

// Secure is what to do for an account that somebody else has used.
type Secure struct {
	BlockIP               string `json:"block_ip" doc:"Block this address or range for the domain."`
	RevokeSecurePasswords bool   `json:"revoke_secure_passwords" doc:"Revoke all secure passwords of the account."`
	ResetMailboxPassword  bool   `json:"reset_mailbox_password" doc:"Set a generated mailbox password; this response contains it."`
	SwitchOff             bool   `json:"switch_off" doc:"Switch IMAP, POP3, SMTP and ManageSieve off for the account."`
	EndSessions           bool   `json:"end_sessions" doc:"End all open sessions of the account, also those that the rules still permit."`
}

// Secured is what was done.
type Secured struct {
	Account      string   `json:"account"`
	BlockedIP    string   `json:"blocked_ip,omitempty"`
	IPBlock      string   `json:"ip_block,omitempty" doc:"The id of the blocked address."`
	Revoked      []string `json:"revoked,omitempty" doc:"The ids of the secure passwords."`
	Password     Secret   `json:"password,omitempty" format:"password" doc:"The new mailbox password."`
	SwitchedOff  []string `json:"switched_off,omitempty" doc:"Protocols."`
	EndedBeside  int      `json:"ended_beside,omitempty" doc:"Open sessions that the rules still permitted and that were ended."`
	Unchanged    bool     `json:"unchanged,omitempty" doc:"The account was secured like this already."`
	MailboxReset bool     `json:"mailbox_password_reset,omitempty"`

	Remains []Remaining `json:"remains" doc:"What remains to be done for the account, or to be looked at."`
}

// Remaining is something of an account that was used by somebody else, and that was not dealt with.
type Remaining struct {
	Kind   string `json:"kind" enum:"mailbox_password,secure_password,second_factor,protocols,switched_off,key,sessions,forward_outside,forwards_unknown"`
	Detail string `json:"detail"`
}
