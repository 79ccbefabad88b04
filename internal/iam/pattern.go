package iam

import (
	"strings"
	"unicode/utf8"
)

// In compiled patterns these bytes stand for the wildcards. They occur in no UTF-8 text, so what a policy variable puts
// into a pattern is never a wildcard.
const (
	manyByte = 0xff // *
	oneByte  = 0xfe // ?
)

// pattern is a value of a policy that may hold wildcards and policy variables.
type pattern struct {
	text  string // when parts is nil
	parts []part
}

type part struct {
	text     string
	variable string // lower-case key; empty for text
	name     string // the variable as written
	fallback string
	has      bool // a fallback
}

var wildcards = strings.NewReplacer("*", string([]byte{manyByte}), "?", string([]byte{oneByte}))

func compileWild(s string) string { return wildcards.Replace(s) }

// compile reads a value; wild says whether * and ? are wildcards, variables whether ${…} is one. It is false when a
// variable is not well formed.
func compile(s string, wild, variables bool) (pattern, bool) {
	literal := func(s string) string {
		if wild {
			return compileWild(s)
		}
		return s
	}
	if !variables || !strings.Contains(s, "${") {
		return pattern{text: literal(s)}, true
	}
	var p pattern
	for s != "" {
		before, rest, found := strings.Cut(s, "${")
		if before != "" {
			p.parts = append(p.parts, part{text: literal(before)})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(rest, "}")
		if !closed {
			return pattern{}, false
		}
		s = after
		if name == "*" || name == "?" || name == "$" {
			p.parts = append(p.parts, part{text: name})
			continue
		}
		v := part{}
		key, fallback, has := strings.Cut(name, ",")
		if has {
			fallback = strings.TrimSpace(fallback)
			if len(fallback) < 2 || fallback[0] != '\'' || fallback[len(fallback)-1] != '\'' {
				return pattern{}, false
			}
			v.fallback, v.has = fallback[1:len(fallback)-1], true
		}
		v.name = strings.TrimSpace(key)
		v.variable = LowerKey(v.name)
		if !strings.Contains(v.variable, ":") {
			return pattern{}, false
		}
		p.parts = append(p.parts, v)
	}
	return p, true
}

// LowerKey is the form in which names of condition keys are compared: ASCII letters in lower case. Other letters stay, or a tag whose key
// holds U+212A (the Kelvin sign) would pass for one with a k.
func LowerKey(name string) string {
	for i := range len(name) {
		if c := name[i]; c >= 'A' && c <= 'Z' {
			b := []byte(name)
			for i, c := range b {
				if c >= 'A' && c <= 'Z' {
					b[i] = c + 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return name
}

// resolve puts the request's values in the place of variables; false when one has no single value.
func (p *pattern) resolve(r *Request) (string, bool) {
	if p.parts == nil {
		return p.text, true
	}
	var b strings.Builder
	for _, t := range p.parts {
		if t.variable == "" {
			b.WriteString(t.text)
			continue
		}
		v, ok := r.values(t.variable)
		switch {
		case ok && len(v) == 1:
			b.WriteString(strings.ToValidUTF8(v[0], "\uFFFD"))
		case !ok && t.has:
			b.WriteString(t.fallback)
		default:
			return "", false
		}
	}
	return b.String(), true
}

// matchPattern reports whether all of s is what the compiled pattern says. With fold, ASCII letters of s count as lower case.
// It needs no memory and at most len(p)*len(s) steps.
func matchPattern(p, s string, fold bool) bool {
	i, j, star, mark := 0, 0, -1, 0
	for j < len(s) {
		if i < len(p) {
			switch c := p[i]; c {
			case manyByte:
				star, mark = i, j
				i++
				continue
			case oneByte:
				_, size := utf8.DecodeRuneInString(s[j:])
				i, j = i+1, j+size
				continue
			default:
				d := s[j]
				if fold && d >= 'A' && d <= 'Z' {
					d += 'a' - 'A'
				}
				if c == d {
					i, j = i+1, j+1
					continue
				}
			}
		}
		if star < 0 {
			return false
		}
		_, size := utf8.DecodeRuneInString(s[mark:])
		mark += size
		i, j = star+1, mark
	}
	for i < len(p) && p[i] == manyByte {
		i++
	}
	return i == len(p)
}

// matchARN compares the six parts of ARNs one by one.
func matchARN(p, s string) bool {
	for range 5 {
		ph, pt, pok := strings.Cut(p, ":")
		sh, st, sok := strings.Cut(s, ":")
		if !pok || !sok || !matchPattern(ph, sh, false) {
			return false
		}
		p, s = pt, st
	}
	return matchPattern(p, s, false)
}
