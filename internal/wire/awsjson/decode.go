// Package awsjson is the AWS JSON 1.1 codec: request bodies into generated structs, structs into answers, and errors.
package awsjson

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"penstock.dev/penstock/internal/wire/shape"
)

// maxDepth bounds nesting; no modelled shape is deeper than a third of it. maxItems bounds a list or map, because an
// item may take a hundred times its text in memory; no modelled list is longer than a tenth of it.
const (
	maxDepth = 32
	maxItems = 10_000
)

// SerializationError is a body that does not have the form of its operation's input.
type SerializationError struct {
	Member string // "AccessEndpoints[0].VpceId"; empty when the body itself is at fault
	Reason string
}

func (e *SerializationError) Error() string {
	if e.Member == "" {
		return e.Reason
	}
	return e.Member + ": " + e.Reason
}

// Decode reads body into the struct that into points to, whose form is t. An empty body is an empty object, unknown
// members are ignored, null is absent. Every error is a *SerializationError that names the member.
func Decode(t *shape.Type, body []byte, into any) error {
	d := decoder{b: body}
	d.space()
	if d.i == len(d.b) {
		return nil
	}
	if d.b[d.i] != '{' {
		return d.fail("the body must be a JSON object")
	}
	if err := d.structure(t, reflect.ValueOf(into).Elem(), 0); err != nil {
		return err
	}
	d.space()
	if d.i != len(d.b) {
		return d.fail("text after the end of the JSON object")
	}
	return nil
}

// decoder walks one body. It holds no more than the body: nothing is allocated from a length that the sender states.
type decoder struct {
	b []byte
	i int
}

func (d *decoder) fail(format string, args ...any) error {
	return &SerializationError{Reason: fmt.Sprintf(format, args...)}
}

func (d *decoder) syntax() error {
	if d.i >= len(d.b) {
		return d.fail("unexpected end of the JSON text")
	}
	return d.fail("unexpected character %q at byte %d of the JSON text", d.b[d.i], d.i)
}

// at puts a step before the member that err names.
func at(step string, err error) error {
	e, ok := err.(*SerializationError) //nolint:errorlint // made in this file, never wrapped
	if !ok {
		return err
	}
	switch {
	case e.Member == "":
		e.Member = step
	case e.Member[0] == '[':
		e.Member = step + e.Member
	default:
		e.Member = step + "." + e.Member
	}
	return e
}

func (d *decoder) space() {
	for d.i < len(d.b) {
		switch d.b[d.i] {
		case ' ', '\t', '\n', '\r':
			d.i++
		default:
			return
		}
	}
}

func (d *decoder) peek() byte {
	if d.i < len(d.b) {
		return d.b[d.i]
	}
	return 0
}

// members calls each for every member of the object at the cursor, with the cursor on the member's value.
func (d *decoder) members(depth int, each func(name []byte) error) error {
	if depth >= maxDepth {
		return d.fail("the JSON text is nested deeper than %d levels", maxDepth)
	}
	d.i++ // {
	d.space()
	if d.peek() == '}' {
		d.i++
		return nil
	}
	for n := 0; ; n++ {
		if n == maxItems {
			return d.fail("an object has more than %d members", maxItems)
		}
		d.space()
		name, err := d.text()
		if err != nil {
			return err
		}
		d.space()
		if d.peek() != ':' {
			return d.syntax()
		}
		d.i++
		d.space()
		if err := each(name); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.i++
		case '}':
			d.i++
			return nil
		default:
			return d.syntax()
		}
	}
}

// items calls each for every item of the array at the cursor.
func (d *decoder) items(depth int, each func(i int) error) error {
	if depth >= maxDepth {
		return d.fail("the JSON text is nested deeper than %d levels", maxDepth)
	}
	d.i++ // [
	d.space()
	if d.peek() == ']' {
		d.i++
		return nil
	}
	for n := 0; ; n++ {
		if n == maxItems {
			return d.fail("a list has more than %d items", maxItems)
		}
		d.space()
		if err := each(n); err != nil {
			return err
		}
		d.space()
		switch d.peek() {
		case ',':
			d.i++
		case ']':
			d.i++
			return nil
		default:
			return d.syntax()
		}
	}
}

