package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	rfc8555 "golang.org/x/crypto/acme"
)

// pending is an order under way. It is written before its certificate is asked for: a process that ends between the two finds
// order and key again, and the authority's limits are not used up by crashes.
type pending struct {
	URL   string   `json:"url"`
	Names []string `json:"names"`
	Key   []byte   `json:"key"` // of the certificate: PKCS #8

	key   *ecdsa.PrivateKey
	order *rfc8555.Order
}

// order goes on with the one that was kept, when it still can become a certificate, or begins another.
func (c *Client) order(ctx context.Context, client *rfc8555.Client) (*pending, error) {
	p, err := c.readOrder()
	if err != nil {
		return nil, err
	}
	if p != nil && slices.Equal(p.Names, c.o.Names) {
		p.order, err = client.GetOrder(ctx, p.URL)
		e, answered := errors.AsType[*rfc8555.Error](err)
		switch {
		case err == nil && p.order.Status != rfc8555.StatusInvalid:
			c.o.Log.Info("order of a certificate is gone on with", "order", p.URL, "status", p.order.Status)
			return p, nil
		case err != nil && (!answered || e.StatusCode >= http.StatusInternalServerError || e.StatusCode == http.StatusTooManyRequests):
			return nil, fmt.Errorf("look at the order %s: %w", p.URL, err)
		}
	}
	ids := make([]rfc8555.AuthzID, len(c.o.Names))
	for i, n := range c.o.Names {
		ids[i] = rfc8555.AuthzID{Type: "dns", Value: n}
	}
	o, err := client.AuthorizeOrder(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("order a certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	p = &pending{URL: o.URI, Names: c.o.Names, key: key, order: o}
	if p.Key, err = x509.MarshalPKCS8PrivateKey(key); err != nil {
		return nil, err
	}
	return p, c.keepOrder(p)
}

// fulfil answers the challenges of an order and returns its certificate's chain in DER. An order that failed is forgotten.
func (c *Client) fulfil(ctx context.Context, client *rfc8555.Client, p *pending) (_ [][]byte, err error) {
	defer func() {
		if _, ok := errors.AsType[*rfc8555.OrderError](err); ok {
			err = errors.Join(err, c.dropOrder())
		}
		if _, ok := errors.AsType[*rfc8555.AuthorizationError](err); ok {
			err = errors.Join(err, c.dropOrder())
		}
	}()
	if p.order.Status == rfc8555.StatusPending {
		for _, u := range p.order.AuthzURLs {
			if err := c.authorize(ctx, client, u); err != nil {
				return nil, err
			}
		}
	}
	o, err := client.WaitOrder(ctx, p.URL)
	if err != nil {
		return nil, fmt.Errorf("wait for the order: %w", err)
	}
	if o.Status == rfc8555.StatusValid { // the certificate was asked for before
		chain, err := client.FetchCert(ctx, o.CertURL, true)
		if err != nil {
			return nil, fmt.Errorf("fetch the certificate: %w", err)
		}
		return chain, nil
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: p.Names}, p.key)
	if err != nil {
		return nil, err
	}
	chain, _, err := client.CreateCertFromOrder(ctx, o, csr, true)
	if err != nil {
		if e, ok := errors.AsType[*rfc8555.Error](err); ok && e.StatusCode < http.StatusInternalServerError && e.StatusCode != http.StatusTooManyRequests {
			err = errors.Join(err, c.dropOrder()) // this order will never be one
		}
		return nil, fmt.Errorf("ask for the certificate: %w", err)
	}
	return chain, nil
}

// authorize shows the server that a name is ours.
func (c *Client) authorize(ctx context.Context, client *rfc8555.Client, url string) error {
	a, err := client.GetAuthorization(ctx, url)
	if err != nil {
		return fmt.Errorf("look at an authorization: %w", err)
	}
	name := a.Identifier.Value
	if a.Wildcard {
		name = "*." + name
	}
	switch a.Status {
	case rfc8555.StatusValid:
		return nil
	case rfc8555.StatusPending:
	default:
		return fmt.Errorf("%s: %w", name, &rfc8555.AuthorizationError{URI: url, Identifier: name, Errors: []error{fmt.Errorf("it is %s", a.Status)}})
	}
	i := slices.IndexFunc(a.Challenges, func(ch *rfc8555.Challenge) bool { return ch.Type == c.o.Challenge })
	if i < 0 {
		return fmt.Errorf("%s: the server offers no challenge %s, but %s", name, c.o.Challenge, kinds(a.Challenges))
	}
	ch := a.Challenges[i]
	done, err := c.present(client, canonical(name), ch.Token)
	if err != nil {
		return err
	}
	defer done()
	if ch.Status == rfc8555.StatusPending { // otherwise an earlier run said so
		if _, err := client.Accept(ctx, ch); err != nil {
			return fmt.Errorf("%s: begin the challenge: %w", name, err)
		}
	}
	if _, err := client.WaitAuthorization(ctx, a.URI); err != nil {
		return fmt.Errorf("%s was not authorized by %s: %w", name, c.o.Challenge, err)
	}
	return nil
}

func kinds(all []*rfc8555.Challenge) string {
	out := make([]string, len(all))
	for i, ch := range all {
		out[i] = ch.Type
	}
	return strings.Join(out, ", ")
}

// present has the answer to a challenge served until done is called.
func (c *Client) present(client *rfc8555.Client, name, token string) (done func(), err error) {
	where, key, answer := c.tokens, token, ""
	if c.o.Challenge == DNS01 {
		where, key = c.texts, name
		answer, err = client.DNS01ChallengeRecord(token)
	} else {
		answer, err = client.HTTP01ChallengeResponse(token)
	}
	if err != nil {
		return nil, fmt.Errorf("answer the challenge for %s: %w", name, err)
	}
	c.mu.Lock()
	where[key] = answer
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		delete(where, key)
		c.mu.Unlock()
	}, nil
}
