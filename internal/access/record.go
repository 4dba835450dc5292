package access

import (
	"encoding/json"
	"time"
)

// LoginRecord is a decision on a login, as stored and returned. Its JSON form is stable.
type LoginRecord struct {
	ID           string     `json:"id"`
	Time         time.Time  `json:"time"`
	Account      string     `json:"account"`
	Domain       string     `json:"-"`
	IP           string     `json:"ip" doc:"The client's address; empty if unknown."`
	RealIP       string     `json:"real_ip,omitempty" doc:"The TCP peer, if it differs."`
	Region       string     `json:"region,omitempty"`
	Network      string     `json:"network,omitempty" doc:"The autonomous system that announces the address, and its organization; empty without a database (regions.networks)." example:"AS3320 Deutsche Telekom AG"`
	Protocol     string     `json:"protocol"`
	Service      string     `json:"service,omitempty"`
	Mechanism    string     `json:"mechanism,omitempty"`
	TLS          bool       `json:"tls"`
	Client       ClientType `json:"client"`
	ClientID     string     `json:"client_id,omitempty" doc:"What the client says about itself: a label, not evidence."`
	Session      string     `json:"session,omitempty"`
	MasterUser   string     `json:"master_user,omitempty"`
	SecretHidden bool       `json:"secret_hidden,omitempty" doc:"The mechanism did not reveal the secret."`
	CredentialID string     `json:"credential_id,omitempty"`
	Credential   string     `json:"credential,omitempty" doc:"The secure password's label."`
	Outcome      Outcome    `json:"outcome" enum:"allow,deny,next,tempfail"`
	Reason       Reason     `json:"reason"`
	PolicyID     string     `json:"policy_id,omitempty"`
	WouldRefuse  []string   `json:"would_refuse,omitempty" doc:"Policies in report mode that would have refused the login."`
	Note         string     `json:"note,omitempty"`
	Abnormal     Marks      `json:"abnormal" doc:"What is unusual for the account: new_network, new_region, new_device, new_client, unusual_hour, impossible_travel. Empty for the usual, and for logins that failed."`
	// Its addresses, client id and session are replaced.
	Pseudonymised bool      `json:"pseudonymised,omitempty" doc:"The addresses and the client id are pseudonyms; the session is removed."`
	ClosedAt      time.Time `json:"closed_at,omitzero" doc:"When the next passdb's result was reported; outcome and reason are then its."`
}

// Marks are words, "[]" in JSON if there are none.
type Marks []string

// MarshalJSON implements [json.Marshaler].
func (m Marks) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(m))
}