func (d *decoder) structure(t *shape.Type, v reflect.Value, depth int) error {
	return d.members(depth, func(name []byte) error {
		f := t.ByJSON(name)
		if f == nil {
			return d.skip(depth + 1)
		}
		if d.peek() == 'n' {
			v.Field(f.Index).SetZero()
			return d.word("null")
		}
		if err := d.value(f.Type, f.Settable(v), depth+1); err != nil {
			return at(f.JSON, err)
		}
		return nil
	})
}

func (d *decoder) value(t *shape.Type, v reflect.Value, depth int) error {
	c := d.peek()
	switch t.Kind {
	case shape.Struct:
		if c != '{' {
			return d.mismatch("a structure")
		}
		return d.structure(t, v, depth)
	case shape.List:
		if c != '[' {
			return d.mismatch("a list")
		}
		list := reflect.MakeSlice(t.Go, 0, 0)
		err := d.items(depth, func(i int) error {
			if d.peek() == 'n' {
				return at("["+strconv.Itoa(i)+"]", d.fail("NULL_VALUE can not be an item of a list"))
			}
			list = reflect.Append(list, reflect.Zero(t.Elem.Go))
			if err := d.value(t.Elem, list.Index(i), depth+1); err != nil {
				return at("["+strconv.Itoa(i)+"]", err)
			}
			return nil
		})
		v.Set(list)
		return err
	case shape.Map:
		if c != '{' {
			return d.mismatch("a map")
		}
		m := reflect.MakeMap(t.Go)
		err := d.members(depth, func(name []byte) error {
			key := string(name)
			if d.peek() == 'n' {
				return at("["+strconv.Quote(key)+"]", d.fail("NULL_VALUE can not be the value of a map"))
			}
			item := reflect.New(t.Elem.Go).Elem()
			if err := d.value(t.Elem, item, depth+1); err != nil {
				return at("["+strconv.Quote(key)+"]", err)
			}
			m.SetMapIndex(reflect.ValueOf(key), item)
			return nil
		})
		v.Set(m)
		return err
	case shape.String:
		if c != '"' {
			return d.mismatch("a String")
		}
		s, err := d.text()
		v.SetString(string(s))
		return err
	case shape.Blob:
		if c != '"' {
			return d.mismatch("a Blob")
		}
		s, err := d.text()
		if err != nil {
			return err
		}
		raw, err := base64.StdEncoding.AppendDecode([]byte{}, s)
		if err != nil {
			return d.fail("the value is not base64")
		}
		v.SetBytes(raw)
		return nil
	case shape.Bool:
		switch c {
		case 't':
			v.SetBool(true)
			return d.word("true")
		case 'f':
			v.SetBool(false)
			return d.word("false")
		}
		return d.mismatch("a Boolean")
	case shape.Int32, shape.Int64:
		text, err := d.number("an Integer")
		if err != nil {
			return err
		}
		bits := 64
		if t.Kind == shape.Int32 {
			bits = 32
		}
		n, err := strconv.ParseInt(text, 10, bits)
		if err != nil {
			return d.fail("the number %s is not an Integer of %d bits", clip(text), bits)
		}
		v.SetInt(n)
		return nil
	case shape.Float64:
		text, err := d.number("a Double")
		if err != nil {
			return err
		}
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return d.fail("the number %s is out of range", clip(text))
		}
		v.SetFloat(n)
		return nil
	case shape.Time:
		text, err := d.number("a Timestamp")
		if err != nil {
			return err
		}
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || seconds < minTime || seconds > maxTime {
			return d.fail("the number %s is not a time in epoch seconds", clip(text))
		}
		whole, part := math.Modf(seconds)
		*v.Addr().Interface().(*time.Time) = time.Unix(int64(whole), int64(math.Round(part*1e3))*1e6).UTC()
		return nil
	}
	return d.fail("the member has a type that cannot be read")
}

