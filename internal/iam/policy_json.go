package iam

import (
	"encoding/json"
	"errors"
	"io"
	"strings"
	"unicode/utf8"
)

type nodeKind int

const (
	stringNode nodeKind = iota
	scalarNode          // number or boolean, as text
	objectNode
	arrayNode
	nullNode
)

// node is a JSON value with its place: policies are refused with the place of the mistake.
type node struct {
	kind    nodeKind
	offset  int
	end     int // after its last byte; of objects alone
	text    string
	members []member // in order; names are unique
	items   []*node
}

type member struct {
	name  string
	value *node
}

// jsonReader reads one bounded document.
type jsonReader struct {
	text  string
	dec   *json.Decoder
	count int
}

// parseJSON reads a whole document. The error is a *SyntaxError.
func parseJSON(text string) (*node, error) {
	if !utf8.ValidString(text) {
		return nil, &SyntaxError{1, 1, "Syntax errors in policy: the document is not UTF-8."}
	}
	r := &jsonReader{text: text, dec: json.NewDecoder(strings.NewReader(text))}
	r.dec.UseNumber()
	n, err := r.value(0)
	if err != nil {
		return nil, err
	}
	if _, err := r.dec.Token(); !errors.Is(err, io.EOF) {
		return nil, r.fail(r.next(), "there is text after the document.")
	}
	return n, nil
}

func (r *jsonReader) fail(offset int, why string) error {
	p := positionOf(r.text, offset)
	return &SyntaxError{p.line, p.column, "Syntax errors in policy: " + why}
}

// next is where the next token begins.
func (r *jsonReader) next() int {
	i := int(r.dec.InputOffset())
	for i < len(r.text) && strings.IndexByte(" \t\r\n,:", r.text[i]) >= 0 {
		i++
	}
	return i
}

func (r *jsonReader) token() (json.Token, int, error) {
	at := r.next()
	t, err := r.dec.Token()
	if err != nil {
		if e, ok := errors.AsType[*json.SyntaxError](err); ok {
			return nil, at, r.fail(max(0, min(len(r.text), int(e.Offset)-1)), e.Error()+".")
		}
		return nil, at, r.fail(len(r.text), "the document ends early.")
	}
	return t, at, nil
}

func (r *jsonReader) value(depth int) (*node, error) {
	t, at, err := r.token()
	if err != nil {
		return nil, err
	}
	if r.count++; r.count > maxElements {
		return nil, r.fail(at, "the document has too many elements.")
	}
	if depth > maxDepth {
		return nil, r.fail(at, "the document is nested too deeply.")
	}
	n := &node{offset: at}
	switch v := t.(type) {
	case string:
		n.text = v
		return n, nil
	case json.Number:
		n.kind, n.text = scalarNode, v.String()
		return n, nil
	case bool:
		n.kind, n.text = scalarNode, "false"
		if v {
			n.text = "true"
		}
		return n, nil
	case json.Delim:
		if v == '{' {
			n.kind = objectNode
			return n, r.object(n, depth)
		}
		n.kind = arrayNode
		for r.dec.More() {
			item, err := r.value(depth + 1)
			if err != nil {
				return nil, err
			}
			n.items = append(n.items, item)
		}
		_, _, err := r.token()
		return n, err
	}
	n.kind = nullNode
	return n, nil
}

func (r *jsonReader) object(n *node, depth int) error {
	names := map[string]bool{}
	for r.dec.More() {
		t, at, err := r.token()
		if err != nil {
			return err
		}
		name, ok := t.(string)
		if !ok {
			return r.fail(at, "a member's name must be a string.")
		}
		if names[name] {
			return r.fail(at, "a member is there twice.")
		}
		names[name] = true
		v, err := r.value(depth + 1)
		if err != nil {
			return err
		}
		n.members = append(n.members, member{name, v})
	}
	_, _, err := r.token()
	n.end = int(r.dec.InputOffset())
	return err
}

func positionOf(text string, offset int) position {
	before := text[:min(offset, len(text))]
	line := strings.Count(before, "\n")
	return position{line + 1, len(before) - strings.LastIndexByte(before, '\n')}
}
