package iam

import (
	"encoding/base64"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

type comparison int

const (
	stringEquals comparison = iota
	stringEqualsIgnoreCase
	stringLike
	numericEquals
	numericLess
	numericLessEquals
	numericGreater
	numericGreaterEquals
	dateEquals
	dateLess
	dateLessEquals
	dateGreater
	dateGreaterEquals
	boolEquals
	binaryEquals
	ipAddress
	arnLike
	isNull
)

type setOperator int

const (
	single setOperator = iota
	forAllValues
	forAnyValue
)

// condition is one key under one operator.
type condition struct {
	compare  comparison
	negate   bool
	ifExists bool
	set      setOperator
	key      string // lower case
	values   []conditionValue

	operator, name string   // as written, for explanations
	wanted         []string // values as written
}

// conditionValue is a value of the policy, read for its operator.
type conditionValue struct {
	text   pattern
	number float64
	at     time.Time
	prefix netip.Prefix
	truth  bool
}

// parseOperator reads an operator's name such as ForAnyValue:StringNotLikeIfExists.
func parseOperator(name string) (condition, bool) {
	var c condition
	if rest, ok := strings.CutPrefix(name, "ForAllValues:"); ok {
		c.set, name = forAllValues, rest
	} else if rest, ok := strings.CutPrefix(name, "ForAnyValue:"); ok {
		c.set, name = forAnyValue, rest
	}
	if rest, ok := strings.CutSuffix(name, "IfExists"); ok {
		c.ifExists, name = true, rest
	}
	switch name {
	case "StringEquals":
		c.compare = stringEquals
	case "StringNotEquals":
		c.compare, c.negate = stringEquals, true
	case "StringEqualsIgnoreCase":
		c.compare = stringEqualsIgnoreCase
	case "StringNotEqualsIgnoreCase":
		c.compare, c.negate = stringEqualsIgnoreCase, true
	case "StringLike":
		c.compare = stringLike
	case "StringNotLike":
		c.compare, c.negate = stringLike, true
	case "NumericEquals":
		c.compare = numericEquals
	case "NumericNotEquals":
		c.compare, c.negate = numericEquals, true
	case "NumericLessThan":
		c.compare = numericLess
	case "NumericLessThanEquals":
		c.compare = numericLessEquals
	case "NumericGreaterThan":
		c.compare = numericGreater
	case "NumericGreaterThanEquals":
		c.compare = numericGreaterEquals
	case "DateEquals":
		c.compare = dateEquals
	case "DateNotEquals":
		c.compare, c.negate = dateEquals, true
	case "DateLessThan":
		c.compare = dateLess
	case "DateLessThanEquals":
		c.compare = dateLessEquals
	case "DateGreaterThan":
		c.compare = dateGreater
	case "DateGreaterThanEquals":
		c.compare = dateGreaterEquals
	case "Bool":
		c.compare = boolEquals
	case "BinaryEquals":
		c.compare = binaryEquals
	case "IpAddress":
		c.compare = ipAddress
	case "NotIpAddress":
		c.compare, c.negate = ipAddress, true
	case "ArnEquals", "ArnLike":
		c.compare = arnLike
	case "ArnNotEquals", "ArnNotLike":
		c.compare, c.negate = arnLike, true
	case "Null":
		if c.ifExists || c.set != single {
			return c, false
		}
		c.compare = isNull
	default:
		return c, false
	}
	return c, true
}

// parseValue reads a value for the condition's operator; the second result says what is wrong with it.
func (c *condition) parseValue(s string, variables bool) (v conditionValue, why string) {
	switch c.compare {
	case numericEquals, numericLess, numericLessEquals, numericGreater, numericGreaterEquals:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil || n != n {
			return v, fmt.Sprintf("Invalid condition value %.60q: a number is expected.", s)
		}
		v.number = n
	case dateEquals, dateLess, dateLessEquals, dateGreater, dateGreaterEquals:
		t, ok := parseDate(s)
		if !ok {
			return v, fmt.Sprintf("Invalid condition value %.60q: a date is expected.", s)
		}
		v.at = t
	case boolEquals, isNull:
		t, ok := parseBool(s)
		if !ok {
			return v, fmt.Sprintf("Invalid condition value %.60q: true or false is expected.", s)
		}
		v.truth = t
	case ipAddress:
		p, ok := parsePrefix(s)
		if !ok {
			return v, fmt.Sprintf("Invalid condition value %.60q: an IP address or CIDR block is expected.", s)
		}
		v.prefix = p
	case binaryEquals:
		if _, err := base64.StdEncoding.DecodeString(s); err != nil {
			return v, fmt.Sprintf("Invalid condition value %.60q: base64 is expected.", s)
		}
		v.text.text = s
	case stringEquals, stringEqualsIgnoreCase, stringLike, arnLike:
		p, ok := compile(s, c.compare == stringLike || c.compare == arnLike, variables)
		if !ok {
			return v, fmt.Sprintf("Invalid policy variable in %.200q.", s)
		}
		v.text = p
	}
	return v, ""
}

func parseBool(s string) (value, ok bool) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, true
	case strings.EqualFold(s, "false"):
		return false, true
	}
	return false, false
}

