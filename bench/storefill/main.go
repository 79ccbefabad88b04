// Command storefill writes sessions into the store of a `penstock dev` that does not run, to measure the API on a full store.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
)

func main() {
	data := flag.String("data-dir", "", "folder of the server")
	stack := flag.String("stack", "", "stack of the sessions")
	fleet := flag.String("fleet", "", "fleet of the sessions")
	n := flag.Int("sessions", 10_000, "how many")
	flag.Parse()
	if err := fill(*data, *stack, *fleet, *n); err != nil {
		fmt.Fprintln(os.Stderr, "storefill:", err)
		os.Exit(1)
	}
}

// fill writes sessions that ended just now: what a busy day leaves, and what DescribeSessions pages through.
func fill(data, stack, fleet string, n int) (err error) {
	ctx := context.Background()
	store, err := sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(data, "state.db")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	now := time.Now().UTC()
	const batch = 500
	for from := 0; from < n; from += batch {
		_, err := store.Update(ctx, func(tx state.Tx) error {
			for i := from; i < min(from+batch, n); i++ {
				s := &appstream.Session{
					ID:     appstream.SessionID(fmt.Sprintf("%08x-0000-4000-8000-000000000000", i)),
					UserID: fmt.Sprintf("user%d", i), AuthType: "API", Stack: stack, Fleet: fleet, Application: "xterm",
					Instance: appstream.InstanceID(fmt.Sprintf("i-%017x", i)), Endpoint: "vpce-00000000000000001",
					Origin: "http://127.80.1.4:443", State: appstream.SessionExpired, Started: now, MaxEnd: now, Ended: now,
					EndCode: appstream.EndByUser, EndReason: "You ended the session.",
				}
				if err := appstream.Sessions.Put(tx, s); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
