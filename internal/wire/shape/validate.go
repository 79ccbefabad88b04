package shape

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxViolations and maxShown bound what one bad request can make us write.
const (
	maxViolations = 10
	maxShown      = 256 // characters of a refused value
)

// Rule is the constraint that a value broke.
type Rule int

// The rules.
const (
	Required Rule = iota + 1
	MinLength
	MaxLength
	MinValue
	MaxValue
	OneOf
	Pattern
)

// Violation is one member that does not meet its constraints.
type Violation struct {
	// Member is the place in the words of AWS's JSON front ends: accessEndpoints.1.member.vpceId.
	Member string
	// Path is the place as steps: member names, and 1-based list indexes as digits.
	Path []Step
	Rule Rule
	// Constraint is the rule in the words of AWS: "Member must have length less than or equal to 100".
	Constraint string
	// Value is the refused value, shortened; "***" for a secret. Empty when the value is absent.
	Value string
}

// Step is one level on the way to a member: a field, or an item of the list before it.
type Step struct {
	Field *Field
	Item  int // 1-based; 0 for the field itself
}

// Validate checks a decoded struct (a pointer to t's Go type) against the constraints of the model.
// It reports at most ten violations, in the model's order.
func Validate(t *Type, in any) []Violation {
	var c checker
	c.structure(t, reflect.ValueOf(in).Elem())
	return c.found
}

type checker struct {
	path  []Step
	found []Violation
}

func (c *checker) structure(t *Type, v reflect.Value) {
	for i := range t.Fields {
		if len(c.found) >= maxViolations {
			return
		}
		f := &t.Fields[i]
		c.path = append(c.path, Step{Field: f})
		fv, present := f.Value(v)
		switch {
		case present:
			c.value(f, f.Type, fv, &f.own, "")
		case f.Required:
			c.add(Required, "Member must not be null", "")
		}
		c.path = c.path[:len(c.path)-1]
	}
}

// value checks one value. within is the phrase that AWS puts around the constraint of a scalar in a list or map.
func (c *checker) value(f *Field, t *Type, v reflect.Value, r *rules, within string) {
	switch t.Kind {
	case String:
		if !r.empty() {
			c.text(f, v.String(), r, within)
		}
	case Int32, Int64:
		c.number(v.Int(), r, within)
	case List:
		c.count(f, v.Len(), r)
		if f.each.empty() && t.Elem.Kind != Struct {
			return
		}
		for i := range v.Len() {
			if len(c.found) >= maxViolations {
				return
			}
			if t.Elem.Kind == Struct {
				c.path = append(c.path, Step{Item: i + 1})
				c.structure(t.Elem, v.Index(i))
				c.path = c.path[:len(c.path)-1]
				continue
			}
			c.value(f, t.Elem, v.Index(i), &f.each, "Member must satisfy constraint: [%s]")
		}
	case Map:
		c.count(f, v.Len(), r)
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			if len(c.found) >= maxViolations {
				return
			}
			if !f.key.empty() {
				c.text(f, k.String(), &f.key, "Map keys must satisfy constraint: [%s]")
			}
			c.value(f, t.Elem, v.MapIndex(k), &f.each, "Map value must satisfy constraint: [%s]")
		}
	case Struct:
		c.structure(t, v)
	case Float64, Bool, Time, Blob:
	}
}

func (c *checker) text(f *Field, s string, r *rules, within string) {
	shown := show(f, s)
	if r.minLen != nil || r.maxLen != nil {
		n := int64(utf8.RuneCountInString(s))
		if r.minLen != nil && n < *r.minLen {
			c.within(MinLength, fmt.Sprintf("Member must have length greater than or equal to %d", *r.minLen), shown, within)
		}
		if r.maxLen != nil && n > *r.maxLen {
			c.within(MaxLength, fmt.Sprintf("Member must have length less than or equal to %d", *r.maxLen), shown, within)
		}
	}
	if r.enum != nil && !slices.Contains(r.enum, s) {
		c.within(OneOf, "Member must satisfy enum value set: ["+strings.Join(r.enum, ", ")+"]", shown, within)
	}
	if r.pattern != nil && !r.pattern.match(s) {
		c.within(Pattern, "Member must satisfy regular expression pattern: "+r.pattern.text, shown, within)
	}
}

func (c *checker) number(n int64, r *rules, within string) {
	if r.min != nil && n < *r.min {
		c.within(MinValue, fmt.Sprintf("Member must have value greater than or equal to %d", *r.min), strconv.FormatInt(n, 10), within)
	}
	if r.max != nil && n > *r.max {
		c.within(MaxValue, fmt.Sprintf("Member must have value less than or equal to %d", *r.max), strconv.FormatInt(n, 10), within)
	}
}

func (c *checker) count(f *Field, n int, r *rules) {
	size := fmt.Sprintf("[%d items]", n)
	if n == 0 {
		size = "[]"
	}
	if f.Secret {
		size = "***"
	}
	if r.minItems != nil && int64(n) < *r.minItems {
		c.add(MinLength, fmt.Sprintf("Member must have length greater than or equal to %d", *r.minItems), size)
	}
	if r.maxItems != nil && int64(n) > *r.maxItems {
		c.add(MaxLength, fmt.Sprintf("Member must have length less than or equal to %d", *r.maxItems), size)
	}
}

func (c *checker) within(rule Rule, constraint, value, within string) {
	if within != "" {
		constraint = fmt.Sprintf(within, constraint)
		value = "[" + value + "]"
	}
	c.add(rule, constraint, value)
}

func (c *checker) add(rule Rule, constraint, value string) {
	if len(c.found) >= maxViolations {
		return
	}
	c.found = append(c.found, Violation{
		Member: memberPath(c.path), Path: slices.Clone(c.path), Rule: rule, Constraint: constraint, Value: value,
	})
}

func memberPath(path []Step) string {
	var b strings.Builder
	for i, s := range path {
		if i > 0 {
			b.WriteByte('.')
		}
		if s.Field == nil {
			fmt.Fprintf(&b, "%d.member", s.Item)
			continue
		}
		r, n := utf8.DecodeRuneInString(s.Field.Name)
		b.WriteRune(unicode.ToLower(r))
		b.WriteString(s.Field.Name[n:])
	}
	return b.String()
}

// show is a value as messages show it: short, valid text, never a secret.
func show(f *Field, s string) string {
	if f.Secret {
		return "***"
	}
	n := 0
	for i := range s {
		if n == maxShown {
			return strings.ToValidUTF8(s[:i], "\uFFFD") + "…"
		}
		n++
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}

// Message is the text of AWS's validation errors for violations:
// "1 validation error detected: Value 'x' at 'name' failed to satisfy constraint: Member must …".
func Message(violations []Violation) string {
	var b strings.Builder
	noun := "errors"
	if len(violations) == 1 {
		noun = "error"
	}
	fmt.Fprintf(&b, "%d validation %s detected: ", len(violations), noun)
	for i, v := range violations {
		if i > 0 {
			b.WriteString("; ")
		}
		value := "null"
		if v.Rule != Required {
			value = "'" + v.Value + "'"
		}
		fmt.Fprintf(&b, "Value %s at '%s' failed to satisfy constraint: %s", value, v.Member, v.Constraint)
	}
	return b.String()
}
