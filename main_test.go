package dialog_test

import (
	"testing"

	"sipdialog.example/dialog/internal/testkit"
)

func TestMain(m *testing.M) { testkit.Main(m) }
