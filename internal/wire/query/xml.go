package query

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"penstock.dev/penstock/internal/wire/shape"
)

// ContentType is the type of answers.
const ContentType = "text/xml;charset=UTF-8"

// Header opens every answer.
const Header = `<?xml version="1.0" encoding="UTF-8"?>` + "\n"

// Writer appends XML to a buffer.
type Writer struct {
	bytes.Buffer
	// Milliseconds makes times carry three decimals, as EC2's do and those of IAM and STS do not.
	Milliseconds bool
}

// Open writes a start tag; attributes is empty or begins with a space and is already escaped.
func (w *Writer) Open(name, attributes string) {
	w.WriteByte('<')
	w.WriteString(name)
	w.WriteString(attributes)
	w.WriteByte('>')
}

// Close writes an end tag.
func (w *Writer) Close(name string) {
	w.WriteString("</")
	w.WriteString(name)
	w.WriteByte('>')
}

// Text writes an element that holds text.
func (w *Writer) Text(name, text string) {
	w.Open(name, "")
	w.escape(text)
	w.Close(name)
}

// Members writes the elements of the struct that from points to, whose form is t: present members in the model's order.
func (w *Writer) Members(t *shape.Type, from any) {
	w.structure(t, reflect.ValueOf(from).Elem())
}

func (w *Writer) structure(t *shape.Type, v reflect.Value) {
	for i := range t.Fields {
		f := &t.Fields[i]
		fv, present := f.Value(v)
		if !present {
			continue
		}
		w.Open(f.Out, "")
		w.value(f.Type, fv, f.Item)
		w.Close(f.Out)
	}
}

// value writes what stands between the tags; item is the element name of a list's items.
func (w *Writer) value(t *shape.Type, v reflect.Value, item string) {
	switch t.Kind {
	case shape.String:
		w.escape(v.String())
	case shape.Int32, shape.Int64:
		w.Write(strconv.AppendInt(w.AvailableBuffer(), v.Int(), 10))
	case shape.Float64:
		w.Write(strconv.AppendFloat(w.AvailableBuffer(), v.Float(), 'g', -1, 64))
	case shape.Bool:
		w.Write(strconv.AppendBool(w.AvailableBuffer(), v.Bool()))
	case shape.Time:
		layout := "2006-01-02T15:04:05Z"
		if w.Milliseconds {
			layout = "2006-01-02T15:04:05.000Z"
		}
		w.Write(shape.TimeOf(v).UTC().AppendFormat(w.AvailableBuffer(), layout))
	case shape.Blob:
		w.Write(base64.StdEncoding.AppendEncode(w.AvailableBuffer(), v.Bytes()))
	case shape.List:
		for i := range v.Len() {
			w.Open(item, "")
			w.value(t.Elem, v.Index(i), item)
			w.Close(item)
		}
	case shape.Map:
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			w.Open("entry", "")
			w.Text("key", k.String())
			w.Open("value", "")
			w.value(t.Elem, v.MapIndex(k), item)
			w.Close("value")
			w.Close("entry")
		}
	case shape.Struct:
		w.structure(t, v)
	}
}

// escape writes text. Characters that XML 1.0 cannot carry become U+FFFD; a carriage return is written as a reference,
// since parsers turn a bare one into a line feed.
func (w *Writer) escape(s string) {
	start := 0
	for i := 0; i < len(s); {
		r, n := rune(s[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRuneInString(s[i:])
		}
		var with string
		switch {
		case r == '&':
			with = "&amp;"
		case r == '<':
			with = "&lt;"
		case r == '>':
			with = "&gt;"
		case r == '"':
			with = "&quot;"
		case r == '\r':
			with = "&#xD;"
		case r < 0x20 && r != '\t' && r != '\n', r == utf8.RuneError && n == 1, r == 0xFFFE, r == 0xFFFF:
			with = "\uFFFD"
		default:
			i += n
			continue
		}
		w.WriteString(s[start:i])
		w.WriteString(with)
		i += n
		start = i
	}
	w.WriteString(s[start:])
}
