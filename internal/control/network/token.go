package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// clientToken remembers what a request with a ClientToken asked for and made. It is kept as long as that exists.
type clientToken struct {
	ID       string     `json:"id"`   // hash of operation and token
	Hash     string     `json:"hash"` // of the parameters
	Kind     state.Kind `json:"kind"`
	Resource string     `json:"resource"`
	Created  time.Time  `json:"created"`
}

func clientTokens() state.Table[clientToken] {
	return state.Table[clientToken]{Kind: "client-token", ID: func(t *clientToken) string { return t.ID }}
}

// once runs create for the first request of an operation with this ClientToken, and finds what that made for its repeats. The
// same token with other parameters is a fault. An empty token promises nothing. A token whose resource is gone is new.
func once[T any](s *Service, tx state.Tx, operation, token string, parameters any, t state.Table[T], create func() (*T, error)) (*T, error) {
	if token == "" {
		return create()
	}
	if err := checkToken(token); err != nil {
		return nil, err
	}
	hash, err := hashOf(parameters)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256([]byte(operation + "\n" + token))
	key := hex.EncodeToString(id[:])
	had, ok, err := clientTokens().Get(tx, key)
	if err != nil {
		return nil, err
	}
	if ok {
		v, there, err := t.Get(tx, had.Resource)
		if err != nil {
			return nil, err
		}
		if e, is := any(v).(*vpc.Endpoint); is && there {
			there = e.State != vpc.EndpointDeleted // a record that lingers
		}
		switch {
		case there && had.Hash != hash:
			return nil, fault.Newf(fault.Mismatch, "", "", "The client token '%.64s' was used with other parameters", token).WithCode("IdempotentParameterMismatch")
		case there:
			return v, nil
		}
	}
	out, err := create()
	if err != nil {
		return nil, err
	}
	return out, clientTokens().Put(tx, &clientToken{ID: key, Hash: hash, Kind: t.Kind, Resource: t.ID(out), Created: s.now().UTC()})
}

func hashOf(parameters any) (string, error) {
	b, err := json.Marshal(parameters)
	if err != nil {
		return "", fmt.Errorf("hash request: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

// checkToken applies EC2's rule for tokens: at most 64 characters of ASCII.
func checkToken(token string) error {
	if len(token) > 64 {
		return invalid("Value (%.64s) for parameter ClientToken is invalid. It has at most 64 characters.", token)
	}
	for _, c := range token {
		if c < ' ' || c > '~' {
			return invalid("Value for parameter ClientToken is invalid. It has ASCII characters only.")
		}
	}
	return nil
}

// dropTokens forgets the tokens of what is gone.
func dropTokens(tx state.Tx) error {
	all, err := clientTokens().List(tx, state.Query{})
	if err != nil {
		return err
	}
	for _, t := range all {
		_, err := tx.Get(t.Kind, t.Resource)
		if errors.Is(err, state.ErrNotFound) {
			err = clientTokens().Delete(tx, t.ID)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// failInterrupted ends the analyses that a crash interrupted: the state that they were about is gone.
func failInterrupted(tx state.Tx) error {
	left, err := vpc.InsightsAnalyses().By(tx, "status", string(vpc.AnalysisRunning))
	if err != nil {
		return err
	}
	for _, a := range left {
		a.Status, a.Message = vpc.AnalysisFailed, "The analysis was interrupted by a restart. Start another."
		if err := vpc.InsightsAnalyses().Put(tx, a); err != nil {
			return err
		}
	}
	return nil
}
