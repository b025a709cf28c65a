package past

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

type value struct{ n int }

func record(i int, alias bool, size int) Record[value] {
	r := Record[value]{Key: fmt.Sprint("key-", i), Note: fmt.Sprint(i), Data: []byte(strings.Repeat("x", size)), Value: value{i}}
	if alias {
		r.Alias = fmt.Sprint("alias-", i)
	}
	return r
}

// model does slowly what a Store does.
type model struct {
	records map[string]Record[value]
	aliases map[string]string
	ends    map[string]time.Duration
}

func (m *model) add(end time.Duration, r Record[value]) {
	m.records[r.Key], m.ends[r.Key] = r, end
	if r.Alias != "" {
		m.aliases[r.Alias] = r.Key
	}
}

func (m *model) drop(now time.Duration) (records, text int) {
	for key, end := range m.ends {
		if end > now {
			continue
		}
		r := m.records[key]
		records++
		text += r.Text()
		delete(m.records, key)
		delete(m.ends, key)
		delete(m.aliases, r.Alias)
	}
	return records, text
}

func (m *model) next() (end time.Duration, found bool) {
	for _, e := range m.ends {
		if !found || e < end {
			end, found = e, true
		}
	}
	return end, found
}

// Records are added and expire in any order, with any hashes: all the same, but for a few
// bits, or the hash of everything.
func TestAStoreIsAMapWhoseEntriesEnd(t *testing.T) {
	waits := []time.Duration{5, 32, 33}
	for _, bits := range []uint64{^uint64(0), 0, 3} {
		t.Run(fmt.Sprintf("bits %x", bits), func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(1, bits))
			s := New[value]()
			s.bits = bits
			m := &model{records: map[string]Record[value]{}, aliases: map[string]string{}, ends: map[string]time.Duration{}}
			now, made := time.Duration(0), 0
			for step := range 4000 {
				for range rnd.IntN(4) * (step / 500 % 2) { // it is filled, and becomes empty, in turn
					r := record(made, rnd.IntN(2) == 0, rnd.IntN(10)*rnd.IntN(400))
					made++
					wait := waits[rnd.IntN(len(waits))]
					s.Add(now, wait, &r)
					r.Data = append([]byte(nil), r.Data...)
					m.add(now+wait, r)
				}
				now += time.Duration(rnd.IntN(3))
				end, found := m.next()
				gotEnd, gotFound := s.Next()
				require.Equal(t, found, gotFound)
				require.Equal(t, end, gotEnd)
				records, text := m.drop(now)
				gotRecords, gotText := s.Drop(now)
				require.Equal(t, [2]int{records, text}, [2]int{gotRecords, gotText})
				require.Equal(t, len(m.records), s.Len())
				requireSame(t, s, m, made)
			}
			s.Drop(now + time.Hour)
			require.Zero(t, s.Len())
			require.Nil(t, s.chunks)
			require.Nil(t, s.keys.heads)
		})
	}
}

// requireSame looks some records up, also ones that have ended or never were.
func requireSame(t *testing.T, s *Store[value], m *model, made int) {
	t.Helper()
	for i := max(0, made-40); i < made+2; i += 3 {
		key, alias := fmt.Sprint("key-", i), fmt.Sprint("alias-", i)
		want, there := m.records[key]
		got, found := s.Find([]byte(key))
		require.Equal(t, there, found)
		require.Equal(t, want.Value, got.Value)
		require.Equal(t, string(want.Data), string(got.Data))
		require.Equal(t, want.Alias, got.Alias)
		require.Equal(t, want.Note, got.Note)
		named, found := s.FindAlias([]byte(alias))
		require.Equal(t, m.aliases[alias] != "", found)
		require.Equal(t, m.aliases[alias], named.Key)
	}
}

// A record that was found does not change when its memory is reused.
func TestFoundRecordsAreCopies(t *testing.T) {
	s := New[value]()
	kept, first, second := record(0, false, 10), record(1, true, 10), record(2, true, 10)
	second.Data = []byte("yyyyyyyyyy")
	s.Add(0, 100, &kept)
	s.Add(0, 1, &first)
	found, _ := s.Find([]byte(first.Key))
	s.Drop(1)
	s.Add(2, 1, &second)
	require.Equal(t, first, found)
	now, _ := s.Find([]byte(second.Key))
	require.Equal(t, second, now)
}

// In a store that is as full all the time nothing is allocated.
func TestMemoryServesAgain(t *testing.T) {
	s := New[value]()
	now := time.Duration(0)
	var records [2000]Record[value]
	for i := range records {
		records[i] = record(i, true, 300)
	}
	round := func() {
		for i := range records {
			now++
			s.Drop(now)
			s.Add(now, 1000, &records[i])
		}
	}
	round()
	round()
	require.Less(t, testing.AllocsPerRun(5, round), 50.0)
}

func BenchmarkAdd(b *testing.B) {
	s := New[value]()
	var records [20000]Record[value]
	for i := range records {
		records[i] = record(i, true, 350)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		s.Drop(time.Duration(i))
		s.Add(time.Duration(i), 10000, &records[i%len(records)])
	}
}
