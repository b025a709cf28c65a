// Package values keeps the values that an application attaches to a call, by keys as those of
// a context. It takes no lock, so that a context with these values may be asked anywhere.
package values

import (
	"context"
	"maps"
	"reflect"
	"sync/atomic"
)

// Values are the values of one call. The zero value has none. It is safe for concurrent use.
type Values struct {
	now atomic.Pointer[table]
}

// table is never changed once it is in place.
type table struct {
	own map[any]any
	// inherited has the values that own has not; it may be nil.
	inherited context.Context
}

// Inherit has the values of ctx stand behind those that are set; before anything is set.
func (v *Values) Inherit(ctx context.Context) { v.now.Store(&table{inherited: ctx}) }

// IsKey reports whether key can be one: not nil, and comparable, whatever is in it.
func IsKey(key any) bool { return key != nil && reflect.ValueOf(key).Comparable() }

// Set sets the value of a key for which IsKey holds; nil removes it.
func (v *Values) Set(key, value any) {
	for {
		before := v.now.Load()
		after := &table{own: map[any]any{}}
		if before != nil {
			after.inherited = before.inherited
			maps.Copy(after.own, before.own)
		}
		if after.own[key] = value; value == nil {
			delete(after.own, key)
		}
		if v.now.CompareAndSwap(before, after) {
			return
		}
	}
}

// Value returns the value of a key: the one that was set, else the inherited one; nil if
// there is neither.
func (v *Values) Value(key any) any {
	t := v.now.Load()
	if t == nil || !IsKey(key) {
		return nil
	}
	if value, ok := t.own[key]; ok || t.inherited == nil {
		return value
	}
	return t.inherited.Value(key)
}

// Context returns ctx with the values behind its own.
func (v *Values) Context(ctx context.Context) context.Context { return valued{ctx, v} }

type valued struct {
	context.Context
	values *Values
}

// Value asks ctx first: package context finds a parent to cancel by a key of its own, which
// an inherited context must not answer for another.
func (c valued) Value(key any) any {
	if value := c.Context.Value(key); value != nil {
		return value
	}
	return c.values.Value(key)
}
