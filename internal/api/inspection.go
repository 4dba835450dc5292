package api

import "time"

// Inspection is what a look at a domain, or one account, found.
type Inspection struct {
	Items    []Finding `json:"items"`
	Next     string    `json:"next,omitempty" doc:"The cursor of the next page; missing on the last page."`
	Domain   string    `json:"domain"`
	Since    time.Time `json:"since" doc:"Use is judged by the login records since then."`
	Accounts int       `json:"accounts" doc:"Number of accounts examined."`
	Records  int       `json:"records" doc:"Number of login records examined."`
}

// Finding is a gap, and what would close it.
type Finding struct {
	ID       string    `json:"id" doc:"Names the finding as long as it lasts."`
	Kind     string    `json:"kind" enum:"unused_protocol,unused_sending,unused_secure_password,no_secure_password,no_second_factor,old_mailbox_password,suspended_with_access,exception_without_end,policy_without_effect,policy_shadowed,policy_unused,key_without_end,unused_key,forward_outside,forwards_unknown"`
	Account  string    `json:"account,omitempty"`
	Detail   string    `json:"detail"`
	Proposal *Proposal `json:"proposal" doc:"Change that reclaim applies; null if an administrator must decide."`
}

// Proposal is a change that closes a gap: one of its fields.
type Proposal struct {
	SwitchOff []string `json:"switch_off,omitempty" doc:"Protocols of the account."`
	Revoke    string   `json:"revoke,omitempty" doc:"The id of a secure password of the account."`
	Disable   string   `json:"disable,omitempty" doc:"The id of a policy."`
	ExpireKey string   `json:"expire_key,omitempty" doc:"The id of an API key that ends now."`
}

// Reclaim selects findings whose proposals are carried out, or a reclaim that is undone.
type Reclaim struct {
	Findings []string `json:"findings" maxItems:"1000" doc:"Their ids."`
	Kinds    []string `json:"kinds" maxItems:"100" enum:"unused_protocol,unused_sending,unused_secure_password,no_secure_password,no_second_factor,old_mailbox_password,suspended_with_access,exception_without_end,policy_without_effect,policy_shadowed,policy_unused,key_without_end,unused_key,forward_outside,forwards_unknown" doc:"All findings of these kinds that have a proposal."`
	Account  string   `json:"account" doc:"Only findings of this account."`
	Days     *int     `json:"days" minimum:"0" maximum:"3650" doc:"As in the inspection; 90 if it is left out."`
	Undo     string   `json:"undo" doc:"The id of an earlier reclaim: its changes are reverted, as far as nobody has changed the same since."`
}

// Reclaimed is what a reclaim did, or would do.
type Reclaimed struct {
	ID        string    `json:"id,omitempty" doc:"Give it as undo to revert the changes."`
	Items     []Finding `json:"items" doc:"The findings that were closed."`
	Remaining int       `json:"remaining,omitempty" doc:"Further findings, beyond 1000 at a time: call it again."`
	Reverted  int       `json:"reverted,omitempty" doc:"Of undo: accounts and policies that are as before."`
	Kept      []string  `json:"kept,omitempty" doc:"Of undo: what somebody has changed since, and was left."`
}

// InspectionReport is what the latest inspection of a domain on its schedule found.
type InspectionReport struct {
	Domain   string            `json:"domain"`
	Time     time.Time         `json:"time" doc:"When the inspection began."`
	Node     string            `json:"node,omitempty" doc:"The daemon that made it; not for keys of role domain."`
	Since    time.Time         `json:"since" doc:"Use is judged by the login records since then."`
	Accounts int               `json:"accounts" doc:"Number of accounts examined."`
	Records  int               `json:"records" doc:"Number of login records examined."`
	Found    int               `json:"found" doc:"Number of findings."`
	New      int               `json:"new" doc:"Of these, the ones that the inspection before did not have."`
	Kinds    []FindingCount    `json:"kinds" doc:"Findings by kind."`
	Items    []ReportedFinding `json:"items" doc:"New findings first; at most 1000."`
}

// FindingCount counts the findings of a kind.
type FindingCount struct {
	Kind  string `json:"kind"`
	Found int    `json:"found"`
	New   int    `json:"new"`
}

// ReportedFinding is a finding of a report.
type ReportedFinding struct {
	Finding
	New bool `json:"new" doc:"The inspection before did not have it."`
}

// InspectionLine is one line of a streamed inspection: one of its fields.
type InspectionLine struct {
	Result  *Inspection `json:"result,omitempty"`
	Problem *Problem    `json:"problem,omitempty"`
}
