package store

import (
	"encoding/json"
	"fmt"
	"strings"
)

// inRedis is a document as Redis keeps it, except an account.
type inRedis struct {
	Rev  uint64          `json:"r"`
	Body json.RawMessage `json:"b"`
}

// Stored returns the document as Redis keeps it: JSON with its revision, or an account packed
// behind the number of the packed form.
func (d *Doc) Stored() ([]byte, error) {
	addr, isAccount := strings.CutPrefix(d.Key, kindAccount+"/")
	if !isAccount {
		return json.Marshal(inRedis{d.Rev, d.Body})
	}
	r := d.account
	if !r.Exists() {
		v, err := decode[Account](*d)
		if err != nil {
			return nil, err
		}
		r = pack(addr, v.doc, d.Rev)
	}
	return append([]byte{packedFormat}, r.packed...), nil
}

// ReadDoc reads a document as Redis keeps it. Accounts written before schema 4 are JSON.
func ReadDoc(key, value string) (Doc, error) {
	d := Doc{Key: key}
	if addr, isAccount := strings.CutPrefix(key, kindAccount+"/"); isAccount && value != "" && value[0] != '{' {
		if value[0] != packedFormat {
			return d, fmt.Errorf("%w: it has form %d, and this program reads form %d", errPacked, value[0], packedFormat)
		}
		d.account = Record{value[1:]}
		if err := d.account.check(); err != nil {
			return d, err
		}
		if d.account.Address() != addr {
			return d, fmt.Errorf("%w: it is of %q", errPacked, d.account.Address())
		}
		return d, nil
	}
	var k inRedis
	if err := json.Unmarshal([]byte(value), &k); err != nil {
		return d, err
	}
	d.Rev, d.Body = k.Rev, k.Body
	return d, nil
}
