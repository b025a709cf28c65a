package test

import (
	"testing"

	"sipdialog.example/dialog"
)

// FuzzDialogNames reads the headers that name a call: what is read is whole, and
// what it is written as is read as the same.
func FuzzDialogNames(f *testing.F) {
	for _, seed := range []string{
		"98732@sip.example.com;from-tag=r33th4x0r;to-tag=ff87ff", "12adf2f34456gs5;to-tag=12345;from-tag=54321;early-only",
		"87134@171.161.34.23;to-tag=24796;from-tag=0", "id%3Bto-tag%3DT%3Bfrom-tag%3DF", "a;local-tag=b;remote-tag=c",
		"a;from-tag=b;from-tag=c;to-tag=d", ";;;==", `a;from-tag="b;to-tag=c";to-tag=d`, `a;to-tag=b;from-tag="c`, `a"<b;from-tag=c;to-tag=d`, "a;to-tag;from-tag=", "%", "a;early-only=;from-tag=%3B;to-tag=b",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		info, err := dialog.ParseReplacesHeader(value)
		if (err == nil) != (info != nil) {
			t.Fatalf("%q: %+v, %v", value, info, err)
		}
		if err == nil {
			if info.CallID == "" || info.FromTag == "" || info.ToTag == "" {
				t.Fatalf("%q: %+v", value, info)
			}
			again, err := dialog.ParseReplacesHeader(info.BuildReplacesHeader())
			if err != nil || *again != *info {
				t.Fatalf("%q: %+v, then %+v, %v", value, info, again, err)
			}
		}
		if key, err := dialog.ParseTargetDialog(value); err == nil && (key.CallID == "" || key.LocalTag == "" || key.RemoteTag == "") {
			t.Fatalf("%q: %+v", value, key)
		}
	})
}
