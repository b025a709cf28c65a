package main

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

func TestFiguresAreReadAsTheyWereWritten(t *testing.T) {
	f := figures{
		about:  []string{"here"},
		loads:  []figure{{1, bare, 500, 99, 1, 7 * time.Microsecond, 2048, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond}},
		limits: []limit{{1, bare, 1000, true}},
	}
	path := filepath.Join(t.TempDir(), "f.tsv")
	if err := f.write(path); err != nil {
		t.Fatal(err)
	}
	got, err := readFigures(path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(f.loads, got.loads) || !reflect.DeepEqual(f.limits, got.limits) {
		t.Fatalf("%+v, not %+v", got, f)
	}
}

func TestRatiosAreOfOneRound(t *testing.T) {
	f := figures{loads: []figure{
		{round: 0, server: bare, rate: 500, cpu: 100 * time.Microsecond}, {round: 1, server: bare, rate: 500, cpu: 300 * time.Microsecond},
		{round: 0, server: "server", rate: 500, cpu: 50 * time.Microsecond}, {round: 1, server: "server", rate: 500, cpu: 300 * time.Microsecond},
	}}
	value, ratio := f.of(measures[0], "server", 500)
	if value != (spread{300, 50, 300}) || ratio != (spread{1, 0.5, 1}) {
		t.Fatalf("%+v %+v", value, ratio)
	}
}

func TestTimesAreFromTheFirstINVITEToThe200(t *testing.T) {
	path := filepath.Join(t.TempDir(), "messages")
	log := "d\tt\t10.0\tS\t1\tCSeq:1 INVITE\tINVITE sip:a SIP/2.0\nd\tt\t10.25\tS\t1\tCSeq:1 INVITE\tINVITE sip:a SIP/2.0\n" +
		"d\tt\t10.3\tR\t1\tCSeq:1 INVITE\tSIP/2.0 180 Ringing\nd\tt\t10.5\tR\t1\tCSeq:1 INVITE\tSIP/2.0 200 OK\n" +
		"d\tt\t10.6\tR\t1\tCSeq:1 INVITE\tSIP/2.0 200 OK\nd\tt\t10.7\tS\t1\tCSeq:2 BYE\tBYE sip:a SIP/2.0\n"
	if err := os.WriteFile(path, []byte(log), 0o644); err != nil {
		t.Fatal(err)
	}
	times, err := readTimes(path)
	if err != nil || len(times) != 1 || times[0] != 500*time.Millisecond {
		t.Fatal(times, err)
	}
}
