package apiserver

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"reflect"
)

// pager makes the tokens by which clients ask for the next page: what is inside is hidden from them, cannot be changed and is
// good for one operation of one account. Handlers see what is inside. It is safe for concurrent use.
type pager struct{ aead cipher.AEAD }

// newPager derives its key from secret; without one tokens end with the process.
func newPager(secret []byte) (*pager, error) {
	if len(secret) == 0 {
		secret = make([]byte, 32)
		rand.Read(secret) // never fails
	}
	key := sha256.Sum256(append([]byte("penstock next-token 1\n"), secret...))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		return nil, fmt.Errorf("make the key of tokens: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("make the key of tokens: %w", err)
	}
	return &pager{aead}, nil
}

func (p *pager) seal(text, purpose string) string {
	return base64.RawURLEncoding.EncodeToString(p.aead.Seal(nil, nil, []byte(text), []byte(purpose)))
}

func (p *pager) open(token, purpose string) (string, bool) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil {
		return "", false
	}
	text, err := p.aead.Open(nil, nil, sealed, []byte(purpose))
	return string(text), err == nil
}

// purpose is what a token of this request is good for.
func (x *exchange) purpose() string {
	return x.server.options.AccountID + " " + x.service.signingName() + ":" + x.operation
}

// openNextToken puts what is inside of a request's token in its place.
func (x *exchange) openNextToken(in any) error {
	token := nextToken(in)
	if token == nil || *token == nil {
		return nil
	}
	if **token == "" {
		*token = nil
		return nil
	}
	text, ok := x.server.pager.open(**token, x.purpose())
	if !ok {
		return &apiError{"InvalidNextToken", "The value of NextToken is not valid: it is no token that an earlier answer of this operation carried.", http.StatusBadRequest}
	}
	*token = &text
	return nil
}

// sealNextToken seals the token of an answer.
func (x *exchange) sealNextToken(out any) {
	if token := nextToken(out); token != nil && *token != nil {
		*token = new(x.server.pager.seal(**token, x.purpose()))
	}
}

// nextToken is the member NextToken of an input or output; nil when it has none.
func nextToken(v any) **string {
	f := reflect.ValueOf(v).Elem().FieldByName("NextToken")
	if !f.IsValid() {
		return nil
	}
	p, _ := reflect.TypeAssert[**string](f.Addr())
	return p
}