// parseDate reads the W3C forms of ISO 8601, and epoch seconds.
func parseDate(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02", "2006-01", "20060102T150405Z"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return time.Unix(n, 0), true
	}
	return time.Time{}, false
}

func parsePrefix(s string) (netip.Prefix, bool) {
	if strings.Contains(s, "/") {
		p, err := netip.ParsePrefix(s)
		return p, err == nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, a.BitLen()), true
}

// met reports whether the request meets the condition.
//
// A key that is absent fails a plain operator and meets a negated one, meets IfExists and ForAllValues, and fails
// ForAnyValue. The values of the policy are alternatives; a negated operator wants none of them.
func (c *condition) met(r *Request) bool {
	values, ok := r.values(c.key)
	if c.compare == isNull {
		for _, v := range c.values {
			if v.truth == !ok {
				return true
			}
		}
		return false
	}
	if !ok {
		switch {
		case c.ifExists, c.set == forAllValues:
			return true
		case c.set == forAnyValue:
			return false
		}
		return c.negate
	}
	switch c.set {
	case forAllValues:
		for _, v := range values {
			if c.any(r, v) == c.negate {
				return false
			}
		}
		return true
	case forAnyValue:
		for _, v := range values {
			if c.any(r, v) != c.negate {
				return true
			}
		}
		return false
	case single:
	}
	for _, v := range values {
		if c.any(r, v) {
			return !c.negate
		}
	}
	return c.negate
}

// any reports whether one value of the request meets one of the policy's, before negation.
func (c *condition) any(r *Request, got string) bool {
	var number float64
	var at time.Time
	var addr netip.Addr
	var truth, ok bool
	switch c.compare {
	case numericEquals, numericLess, numericLessEquals, numericGreater, numericGreaterEquals:
		n, err := strconv.ParseFloat(got, 64)
		if err != nil {
			return false
		}
		number = n
	case dateEquals, dateLess, dateLessEquals, dateGreater, dateGreaterEquals:
		if at, ok = parseDate(got); !ok {
			return false
		}
	case boolEquals:
		if truth, ok = parseBool(got); !ok {
			return false
		}
	case ipAddress:
		a, err := netip.ParseAddr(got)
		if err != nil {
			return false
		}
		addr = a.Unmap().WithZone("")
	case stringEquals, stringEqualsIgnoreCase, stringLike, binaryEquals, arnLike, isNull:
	}
	for i := range c.values {
		v := &c.values[i]
		var is bool
		switch c.compare {
		case numericEquals:
			is = number == v.number
		case numericLess:
			is = number < v.number
		case numericLessEquals:
			is = number <= v.number
		case numericGreater:
			is = number > v.number
		case numericGreaterEquals:
			is = number >= v.number
		case dateEquals:
			is = at.Equal(v.at)
		case dateLess:
			is = at.Before(v.at)
		case dateLessEquals:
			is = !at.After(v.at)
		case dateGreater:
			is = at.After(v.at)
		case dateGreaterEquals:
			is = !at.Before(v.at)
		case boolEquals:
			is = truth == v.truth
		case ipAddress:
			is = v.prefix.Contains(addr)
		case stringEquals, stringEqualsIgnoreCase, stringLike, arnLike, binaryEquals:
			is = c.text(r, &v.text, got)
		case isNull:
		}
		if is {
			return true
		}
	}
	return false
}

func (c *condition) text(r *Request, p *pattern, got string) bool {
	want, ok := p.resolve(r)
	if !ok {
		return false
	}
	switch c.compare {
	case stringEqualsIgnoreCase:
		return strings.EqualFold(want, got)
	case stringLike:
		return matchPattern(want, got, false)
	case arnLike:
		return matchARN(want, got)
	default:
		return want == got
	}
}
