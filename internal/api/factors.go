package api

import (
	"encoding/json"
	"time"
)

// SecondFactorPolicy says for which accounts a second factor is required.
type SecondFactorPolicy struct {
	Required bool   `json:"required" required:"true"`
	Scope    *Scope `json:"scope,omitempty" doc:"If missing: everybody."`
}

// Factor is a second factor of an account, without its secret.
type Factor struct {
	ID          string    `json:"id"`
	Kind        string    `json:"kind" enum:"totp,passkey,recovery,mail,sms"`
	Label       string    `json:"label,omitempty"`
	To          string    `json:"to,omitempty" doc:"Of mail and sms: where codes are sent, shortened."`
	Left        *int      `json:"left,omitempty" doc:"Of recovery: the number of unused codes."`
	Pending     bool      `json:"pending" doc:"Not confirmed yet: it opens nothing, and is forgotten after an hour."`
	CreatedAt   time.Time `json:"created_at"`
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"`
}

// NewFactor requests a second factor.
type NewFactor struct {
	Label   string `json:"label,omitempty" maxLength:"64" doc:"Names the device." example:"My iPhone"`
	Address string `json:"address,omitempty" maxLength:"320" doc:"Of mail: an address outside of the mailbox's domain."`
	Number  string `json:"number,omitempty" maxLength:"20" doc:"Of sms: a telephone number." example:"+491701234567"`
}

// CreatedFactor is a new second factor, with what no other response has.
type CreatedFactor struct {
	Factor
	Secret  Secret          `json:"secret,omitempty" doc:"Of totp, in base32, for an authenticator app."`
	URI     Secret          `json:"uri,omitempty" doc:"Of totp: the same for a QR code." example:"otpauth://totp/…"`
	Codes   []string        `json:"codes,omitempty" doc:"Of recovery-codes: each opens the account once."`
	Options json.RawMessage `json:"options,omitempty" doc:"Of passkeys: for navigator.credentials.create()."`
}

// FactorProof proves a new second factor.
type FactorProof struct {
	Code       string          `json:"code,omitempty" maxLength:"64" writeOnly:"true" doc:"Of the app, or as it was sent."`
	Credential json.RawMessage `json:"credential,omitempty" doc:"Of passkeys: the browser's PublicKeyCredential as JSON."`
}

// SentCode says where a code was sent.
type SentCode struct {
	To        string    `json:"to"`
	ExpiresAt time.Time `json:"expires_at"`
}

// FactorChallenge is a challenge for a passkey.
type FactorChallenge struct {
	ID      string          `json:"id"`
	Options json.RawMessage `json:"options" doc:"For navigator.credentials.get()."`
}

// PasskeyProof answers a challenge.
type PasskeyProof struct {
	ID         string          `json:"id" required:"true" maxLength:"64" doc:"Of the challenge."`
	Credential json.RawMessage `json:"credential" required:"true" doc:"The browser's PublicKeyCredential as JSON."`
}

// FactorAnswer stands for a passkey that was verified.
type FactorAnswer struct {
	OTP       Secret    `json:"otp" doc:"Accepted as otp once."`
	ExpiresAt time.Time `json:"expires_at"`
}
