package awsjson

import (
	"encoding/base64"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"penstock.dev/penstock/internal/wire/shape"
)

// ContentType is the type of requests and answers.
const ContentType = "application/x-amz-json-1.1"

// Append writes the struct that from points to, whose form is t, after b. Absent members are left out, an empty
// struct is {}, times are epoch seconds with at most three decimals, map keys are sorted.
func Append(b []byte, t *shape.Type, from any) []byte {
	return appendStruct(b, t, reflect.ValueOf(from).Elem())
}

// AppendError writes an error body: __type is what clients branch on, and Message what they show.
func AppendError(b []byte, code, message string) []byte {
	b = append(b, `{"__type":`...)
	b = appendString(b, code)
	b = append(b, `,"Message":`...)
	b = appendString(b, message)
	return append(b, '}')
}

func appendStruct(b []byte, t *shape.Type, v reflect.Value) []byte {
	b = append(b, '{')
	first := true
	for i := range t.Fields {
		f := &t.Fields[i]
		fv, present := f.Value(v)
		if !present {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = appendString(b, f.JSON)
		b = append(b, ':')
		b = appendValue(b, f.Type, fv)
	}
	return append(b, '}')
}

func appendValue(b []byte, t *shape.Type, v reflect.Value) []byte {
	switch t.Kind {
	case shape.String:
		return appendString(b, v.String())
	case shape.Int32, shape.Int64:
		return strconv.AppendInt(b, v.Int(), 10)
	case shape.Float64:
		if n := v.Float(); !math.IsNaN(n) && !math.IsInf(n, 0) {
			return strconv.AppendFloat(b, n, 'g', -1, 64)
		}
		return append(b, "null"...)
	case shape.Bool:
		return strconv.AppendBool(b, v.Bool())
	case shape.Time:
		return appendTime(b, shape.TimeOf(v))
	case shape.Blob:
		b = append(b, '"')
		b = base64.StdEncoding.AppendEncode(b, v.Bytes())
		return append(b, '"')
	case shape.List:
		b = append(b, '[')
		for i := range v.Len() {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendValue(b, t.Elem, v.Index(i))
		}
		return append(b, ']')
	case shape.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(x, y reflect.Value) int { return strings.Compare(x.String(), y.String()) })
		b = append(b, '{')
		for i, k := range keys {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendString(b, k.String())
			b = append(b, ':')
			b = appendValue(b, t.Elem, v.MapIndex(k))
		}
		return append(b, '}')
	case shape.Struct:
		return appendStruct(b, t, v)
	}
	return append(b, "null"...)
}

func appendTime(b []byte, t time.Time) []byte {
	ms := t.UnixMilli()
	if ms%1000 == 0 {
		return strconv.AppendInt(b, ms/1000, 10)
	}
	return strconv.AppendFloat(b, float64(ms)/1000, 'f', -1, 64)
}

// appendString writes a JSON string; text that is not UTF-8 is replaced, since JSON has no other way.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c != '"' && c != '\\' && c < utf8.RuneSelf {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			if r == utf8.RuneError && n == 1 {
				b = append(b, s[start:i]...)
				b = append(b, "\uFFFD"...)
				start = i + 1
			}
			i += n
			continue
		}
		b = append(b, s[start:i]...)
		switch c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\n':
			b = append(b, '\\', 'n')
		case '\r':
			b = append(b, '\\', 'r')
		case '\t':
			b = append(b, '\\', 't')
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		}
		i++
		start = i
	}
	b = append(b, s[start:]...)
	return append(b, '"')
}
