package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// tokenLife is how long a ClientToken stands for the resource that it made; EC2 promises a day.
const tokenLife = 24 * time.Hour

// clientToken remembers what a request with a ClientToken asked for and made.
type clientToken struct {
	ID       string    `json:"id"`   // hash of operation and token
	Hash     string    `json:"hash"` // of the parameters
	Resource string    `json:"resource"`
	Created  time.Time `json:"created"`
}

func clientTokens() state.Table[clientToken] {
	return state.Table[clientToken]{Kind: "client-token", ID: func(t *clientToken) string { return t.ID }}
}

// once runs create for the first request of an operation with this ClientToken, and finds what that made for its repeats. The
// same token with other parameters is a fault. An empty token promises nothing. A token whose resource is gone is new.
func once[T any](s *Service, tx state.Tx, operation, token string, parameters any, find func(id string) (T, bool, error), create func() (T, string, error)) (out T, err error) {
	if token == "" {
		out, _, err = create()
		return out, err
	}
	hash, err := hashOf(parameters)
	if err != nil {
		return out, err
	}
	id := sha256.Sum256([]byte(operation + "\n" + token))
	key := hex.EncodeToString(id[:])
	had, ok, err := clientTokens().Get(tx, key)
	if err != nil {
		return out, err
	}
	if ok && s.now().Before(had.Created.Add(tokenLife)) {
		v, there, err := find(had.Resource)
		if err != nil {
			return out, err
		}
		switch {
		case there && had.Hash != hash:
			return out, fault.Newf(fault.Mismatch, "", "", "The client token '%.64s' was used with other parameters", token).WithCode("IdempotentParameterMismatch")
		case there:
			return v, nil
		}
	}
	out, made, err := create()
	if err != nil {
		return out, err
	}
	return out, clientTokens().Put(tx, &clientToken{ID: key, Hash: hash, Resource: made, Created: s.now().UTC()})
}

// found is a find function of once for a table.
func found[T any](tx state.Tx, t state.Table[T]) func(id string) (*T, bool, error) {
	return func(id string) (*T, bool, error) { return t.Get(tx, id) }
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

// dropTokens forgets the tokens that are over.
func (s *Service) dropTokens(tx state.Tx) error {
	all, err := clientTokens().List(tx, state.Query{})
	if err != nil {
		return err
	}
	for _, t := range all {
		if s.now().Before(t.Created.Add(tokenLife)) {
			continue
		}
		if err := clientTokens().Delete(tx, t.ID); err != nil {
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
