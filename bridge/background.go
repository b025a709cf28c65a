package bridge

import "sipdialog.example/dialog/internal/extension"

// The goroutines of a bridge wait for peers. The stack counts them: its Shutdown ends what
// they wait for, and waits for them.

// background runs f on a goroutine. It reports false, and does not run f, once the stack has
// ended: then no call is left that f could end.
func (b *Bridge) background(f func()) bool {
	host := b.host()
	return host.Go != nil && host.Go(f)
}

// extend has the stack count for the bridge; the zero Host if it has ended.
func (b *Bridge) extend() extension.Host {
	host, err := b.stack.Extend(extension.Key{}, part{})
	if err != nil {
		return extension.Host{}
	}
	return host
}

// part is the bridge for its stack, which ends the calls itself.
type part struct{}

// NetworkChanged implements extension.Part.
func (part) NetworkChanged() {}

// Shutdown implements extension.Part.
func (part) Shutdown() {}
