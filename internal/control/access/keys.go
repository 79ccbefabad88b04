package access

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// Key is an access key of a user as stored.
type Key struct {
	ID       string // AKIA…
	User     string
	UserID   string // AIDA…
	Sealed   []byte // the secret, sealed under the key derived from the seed and bound to the key's and the user's ID
	Inactive bool   `json:",omitempty"`
	Created  time.Time
	Used     use
}

// use is when and for what a key was used last.
type use struct {
	At      time.Time
	Service string
	Region  string
}

// LastUsed is when a key was used last; At is zero for never.
type LastUsed struct {
	User    string
	At      time.Time
	Service string
	Region  string
}

var keys = state.Table[Key]{
	Kind: "iam-access-key",
	ID:   func(k *Key) string { return k.ID },
	Keys: func(k *Key) []state.Key { return []state.Key{{Name: "user", Value: k.UserID}} },
}

func (k *Key) bound() []byte { return []byte(k.ID + " " + k.UserID) }

// newSecret is a secret access key: 40 characters.
func newSecret() string {
	var b [30]byte
	rand.Read(b[:]) // never fails
	return base64.StdEncoding.EncodeToString(b[:])
}

// CreateKey makes an access key. This is the only time that its secret is told.
func (s *Service) CreateKey(ctx context.Context, user string) (k *Key, secret string, err error) {
	secret = newSecret()
	_, err = s.update(ctx, func(tx state.Tx) error {
		e, err := get(tx, User, user)
		if err != nil {
			return err
		}
		if n, err := tx.Count(keys.Kind, state.Key{Name: "user", Value: e.ID}); err != nil || n >= maxKeys {
			return orLimit(err, "AccessKeysPerUser", maxKeys)
		}
		k = &Key{ID: newID("AKIA"), User: e.Name, UserID: e.ID, Created: s.now()}
		k.Sealed = s.secrets.Seal(nil, nil, []byte(secret), k.bound())
		return keys.Put(tx, k)
	})
	return k, secret, err
}

// Keys lists a user's access keys.
func (s *Service) Keys(ctx context.Context, user string) (out []*Key, err error) {
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		e, err := get(r, User, user)
		if err != nil {
			return err
		}
		out, err = keys.By(r, "user", e.ID)
		return err
	})
	return out, err
}

// key finds a key of a user.
func key(r state.Reader, user, id string) (*Key, error) {
	e, err := get(r, User, user)
	if err != nil {
		return nil, err
	}
	k, ok, err := keys.Get(r, id)
	if err == nil && (!ok || k.UserID != e.ID) {
		err = noKey(id)
	}
	return k, err
}

func noKey(id string) error { return notFound("The Access Key with id %s cannot be found.", id) }

// SetKeyActive switches a key on or off.
func (s *Service) SetKeyActive(ctx context.Context, user, id string, active bool) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		k, err := key(tx, user, id)
		if err != nil {
			return err
		}
		k.Inactive = !active
		return keys.Put(tx, k)
	})
	return err
}

// DeleteKey removes a key.
func (s *Service) DeleteKey(ctx context.Context, user, id string) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		if _, err := key(tx, user, id); err != nil {
			return err
		}
		return keys.Delete(tx, id)
	})
	return err
}

// KeyLastUsed says when a key was used last, also when that is not written yet.
func (s *Service) KeyLastUsed(ctx context.Context, id string) (u LastUsed, err error) {
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		k, ok, err := keys.Get(r, id)
		if err != nil {
			return err
		}
		if !ok {
			return noKey(id)
		}
		u = LastUsed{k.User, k.Used.At, k.Used.Service, k.Used.Region}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.used[id]; ok && err == nil {
		u.At, u.Service, u.Region = n.At, n.Service, n.Region
	}
	return u, err
}

// Used notes that a key proved itself. It is written with the next batch.
func (s *Service) Used(c iam.Credential, service, region string) {
	if c.Principal.Kind != iam.User || c.SessionToken != "" {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[c.AccessKeyID] = use{s.now(), service, region}
}

// Flush writes the last-used times that were noted.
func (s *Service) Flush(ctx context.Context) error {
	s.mu.Lock()
	batch := s.used
	s.used = map[string]use{}
	s.mu.Unlock()
	if len(batch) == 0 {
		return nil
	}
	_, err := s.options.Store.Update(ctx, func(tx state.Tx) error {
		for id, u := range batch {
			k, ok, err := keys.Get(tx, id)
			if err != nil {
				return err
			}
			if !ok {
				continue // deleted since
			}
			k.Used = u
			if err := keys.Put(tx, k); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range batch {
		if _, newer := s.used[id]; !newer {
			s.used[id] = u
		}
	}
	return fmt.Errorf("write last-used times: %w", err)
}

// Lookup finds the credential of a long-lived key; NotFound when nobody has it.
func (s *Service) Lookup(ctx context.Context, accessKeyID string) (c iam.Credential, err error) {
	if root, _ := s.rootNow(); root.AccessKeyID != "" && accessKeyID == root.AccessKeyID {
		return root, nil
	}
	unknown := fault.New(fault.NotFound, "access-key", accessKeyID, "there is no such access key")
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		k, ok, err := keys.Get(r, accessKeyID)
		if err != nil {
			return err
		}
		if !ok {
			return unknown
		}
		e, ok, err := table(User).Get(r, entityID(&Entity{Name: k.User}))
		if err != nil {
			return err
		}
		if !ok || e.ID != k.UserID {
			return unknown
		}
		secret, err := s.secrets.Open(nil, nil, k.Sealed, k.bound())
		if err != nil {
			return fmt.Errorf("open the secret of access key %s: %w", k.ID, err)
		}
		c = iam.Credential{AccessKeyID: k.ID, Secret: string(secret), Inactive: k.Inactive, Principal: s.principal(e)}
		return nil
	})
	return c, err
}

func (s *Service) principal(e *Entity) iam.Principal {
	return iam.Principal{Kind: iam.User, AccountID: s.options.AccountID, Path: e.Path, Name: e.Name, ID: e.ID}
}
