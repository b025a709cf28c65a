package budget_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"sipdialog.example/dialog/internal/budget"
)

func shareOf(b *budget.Budget) *budget.Share {
	s := new(budget.Share)
	s.Belong(b)
	return s
}

func TestSharesTakeUpToTheBound(t *testing.T) {
	b := budget.New(100)
	one, two := shareOf(b), shareOf(b)
	require.True(t, one.Take(60))
	require.False(t, two.Take(41))
	require.Equal(t, 60, b.Held(), "what is refused is not counted")
	require.True(t, two.Take(40))
	require.False(t, one.Take(1))
	require.True(t, one.Take(-10), "there is always room for fewer")
	two.Give(40)
	require.Equal(t, 50, b.Held())
}

func TestReplaceCountsTheDifferenceElseLess(t *testing.T) {
	for name, row := range map[string]struct {
		before, after, less int
		kept                bool
		held                int
	}{
		"as many":              {40, 40, 0, true, 40},
		"fewer":                {40, 10, 0, true, 10},
		"up to the bound":      {40, 100, 0, true, 100},
		"beyond it: none":      {40, 101, 0, false, 0},
		"beyond it: a part":    {40, 101, 30, false, 30},
		"beyond it: as before": {40, 101, 40, false, 40},
		"more than before":     {10, 101, 50, false, 50},
	} {
		b := budget.New(100)
		s := shareOf(b)
		require.True(t, s.Take(row.before))
		require.Equal(t, row.kept, s.Replace(row.before, row.after, row.less), name)
		require.Equal(t, row.held, b.Held(), name)
		s.End()
		require.Zero(t, b.Held(), name)
	}
}

func TestAnEndedShareCountsNothing(t *testing.T) {
	b := budget.New(100)
	s := shareOf(b)
	s.Take(70)
	s.End()
	require.Zero(t, b.Held())
	s.Give(70)
	require.True(t, s.Take(1000))
	s.End()
	require.Zero(t, b.Held())
}

func TestAShareWithoutABudgetIsUnbounded(t *testing.T) {
	var s budget.Share
	require.True(t, s.Take(1<<40))
	require.True(t, s.Replace(0, 1<<40, 0))
	s.Give(1)
	s.End()
}

func TestABudgetWithoutABoundCounts(t *testing.T) {
	b := budget.New(-1)
	require.True(t, shareOf(b).Take(1<<40))
	require.Equal(t, 1<<40, b.Held())
}

func TestSharesNeverHoldMoreThanTheBoundTogether(t *testing.T) {
	b := budget.New(1000)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s := shareOf(b)
			for i := range 1000 {
				if s.Take(i % 300) {
					s.Give(i % 300)
				}
				s.Replace(0, i%300, 0)
				s.End()
				s = shareOf(b)
			}
		})
	}
	all.Wait()
	require.Zero(t, b.Held())
}
