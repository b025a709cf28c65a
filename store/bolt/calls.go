package bolt

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	bolt "go.etcd.io/bbolt"

	"sipdialog.example/dialog"
	"sipdialog.example/dialog/internal/storerecord"
)

// The file has three buckets: the entries by key, and by time and key those that are due
// and those that expire.
var (
	callsBucket   = []byte("calls")
	dueBucket     = []byte("due")
	expiresBucket = []byte("expires")
)

// swept is the number of expired entries that each change forgets.
const swept = 8

func makeBuckets(tx *bolt.Tx) error {
	for _, name := range [][]byte{callsBucket, dueBucket, expiresBucket} {
		if _, err := tx.CreateBucketIfNotExists(name); err != nil {
			return err
		}
	}
	return nil
}

// calls has the buckets of the file in one transaction.
type calls struct {
	tx  *bolt.Tx
	now time.Time
}

// stored returns the entry of a key, expired or not, or nil.
func (c calls) stored(key dialog.StoreKey) (*storerecord.Entry, error) {
	data := c.tx.Bucket(callsBucket).Get(key[:])
	if data == nil {
		return nil, nil
	}
	e, err := storerecord.Decode(data)
	if err != nil {
		return nil, err
	}
	return &e, nil
}

// entry returns the entry of a key, or nil if there is none or it has expired.
func (c calls) entry(key dialog.StoreKey) (*storerecord.Entry, error) {
	e, err := c.stored(key)
	return e.Alive(c.now), err
}

// put writes the entry of a key in place of the earlier one.
func (c calls) put(key dialog.StoreKey, e storerecord.Entry) error {
	if err := c.remove(key); err != nil {
		return err
	}
	for name, at := range map[string]time.Time{string(dueBucket): e.Due, string(expiresBucket): e.Expires} {
		if at.IsZero() {
			continue
		}
		if err := c.tx.Bucket([]byte(name)).Put(timeKey(at, key), nil); err != nil {
			return err
		}
	}
	return c.tx.Bucket(callsBucket).Put(key[:], e.Encode())
}

// remove forgets a key.
func (c calls) remove(key dialog.StoreKey) error {
	before, err := c.stored(key)
	if before == nil || err != nil {
		return err
	}
	if err := c.tx.Bucket(dueBucket).Delete(timeKey(before.Due, key)); err != nil {
		return err
	}
	if err := c.tx.Bucket(expiresBucket).Delete(timeKey(before.Expires, key)); err != nil {
		return err
	}
	return c.tx.Bucket(callsBucket).Delete(key[:])
}

// sweep forgets some of the expired entries.
func (c calls) sweep() error {
	for _, key := range c.until(expiresBucket, c.now, swept) {
		if err := c.remove(key); err != nil {
			return err
		}
	}
	return nil
}

// claim takes the records that are due.
func (c calls) claim(before time.Time, owner string, n int) (list []dialog.Record, err error) {
	for _, key := range c.until(dueBucket, before, n) {
		now, err := c.entry(key)
		if err != nil {
			return nil, err
		}
		claimed, due := storerecord.Claim(now, before, owner)
		if !due {
			if err := c.remove(key); err != nil { // it has expired
				return nil, err
			}
			continue
		}
		if err := c.put(key, claimed); err != nil {
			return nil, err
		}
		list = append(list, claimed.Record(key))
	}
	return list, nil
}

// due returns the records that are due.
func (c calls) due(before time.Time) (list []dialog.Record, err error) {
	for _, key := range c.until(dueBucket, before, math.MaxInt) {
		now, err := c.entry(key)
		if err != nil {
			return nil, err
		}
		if now.IsDue(before) {
			list = append(list, now.Record(key))
		}
	}
	return list, nil
}

// claimAsSeen takes records that are due, unless they have changed since they were seen.
func (c calls) claimAsSeen(seen []dialog.Record, before time.Time, owner string) (list []dialog.Record, err error) {
	for _, r := range seen {
		now, err := c.entry(r.Key)
		if err != nil {
			return nil, err
		}
		claimed, due := storerecord.Claim(now, before, owner)
		if !due || now.Fence != r.Fence {
			continue
		}
		if err := c.put(r.Key, claimed); err != nil {
			return nil, err
		}
		list = append(list, claimed.Record(r.Key))
	}
	return list, nil
}

// until returns the keys of the first n entries whose time has come.
func (c calls) until(bucket []byte, now time.Time, n int) (keys []dialog.StoreKey) {
	cursor := c.tx.Bucket(bucket).Cursor()
	for at, _ := cursor.First(); at != nil && len(keys) < n; at, _ = cursor.Next() {
		if timeOf(at).After(now) {
			break
		}
		keys = append(keys, dialog.StoreKey(bytes.Clone(at[timeSize:])))
	}
	return keys
}

const timeSize = 8

// timeKey returns a key that sorts by time.
func timeKey(at time.Time, key dialog.StoreKey) []byte {
	if at.IsZero() {
		return key[:] // stands in no bucket of times
	}
	return append(binary.BigEndian.AppendUint64(nil, uint64(at.UnixMilli())), key[:]...)
}

func timeOf(timeKey []byte) time.Time {
	return time.UnixMilli(int64(binary.BigEndian.Uint64(timeKey)))
}
