package transport

import "testing"

func BenchmarkDecode(b *testing.B) {
	data, limits := []byte(options("bench", "192.0.2.1:5060", "")), Limits{}.withDefaults()
	b.ReportAllocs()
	for range b.N {
		if m, _ := decodeWhole(data, limits); m.Fault != nil {
			b.Fatal(m.Fault.Reason)
		}
	}
}

func BenchmarkEncode(b *testing.B) {
	m, _ := decodeWhole([]byte(options("bench", "192.0.2.1:5060", "")), Limits{}.withDefaults())
	b.ReportAllocs()
	for range b.N {
		_ = Encode(m.SIP())
	}
}
