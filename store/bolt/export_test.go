package bolt

import bolt "go.etcd.io/bbolt"

// Sizes counts what the buckets hold.
func (s *Store) Sizes() (calls, due, expires int) {
	_ = s.db.View(func(tx *bolt.Tx) error {
		calls, due, expires = tx.Bucket(callsBucket).Stats().KeyN, tx.Bucket(dueBucket).Stats().KeyN, tx.Bucket(expiresBucket).Stats().KeyN
		return nil
	})
	return calls, due, expires
}
