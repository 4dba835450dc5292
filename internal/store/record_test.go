package store

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/factor"
)

func drawTime(t *rapid.T, what string) time.Time {
	if rapid.Bool().Draw(t, what+": none") {
		return time.Time{}
	}
	return time.Unix(rapid.Int64Range(-62_135_596_800, 253_402_300_799).Draw(t, what), rapid.Int64Range(0, 999_999_999).Draw(t, what+", nanoseconds")).UTC()
}

// drawTexts draws a list, which may be nil, empty, and of long texts.
func drawTexts(t *rapid.T, what string) []string {
	if rapid.IntRange(0, 3).Draw(t, what+": none") == 0 {
		return nil
	}
	return rapid.SliceOfN(rapid.StringN(0, 300, 600), 0, 20).Draw(t, what)
}

// drawWords draws a list of texts without spaces, nil if it is empty.
func drawWords(t *rapid.T, what string) []string {
	return append([]string(nil), rapid.SliceOfN(rapid.StringMatching(`[^ ]{1,20}`), 0, 3).Draw(t, what)...)
}

func drawAccount(t *rapid.T) *Account {
	a := &Account{
		Address:     rapid.StringMatching(`[a-z]{1,64}@[a-z]{1,63}\.example`).Draw(t, "address"),
		Suspended:   rapid.Bool().Draw(t, "suspended"),
		Departments: drawTexts(t, "departments"), Aliases: drawTexts(t, "aliases"),
		Secure:      access.SecureMode(rapid.SampledFrom([]string{"", "optional", "required", "off", "of a newer version"}).Draw(t, "mode")),
		CreatedAt:   drawTime(t, "created"),
		MailboxHash: rapid.StringN(0, 200, 600).Draw(t, "mailbox hash"), MailboxSetAt: drawTime(t, "mailbox password set"),
		MustChange: rapid.Bool().Draw(t, "must change"), DisplayName: rapid.StringN(0, 20, 60).Draw(t, "display name"), FormerHashes: rapid.SliceOfN(rapid.StringN(0, 100, 300), 0, 3).Draw(t, "former"),
	}
	if len(a.FormerHashes) == 0 {
		a.FormerHashes = nil
	}
	if rapid.Bool().Draw(t, "has switches") {
		a.Protocols = rapid.MapOf(rapid.SampledFrom([]string{"imap", "pop3", "smtp", "sieve", "web", "of a newer version"}), rapid.Bool()).Draw(t, "switches")
	}
	for range rapid.IntRange(0, 5).Draw(t, "secure passwords") {
		p := SecurePassword{
			ID: rapid.OneOf(rapid.String(), rapid.StringMatching("[0-9a-f]{15,17}"), rapid.StringMatching("[0-9a-fA-F]{16}")).Draw(t, "id"), Label: rapid.String().Draw(t, "label"), PepperID: rapid.SampledFrom([]string{"", "p", "q"}).Draw(t, "pepper"),
			CreatedAt: drawTime(t, "created"), RevokedAt: drawTime(t, "revoked"), ExpiresAt: drawTime(t, "expires"),
			Protocols: drawWords(t, "protocols"), Networks: drawWords(t, "networks"),
		}
		for i := range p.Hash {
			p.Hash[i] = rapid.Byte().Draw(t, "hash")
		}
		a.Secrets = append(a.Secrets, p)
	}
	for range rapid.IntRange(0, 2).Draw(t, "factors") {
		f := Factor{
			ID: rapid.String().Draw(t, "id"), Kind: factor.Kind(rapid.SampledFrom([]string{"totp", "of a newer version"}).Draw(t, "kind")), Label: rapid.String().Draw(t, "label"),
			CreatedAt: drawTime(t, "created"), ConfirmedAt: drawTime(t, "confirmed"),
		}
		if data := rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "data"); len(data) > 0 {
			f.Data = data
		}
		a.Factors = append(a.Factors, f)
	}
	for range rapid.IntRange(0, 2).Draw(t, "batches") {
		a.Batches = append(a.Batches, BatchMark{
			At: drawTime(t, "at"), By: rapid.String().Draw(t, "by"), Scope: rapid.String().Draw(t, "scope"), Settings: drawTexts(t, "settings"),
		})
	}
	return a
}

