// Package query is what the two form-encoded AWS protocols share: parameters into generated structs, structs into XML.
package query

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Bounds on what one request may make us hold. The largest real request, a thousand IDs and filters, has a tenth of it.
const (
	maxParameters = 10_000
	maxKeyLength  = 512
	maxDepth      = 16
	maxIndex      = 65_535
)

// Problem is what is wrong with a request's parameters.
type Problem int

// The problems.
const (
	// Malformed is a body that is not a form, or names that contradict each other.
	Malformed Problem = iota + 1
	// TooMany is more parameters than one request may have.
	TooMany
	// BadValue is a value that its parameter's type does not have.
	BadValue
)

// Error is a request whose parameters cannot be read.
type Error struct {
	Problem   Problem
	Parameter string // empty when the form itself is at fault
	Value     string // of a BadValue, shortened
	Reason    string
}

func (e *Error) Error() string {
	if e.Parameter == "" {
		return e.Reason
	}
	return "parameter " + e.Parameter + ": " + e.Reason
}

// Form is the parameters of one request, as a tree over the dots in their names.
type Form struct {
	root node
}

type node struct {
	value string
	set   bool
	kids  map[string]*node
}

// Parse reads an application/x-www-form-urlencoded text. skip says which parameters are not the operation's own
// (nil for none), such as a signature in a query string. Every error is an *Error.
func Parse(text string, skip func(name string) bool) (*Form, error) {
	f := &Form{}
	for n := 0; text != ""; n++ {
		if n == maxParameters {
			return nil, &Error{Problem: TooMany, Reason: fmt.Sprintf("the request has more than %d parameters", maxParameters)}
		}
		var pair string
		pair, text, _ = strings.Cut(text, "&")
		if pair == "" {
			continue
		}
		rawKey, rawValue, _ := strings.Cut(pair, "=")
		key, err := url.QueryUnescape(rawKey)
		if err != nil || !utf8.ValidString(key) {
			return nil, &Error{Problem: Malformed, Reason: "a parameter's name is not URL-encoded UTF-8"}
		}
		if len(key) > maxKeyLength {
			return nil, &Error{Problem: Malformed, Parameter: clip(key), Reason: "the name is too long"}
		}
		value, err := url.QueryUnescape(rawValue)
		if err != nil || !utf8.ValidString(value) {
			return nil, &Error{Problem: Malformed, Parameter: clip(key), Reason: "the value is not URL-encoded UTF-8"}
		}
		if skip != nil && skip(key) {
			continue
		}
		if err := f.root.put(key, value); err != nil {
			return nil, err
		}
	}
	return f, nil
}

func (n *node) put(key, value string) error {
	at := n
	rest := key
	for depth := 1; ; depth++ {
		if depth > maxDepth {
			return &Error{Problem: Malformed, Parameter: clip(key), Reason: "the name has too many parts"}
		}
		part, more, dots := strings.Cut(rest, ".")
		if part == "" {
			return &Error{Problem: Malformed, Parameter: clip(key), Reason: "the name has an empty part"}
		}
		kid := at.kids[part]
		if kid == nil {
			kid = &node{}
			if at.kids == nil {
				at.kids = map[string]*node{}
			}
			at.kids[part] = kid
		}
		if at.set {
			return &Error{Problem: Malformed, Parameter: clip(key), Reason: "the name is part of another parameter's name"}
		}
		at = kid
		if !dots {
			break
		}
		rest = more
	}
	switch {
	case at.set:
		return &Error{Problem: Malformed, Parameter: clip(key), Reason: "the parameter is there more than once"}
	case at.kids != nil:
		return &Error{Problem: Malformed, Parameter: clip(key), Reason: "the name is part of another parameter's name"}
	}
	at.value, at.set = value, true
	return nil
}

// Get is the value of a parameter whose name has no dot; empty when it is absent.
func (f *Form) Get(name string) string {
	if n := f.root.kids[name]; n != nil {
		return n.value
	}
	return ""
}

// item is one entry of a list and its index in the request.
type item struct {
	index int
	node  *node
}

// list orders the children of a node whose names are indexes. Gaps are closed, as AWS closes them.
func (n *node) list(path string) ([]item, error) {
	items := make([]item, 0, len(n.kids))
	for name, kid := range n.kids {
		i, err := strconv.Atoi(name)
		if err != nil || i < 0 || i > maxIndex || strconv.Itoa(i) != name {
			return nil, &Error{
				Problem: Malformed, Parameter: clip(path + "." + name),
				Reason: fmt.Sprintf("a list index must be a number from 1 to %d", maxIndex),
			}
		}
		items = append(items, item{i, kid})
	}
	slices.SortFunc(items, func(a, b item) int { return a.index - b.index })
	return items, nil
}

func clip(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
