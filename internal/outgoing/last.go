package outgoing

import (
	"sync"

	"github.com/emiago/sipgo/sip"

	"sipdialog.example/dialog/internal/draft"
)

// Last keeps the text of a request that is written, perhaps more than once. The zero value
// is ready to use.
type Last struct {
	mu   sync.Mutex // guards the field below
	text []byte
}

// Note notes the request as it is written.
func (l *Last) Note(req *draft.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = req.Text()
}

// Report calls sent with the request as it was written last, but for its Via, if it was.
func (l *Last) Report(sent func(*sip.Request)) {
	l.mu.Lock()
	text := l.text
	l.mu.Unlock()
	if text != nil {
		sent(draft.Parse(text).Message().Request())
	}
}