// A record says what the document said, whole and in each part that is asked for.
func TestRecordSaysWhatTheDocumentSaid(t *testing.T) {
	var room access.Account // used again and again: nothing of an account may be left for the next
	rapid.Check(t, func(t *rapid.T) {
		a, rev := drawAccount(t), rapid.Uint64().Draw(t, "revision")
		r := pack(a.Address, a, rev)
		if back := r.revised(); !reflect.DeepEqual(back, Revised[Account]{a, rev}) {
			t.Fatalf("kept %+v\n got %+v", Revised[Account]{a, rev}, back)
		}
		f := r.Facts(&room)
		if f.Suspended != a.Suspended || f.Secure != a.Secure || f.HasSecure != (len(a.Secrets) > 0) ||
			f.Protocols != a.Protocols.Compile() || !slices.Equal(f.Departments, a.Departments) {
			t.Fatalf("decisions are told %+v of %+v", f, a)
		}
		if r.Address() != a.Address || r.MailboxHash() != a.MailboxHash || !r.MailboxSetAt().Equal(a.MailboxSetAt) || !reflect.DeepEqual(slices.Collect(r.Secrets()), a.Secrets) || r.check() != nil || !reflect.DeepEqual(r.Aliases(), a.Aliases) {
			t.Fatalf("kept %+v, read %q, %q, %v", a, r.Address(), r.MailboxHash(), slices.Collect(r.Secrets()))
		}
		for _, p := range a.Secrets {
			var want access.Secret // of two alike, the last
			for _, o := range a.Secrets {
				if o.PepperID != p.PepperID || o.Hash != p.Hash {
					continue
				}
				want = access.Secret{State: access.SecretLive, CredentialID: o.ID, Label: o.Label}
				want.Bounds = access.Bounds{Protocols: strings.Join(o.Protocols, " "), Networks: strings.Join(o.Networks, " "), Expires: o.ExpiresAt}
				if !o.RevokedAt.IsZero() {
					want.State = access.SecretRevoked
				}
			}
			if got, ok := r.Match(p.PepperID, p.Hash); !ok || !reflect.DeepEqual(got, want) {
				t.Fatalf("matched %+v %t, want %+v", got, ok, want)
			}
			if _, ok := r.Match(p.PepperID+"x", p.Hash); ok {
				t.Fatal("matched with another pepper")
			}
		}
	})
}

// Every field that a document may have is kept: this fails when one is added that a record has no
// place for.
func TestRecordKeepsEveryField(t *testing.T) {
	var a Account
	fill(t, reflect.ValueOf(&a).Elem())
	if back := pack(a.Address, &a, 1).Account(); !reflect.DeepEqual(back, &a) {
		t.Errorf("kept %+v\n got %+v", a, *back)
	}
}

// fill gives every field a value that is not its zero.
func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Date(2026, 11, 25, 9, 30, 0, 1000, time.UTC)))
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.String:
		v.SetString("imap")
	case reflect.Uint8:
		v.SetUint(7)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		if v.Kind() == reflect.Slice {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		}
		for i := range v.Len() {
			fill(t, v.Index(i))
		}
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(t, key)
		fill(t, value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	default:
		t.Fatalf("what is a %s?", v.Type())
	}
}

// Whatever bytes stand in Redis or a snapshot, reading them as an account fails, or gives a
// document that packs to the same.
func FuzzRecord(f *testing.F) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 123_000_000, time.UTC)
	a := &Account{
		Address: "ann@example.org", Departments: []string{"sales"}, Aliases: []string{"a@example.org"}, SendAs: []string{"*@example.org"},
		Protocols: access.Switches{"imap": false}, Secure: access.SecureRequired, CreatedAt: at, MailboxHash: "{X}y", MailboxSetAt: at.Add(1),
		Secrets:    []SecurePassword{{ID: NewID(), Label: "phone", PepperID: "p", CreatedAt: at, RevokedAt: at}, {ID: "x", PepperID: "p", Protocols: []string{"smtp"}, Networks: []string{"192.0.2.1", "2001:db8::/32"}, ExpiresAt: at}},
		Batches:    []BatchMark{{At: at, By: "b", Scope: "s", Settings: []string{"x"}}},
		MustChange: true, DisplayName: "Ann Smith", FormerHashes: []string{"{X}z"},
		Factors: []Factor{{ID: NewID(), Kind: factor.TOTP, Label: "phone", CreatedAt: at, ConfirmedAt: at, Data: []byte{0, 1}}, {ID: "x", Kind: factor.Mail}},
	}
	f.Add([]byte(pack(a.Address, a, 7).packed))
	f.Add([]byte(pack("b@example.org", &Account{}, 0).packed))
	var room access.Account
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ReadDoc(kindAccount+"/ann@example.org", string(append([]byte{packedFormat}, b...)))
		if err != nil {
			return
		}
		r := d.account
		doc := r.revised()
		r.Facts(&room)
		_, _ = r.Match("p", [32]byte{})
		for p := range r.Secrets() {
			if _, ok := r.Match(p.PepperID, p.Hash); !ok {
				t.Errorf("%+v does not match its own hash", p)
			}
		}
		_ = r.mayUse(func(string) bool { return false })
		want, err := json.Marshal(doc) // which leaves out what is empty, as packing does
		if err != nil {
			t.Fatal(err)
		}
		if back, err := json.Marshal(pack(doc.Doc.Address, doc.Doc, doc.Rev).revised()); err != nil || !bytes.Equal(back, want) {
			t.Errorf("%s became %s (%v)", want, back, err)
		}
	})
}

