package transport

import (
	"context"
	"fmt"
	"net"
	"slices"
)

// maxRecords bounds the look-ups that the SRV records of one service cost.
const maxRecords = 16

// services returns the targets that the SRV records of q's name give, in the
// order of trying; none and no error when the name has no such records.
func (l *Layer) services(ctx context.Context, q question) ([]Target, error) {
	var targets []Target
	var failure error // why records that are there gave no target
	for _, k := range q.kinds {
		if k.service == "" || len(targets) == maxTargets {
			continue
		}
		more, err := l.service(ctx, k, q.host)
		if ctx.Err() != nil {
			return nil, notFound(ctx, q.host, err)
		}
		if failure == nil {
			failure = err
		}
		targets = append(targets, more[:min(len(more), maxTargets-len(targets))]...)
	}
	if len(targets) > 0 {
		return targets, nil
	}
	return nil, failure
}

// service asks for one service's records. No records, for whatever reason, is
// no error: the name itself may have addresses (RFC 3263 4.2).
func (l *Layer) service(ctx context.Context, k kind, host string) ([]Target, error) {
	// The resolver orders by priority and weight (RFC 2782), and gives an error
	// together with records when it has left out malformed ones.
	_, records, err := l.cfg.Resolver.LookupSRV(ctx, k.service, k.network, host)
	if len(records) == 0 {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, nil
	}
	records, failure := usableRecords(records, host)
	var targets []Target
	for _, r := range records {
		ips, err := l.addresses(ctx, k, r.Target)
		if err != nil {
			failure = err
			continue
		}
		// The name to verify is the one that was asked for: a record is not
		// protected, and could name any domain (RFC 3263 4.1).
		targets = appendTargets(targets, k, ips, r.Port, host)
	}
	if len(targets) > 0 {
		return targets, nil
	}
	return nil, failure
}

// usableRecords leaves out records without a target, and bounds the rest. The
// resolver's order within a priority is kept.
func usableRecords(records []*net.SRV, host string) ([]*net.SRV, error) {
	usable := slices.DeleteFunc(slices.Clone(records), func(r *net.SRV) bool {
		return r == nil || r.Port == 0 || r.Target == "" || r.Target == "."
	})
	if len(usable) == 0 {
		if len(records) == 1 && records[0] != nil && records[0].Target == "." {
			// RFC 2782: decidedly not available at this domain.
			return nil, fmt.Errorf("%w: %q does not offer the service", ErrNotFound, host)
		}
		return nil, fmt.Errorf("%w: no usable SRV record of %q", ErrBadTarget, host)
	}
	slices.SortStableFunc(usable, func(a, b *net.SRV) int { return int(a.Priority) - int(b.Priority) })
	return usable[:min(len(usable), maxRecords)], nil
}
