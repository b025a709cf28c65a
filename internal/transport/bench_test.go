package transport

import (
	"strings"
	"testing"
)

func BenchmarkDecode(b *testing.B) {
	l := New(Config{})
	b.Cleanup(func() { _ = l.Close() })
	d := l.newDecoder()
	block, _, _ := strings.Cut(options("bench", "192.0.2.1:5060", ""), endBlock)
	b.ReportAllocs()
	for range b.N {
		if p := d.decode([]byte(block)); p.fault != nil {
			b.Fatal(p.fault.reason)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	l := New(Config{})
	b.Cleanup(func() { _ = l.Close() })
	block, _, _ := strings.Cut(options("bench", "192.0.2.1:5060", ""), endBlock)
	p := l.newDecoder().decode([]byte(block))
	b.ReportAllocs()
	for range b.N {
		_ = Encode(p.msg)
	}
}
