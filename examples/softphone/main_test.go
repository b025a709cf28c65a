package main

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// asPhone is set in the environment of this test's own program when it plays the softphone.
const asPhone = "SOFTPHONE"

func TestMain(m *testing.M) {
	if os.Getenv(asPhone) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestRun_says_what_is_wrong(t *testing.T) {
	for want, args := range map[string][]string{
		"-as":     {"-as", "x"},
		"a b":     {"-proxy", "a b"},
		"-listen": {"-listen", "x"},
		"-ca":     {"-ca", os.Args[0]},
		"nowhere": {"-ca", "nowhere.pem"},
		"flag":    {"-x"},
	} {
		require.ErrorContains(t, run(context.Background(), args, strings.NewReader(""), io.Discard), want)
	}
}