// minTime and maxTime are the years 1 to 9999 in epoch seconds.
const (
	minTime = -62135596800
	maxTime = 253402300799
)

func (d *decoder) mismatch(want string) error {
	got := ""
	switch c := d.peek(); {
	case c == '{':
		got = "START_OBJECT"
	case c == '[':
		got = "START_ARRAY"
	case c == '"':
		got = "STRING_VALUE"
	case c == 't':
		got = "TRUE_VALUE"
	case c == 'f':
		got = "FALSE_VALUE"
	case c == 'n':
		got = "NULL_VALUE"
	case c == '-' || c >= '0' && c <= '9':
		got = "NUMBER_VALUE"
	default:
		return d.syntax()
	}
	return d.fail("%s can not be converted to %s", got, want)
}

func (d *decoder) word(w string) error {
	if len(d.b)-d.i < len(w) || string(d.b[d.i:d.i+len(w)]) != w {
		return d.syntax()
	}
	d.i += len(w)
	return nil
}

// number takes the JSON number at the cursor.
func (d *decoder) number(want string) (string, error) {
	if c := d.peek(); c != '-' && (c < '0' || c > '9') {
		return "", d.mismatch(want)
	}
	start := d.i
	if d.peek() == '-' {
		d.i++
	}
	switch {
	case d.peek() == '0':
		d.i++
	case !d.digits():
		return "", d.syntax()
	}
	if d.peek() == '.' {
		d.i++
		if !d.digits() {
			return "", d.syntax()
		}
	}
	if c := d.peek(); c == 'e' || c == 'E' {
		d.i++
		if c := d.peek(); c == '+' || c == '-' {
			d.i++
		}
		if !d.digits() {
			return "", d.syntax()
		}
	}
	return string(d.b[start:d.i]), nil
}

func (d *decoder) digits() bool {
	start := d.i
	for d.i < len(d.b) && d.b[d.i] >= '0' && d.b[d.i] <= '9' {
		d.i++
	}
	return d.i > start
}

// text takes the JSON string at the cursor, unescaped. The result may share memory with the body.
func (d *decoder) text() ([]byte, error) {
	if d.peek() != '"' {
		return nil, d.syntax()
	}
	start := d.i
	d.i++
	plain := true
	for d.i < len(d.b) {
		switch c := d.b[d.i]; {
		case c == '"':
			raw := d.b[start+1 : d.i]
			d.i++
			if plain {
				if !utf8.Valid(raw) {
					return nil, d.fail("a string is not valid UTF-8")
				}
				return raw, nil
			}
			return d.unescape(d.b[start:d.i])
		case c == '\\':
			plain = false
			d.i += 2
		case c < 0x20:
			return nil, d.syntax()
		default:
			d.i++
		}
	}
	d.i = len(d.b)
	return nil, d.syntax()
}

func (d *decoder) unescape(quoted []byte) ([]byte, error) {
	if !utf8.Valid(quoted) {
		return nil, d.fail("a string is not valid UTF-8")
	}
	var s string
	if err := json.Unmarshal(quoted, &s); err != nil {
		return nil, d.fail("a string has an escape that JSON does not know")
	}
	return []byte(s), nil
}

// skip passes over a value that nobody asked for.
func (d *decoder) skip(depth int) error {
	switch c := d.peek(); c {
	case '{':
		return d.members(depth, func([]byte) error { return d.skip(depth + 1) })
	case '[':
		return d.items(depth, func(int) error { return d.skip(depth + 1) })
	case '"':
		_, err := d.text()
		return err
	case 't':
		return d.word("true")
	case 'f':
		return d.word("false")
	case 'n':
		return d.word("null")
	default:
		_, err := d.number("a value")
		return err
	}
}

func clip(s string) string {
	if len(s) > 40 {
		return s[:40] + "…"
	}
	return strings.ToValidUTF8(s, "")
}
