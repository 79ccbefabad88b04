package network

import (
	"encoding/json"
	"testing"
)

func TestCheckPolicy(t *testing.T) {
	t.Parallel()
	for document, fits := range map[string]bool{
		"":               true,
		FullAccessPolicy: true,
		`{"Version":"2008-10-17","Statement":[{"Sid":"x","Effect":"Allow","Principal":{"AWS":"*"},"Action":["*"],"Resource":["*"]}]}`:                  true,
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"}}`:                                                                 true,
		`{"Statement":{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}}`:                                                                  false,
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"appstream:*","Resource":"*"}}`:                                                       false,
		`{"Statement":{"Effect":"Allow","Principal":{"AWS":"123456789012"},"Action":"*","Resource":"*"}}`:                                              false,
		`{"Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`:                                                                                 false,
		`{"Statement":{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*","Condition":{"Bool":{"a":"b"}}}}`:                                  false,
		`{"Statement":[{"Effect":"Allow","Principal":"*","Action":"*","Resource":"*"},{"Effect":"Deny","Principal":"*","Action":"*","Resource":"*"}]}`: false,
		`{"Statement":[]}`: false,
		`{"Statement":7}`:  false,
		`{}`:               false,
		`null`:             false,
		`[`:                false,
	} {
		if err := checkPolicy(document); (err == nil) != fits {
			t.Errorf("%s: %v", document, err)
		}
	}
}

func FuzzCheckPolicy(f *testing.F) {
	f.Add(FullAccessPolicy)
	f.Add(`{"Statement":[null,{"Principal":{"AWS":["*"]}}]}`)
	f.Fuzz(func(t *testing.T, document string) {
		if err := checkPolicy(document); err == nil && document != "" && !json.Valid([]byte(document)) {
			t.Errorf("taken: %q", document)
		}
	})
}
