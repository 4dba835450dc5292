package mime

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParameters(t *testing.T) {
	for value, want := range map[string][]param{
		`text/plain`:                                   nil,
		`text/plain; charset=utf-8;`:                   {{"charset", "utf-8"}},
		`text/plain; charset="utf-8`:                   {{"charset", "utf-8"}},
		`a/b; name=my file (1).doc; x=y`:               {{"name", "my file (1).doc"}, {"x", "y"}},
		`a/b; name="C:\dir\f.doc"`:                     {{"name", `C:\dir\f.doc`}},
		`a/b; name="a\"b;c"; y=z`:                      {{"name", `a"b;c`}, {"y", "z"}},
		`a/b (x; y=z); q=1`:                            {{"q", "1"}},
		`a/b; n*=utf-8'en'%e2%82%ac%20x`:               {{"n", "€ x"}},
		`a/b; n*1=cd; n*0=ab`:                          {{"n", "abcd"}},
		`a/b; n*0*=iso-8859-1''%fc; n*1*=%FC`:          {{"n", "üü"}},
		`a/b; n=plain; n*=utf-8''other`:                {{"n", "plain"}, {"n", "other"}},
		`a/b; n*0=a; m*0=b; n*1=c`:                     {{"m", "b"}, {"n", "ac"}},
		`a/b; ((((; x=y`:                               {{"x", "y"}},
		`a/b; n*=100%`:                                 {{"n", "100%"}},
		`attachment; filename="a.exe"; filename=b.txt`: {{"filename", "a.exe"}, {"filename", "b.txt"}},
	} {
		if _, got := parameters(value); !cmp.Equal(got, want, cmp.AllowUnexported(param{})) {
			t.Errorf("%s: %v", value, got)
		}
	}
}

func TestDecodeWords(t *testing.T) {
	for value, want := range map[string]string{
		"plain":                             "plain",
		"=?utf-8?q?a_b=C3=BC?=":             "a bü",
		"=?UTF-8?B?w7w=?=":                  "ü",
		"=?UTF-8?B?w7w?= careless":          "ü careless",
		"=?utf-8?q?a?= =?utf-8?q?b?=":       "ab",
		"=?utf-8?q?a?=\r\n =?utf-8?q?b?=":   "ab",
		"=?utf-8?q?a?= x =?utf-8?q?b?=":     "a x b",
		"=?utf-8?q?=C3?= =?utf-8?q?=BC?=":   "ü", // a character in two words
		"=?utf-8?q?a?==?iso-8859-1?q?=FC?=": "aü",
		"Re:=?utf-8?q?x?=":                  "Re:x",
		"=?x-klingon?q?a?=":                 "=?x-klingon?q?a?=",
		"=?utf-8?q?a=0Ab?=":                 "a b",
		"=?utf-8*en?q?a?=":                  "a",
		"=?utf-8?x?a?= =? =?utf-8?q?":       "=?utf-8?x?a?= =? =?utf-8?q?",
		"=?utf-8?q??=":                      "",
		"M\xfcller":                         "Müller",
	} {
		if got := DecodeWords(value); got != want {
			t.Errorf("%q: %q, not %q", value, got, want)
		}
	}
	for _, text := range []string{"Grüße", strings.Repeat("机密数字", 40), "=?utf-8?q?x?=", "a\nb"} {
		if got := DecodeWords(EncodeWords(text)); got != strings.ReplaceAll(text, "\n", " ") {
			t.Errorf("%q came back as %q", text, got)
		}
	}
	// Many words that never end take no more than a moment.
	if got := DecodeWords(strings.Repeat("=?a?q?x", 100_000)); len(got) != 700_000 {
		t.Error(len(got))
	}
}

func TestTag(t *testing.T) {
	const ext, chinese = "[EXT]", "[外部]"
	encoded := EncodeWords(chinese)
	for _, c := range []struct{ tag, subject, tagged, untagged string }{
		{ext, "Figures", "[EXT] Figures", "Figures"},
		{ext, "", "[EXT]", ""},
		{ext, "[EXT] Figures", "[EXT] Figures", "Figures"},
		{ext, "Re: [EXT] Figures", "[EXT] Re: Figures", "Re: Figures"},
		{ext, "[EXT] Re: [EXT] AW: Figures", "[EXT] Re: AW: Figures", "Re: AW: Figures"},
		{ext, "RE[2]: [EXT]Figures", "[EXT] RE[2]: Figures", "RE[2]: Figures"},
		{ext, "回复：[EXT] Figures", "[EXT] 回复：Figures", "回复：Figures"},
		{ext, "About [EXT] tags", "[EXT] About [EXT] tags", "About [EXT] tags"},
		{ext, "Regards: [EXT]", "[EXT] Regards: [EXT]", "Regards: [EXT]"},
		{ext, "=?iso-2022-jp?B?GyRCP3Q7ehsoQg==?=", "[EXT] =?iso-2022-jp?B?GyRCP3Q7ehsoQg==?=", "=?iso-2022-jp?B?GyRCP3Q7ehsoQg==?="},
		{ext, "=?utf-8?Q?Re=3A_[EXT]_Gr=C3=BC=C3=9Fe?=", "[EXT] " + EncodeWords("Re: Grüße"), EncodeWords("Re: Grüße")},
		{ext, " folded\n subject", "[EXT] folded\n subject", " folded\n subject"},
		{chinese, "Figures", encoded + " Figures", "Figures"},
		{chinese, encoded + " Figures", encoded + " Figures", "Figures"},
		{chinese, "=?utf-8?q?=C3=BC?=", EncodeWords(chinese+" ") + " =?utf-8?q?=C3=BC?=", "=?utf-8?q?=C3=BC?="},
		{chinese, "Re: " + encoded + " Figures", encoded + " Re: Figures", "Re: Figures"},
		{"", "Figures", "Figures", "Figures"},
	} {
		if got := Tag(c.subject, c.tag); got != c.tagged {
			t.Errorf("%q with %s: %q, not %q", c.subject, c.tag, got, c.tagged)
		}
		if got, _ := Untag(c.subject, c.tag); got != c.untagged {
			t.Errorf("%q without %s: %q, not %q", c.subject, c.tag, got, c.untagged)
		}
	}
}

func FuzzTag(f *testing.F) {
	f.Add("Re: [EXT] =?utf-8?q?x?=", "[EXT]")
	f.Add("=?utf-8?Q?Re=3A_[EXT]_Gr=C3=BC=C3=9Fe?=", "[外部]")
	f.Fuzz(func(t *testing.T, subject, tag string) {
		if strings.TrimSpace(tag) != tag || strings.ContainsAny(tag, "\r\n\x00?=") || strings.ContainsAny(subject, "\r\n\x00") || tag == "" || replyWord(tag) > 0 {
			return
		}
		once := Tag(subject, tag)
		if again := Tag(once, tag); again != once {
			t.Fatalf("%q tagged with %q is %q, and again %q", subject, tag, once, again)
		}
	})
}
