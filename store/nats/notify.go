package nats

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/nats-io/nats.go"

	"sipdialog.example/dialog"
)

// movedSubject is the subject of an owner's notices about calls that were taken from it. An
// owner may have any letters, a subject may not.
func (s *Store) movedSubject(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return "sipdialog.moved." + s.bucket + "." + hex.EncodeToString(sum[:16])
}

// tellMoved notifies an owner that another one has taken a call. It does not wait; a notice
// that cannot be sent is dropped.
func (s *Store) tellMoved(key dialog.StoreKey, from, to string) {
	if from != to {
		_ = s.js.Conn().Publish(s.movedSubject(from), key[:])
	}
}

// NotifyMoved is [dialog.MoveNotifier.NotifyMoved]. The subject, sipdialog.moved.BUCKET.HASH,
// is not kept by the server: what is sent while the connection is lost does not arrive. A
// connection that is closed, or may not subscribe, has no notices.
func (s *Store) NotifyMoved(owner string, moved func(dialog.StoreKey)) (stop func()) {
	subscription, err := s.js.Conn().Subscribe(s.movedSubject(owner), func(m *nats.Msg) {
		if len(m.Data) == len(dialog.StoreKey{}) {
			moved(dialog.StoreKey(m.Data))
		}
	})
	if err != nil {
		return func() {}
	}
	return func() { _ = subscription.Unsubscribe() }
}