// Every record that is cut off is refused, and one with a flipped bit never makes a reader fail.
func TestDamagedRecord(t *testing.T) {
	at := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	a := &Account{Address: "ann@example.org", Departments: []string{"sales"}, CreatedAt: at, Secrets: []SecurePassword{{ID: NewID(), Label: "phone", PepperID: "p", CreatedAt: at}}}
	whole := pack(a.Address, a, 300).packed
	for i := range whole {
		if (Record{whole[:i]}).check() == nil {
			t.Errorf("cut off at %d: %q", i, whole[:i])
		}
		for bit := range 8 {
			b := []byte(whole)
			b[i] ^= 1 << bit
			if r := (Record{string(b)}); r.check() == nil {
				_ = r.revised()
			}
		}
	}
	if (Record{whole + "x"}).check() == nil {
		t.Error("a longer record is taken")
	}
}

func TestRecordOfNobody(t *testing.T) {
	var r Record
	if r.Exists() || r.Account() != nil || r.Facts(new(access.Account)) != nil || r.Address() != "" || r.MailboxHash() != "" {
		t.Error("nobody has a record")
	}
	if s := r.SecretOf("x"); s != (access.Secret{State: access.SecretRevoked, CredentialID: "x"}) {
		t.Errorf("a secure password of nobody is %+v", s)
	}
}

// However a view or a record is printed, no hash is.
func TestRecordPrintsNoHash(t *testing.T) {
	a := &Account{Address: "ann@example.org", MailboxHash: "{PLAIN}mailbox-hash", Secrets: []SecurePassword{{ID: "1", Label: "phone", Hash: [32]byte([]byte("the hash of a secure password ..."))}}}
	v := View{Account: pack(a.Address, a, 1)}
	for _, s := range []string{fmt.Sprint(v), fmt.Sprintf("%+v %#v %q %s", v, v.Account, v.Account, v.Account)} {
		if strings.Contains(s, "hash") {
			t.Errorf("printed: %s", s)
		}
	}
}

// What a login asks of a record needs no memory once there is room for it.
func TestRecordNeedsNoMemory(t *testing.T) {
	a := &Account{
		Address: "ann@example.org", Departments: []string{"sales", "sales/emea"}, Protocols: access.Switches{"imap": true, "pop3": false},
		MailboxHash: "{CRYPT}x", Secrets: []SecurePassword{{ID: "1", Label: "phone"}, {ID: "0123456789abcdef", Label: "laptop"}},
	}
	st := NewState()
	if err := st.replace(ShardOf("example.org"), Head{N: 1}, []Doc{
		doc(t, kindDomain+"/example.org", &Domain{Name: "example.org"}), doc(t, kindAccount+"/"+a.Address, a),
	}); err != nil {
		t.Fatal(err)
	}
	var room access.Account
	if n := testing.AllocsPerRun(100, func() {
		_, v := st.View(a.Address)
		v.Account.Facts(&room)
		if _, ok := v.Account.Match("", [32]byte{1}); ok {
			t.Error("whose hash is this?")
		}
		if v.Account.SecretOf("0123456789abcdef").State != access.SecretLive || v.Account.MailboxHash() != a.MailboxHash {
			t.Error("not what was put")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// Pages of all sizes, one after another, are all accounts in their order.
func TestAccountsPageByPage(t *testing.T) {
	const name = "example.org"
	docs := []Doc{doc(t, kindDomain+"/"+name, &Domain{Name: name})}
	addresses := map[string]uint64{}
	for i := range 300 {
		addr := fmt.Sprintf("user%d@%s", i*i, name)
		d := doc(t, kindAccount+"/"+addr, &Account{Address: addr})
		d.Rev = uint64(i)
		docs, addresses[addr] = append(docs, d), d.Rev
	}
	st := NewState()
	if err := st.replace(ShardOf(name), Head{N: 1}, docs); err != nil {
		t.Fatal(err)
	}
	want := slices.Sorted(maps.Keys(addresses))
	for _, limit := range []int{0, 1, 2, 7, 149, 150, 151, 299, 300, 301} {
		var got []string
		for after := ""; ; after = got[len(got)-1] {
			page := st.Accounts(name, after, limit)
			for _, a := range page {
				if a.Rev != addresses[a.Doc.Address] {
					t.Errorf("%s has revision %d", a.Doc.Address, a.Rev)
				}
				got = append(got, a.Doc.Address)
			}
			if limit == 0 || len(page) < limit {
				break
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("pages of %d: %v", limit, got)
		}
	}
}
