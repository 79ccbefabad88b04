package query

import (
	"encoding/base64"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock.dev/penstock/internal/wire/shape"
)

// Style is how a protocol names the items of lists.
type Style int

// The styles.
const (
	Flat   Style = iota // EC2: Filter.1.Value.1
	Member              // AWS Query: Tags.member.1.Key, and maps as Name.entry.1.key
)

// Decode reads the form into the struct that into points to, whose form is t. It returns the names of parameters that t
// does not have, in order, without those in known. Every error is an *Error.
func Decode(f *Form, style Style, t *shape.Type, into any, known ...string) (unknown []string, err error) {
	d := decoder{style: style}
	v := reflect.ValueOf(into).Elem()
	for _, name := range sortedKids(&f.root) {
		if slices.Contains(known, name) {
			continue
		}
		if err := d.member(t, v, name, f.root.kids[name], ""); err != nil {
			return nil, err
		}
	}
	return d.unknown, nil
}

type decoder struct {
	style   Style
	unknown []string
}

func sortedKids(n *node) []string {
	names := make([]string, 0, len(n.kids))
	for name := range n.kids {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (d *decoder) member(t *shape.Type, v reflect.Value, name string, n *node, path string) error {
	if path != "" {
		path += "."
	}
	path += name
	f := t.ByIn(name)
	if f == nil {
		d.strange(path)
		return nil
	}
	return d.value(f.Type, f.Settable(v), n, path)
}

func (d *decoder) strange(path string) {
	if len(d.unknown) < 10 {
		d.unknown = append(d.unknown, clip(path))
	}
}

func (d *decoder) value(t *shape.Type, v reflect.Value, n *node, path string) error {
	switch t.Kind {
	case shape.Struct:
		if n.set {
			return bad(path, n.value, "a structure has no value of its own")
		}
		for _, name := range sortedKids(n) {
			if err := d.member(t, v, name, n.kids[name], path); err != nil {
				return err
			}
		}
		return nil
	case shape.List:
		v.Set(reflect.MakeSlice(t.Go, 0, 0))
		if n.set {
			if n.value != "" { // Name= is how Query clients write an empty list
				return bad(path, n.value, "a list has no value of its own")
			}
			return nil
		}
		if d.style == Member {
			if n = d.only(n, "member", path); n == nil {
				return nil
			}
			path += ".member"
		}
		items, err := n.list(path)
		if err != nil {
			return err
		}
		list := reflect.MakeSlice(t.Go, len(items), len(items))
		for i, it := range items {
			if err := d.value(t.Elem, list.Index(i), it.node, path+"."+strconv.Itoa(it.index)); err != nil {
				return err
			}
		}
		v.Set(list)
		return nil
	case shape.Map:
		v.Set(reflect.MakeMap(t.Go))
		if n = d.only(n, "entry", path); n == nil {
			return nil
		}
		items, err := n.list(path + ".entry")
		if err != nil {
			return err
		}
		for _, it := range items {
			at := path + ".entry." + strconv.Itoa(it.index)
			key, value := it.node.kids["key"], it.node.kids["value"]
			if key == nil || value == nil || !key.set {
				return &Error{Problem: Malformed, Parameter: clip(at), Reason: "a map entry needs a key and a value"}
			}
			elem := reflect.New(t.Elem.Go).Elem()
			if err := d.value(t.Elem, elem, value, at+".value"); err != nil {
				return err
			}
			v.SetMapIndex(reflect.ValueOf(key.value), elem)
		}
		return nil
	case shape.String, shape.Int32, shape.Int64, shape.Float64, shape.Bool, shape.Time, shape.Blob:
	}
	if !n.set {
		return &Error{Problem: Malformed, Parameter: clip(path + "." + sortedKids(n)[0]), Reason: "the parameter has no parts"}
	}
	return scalar(t, v, n.value, path)
}

// only is n's child of that name; others are unknown parameters.
func (d *decoder) only(n *node, name, path string) *node {
	for _, k := range sortedKids(n) {
		if k != name {
			d.strange(path + "." + k)
		}
	}
	return n.kids[name]
}

func scalar(t *shape.Type, v reflect.Value, s, path string) error {
	switch t.Kind {
	case shape.String:
		v.SetString(s)
	case shape.Bool:
		switch {
		case strings.EqualFold(s, "true"):
			v.SetBool(true)
		case strings.EqualFold(s, "false"):
			v.SetBool(false)
		default:
			return bad(path, s, "want true or false")
		}
	case shape.Int32, shape.Int64:
		bits := 64
		if t.Kind == shape.Int32 {
			bits = 32
		}
		n, err := strconv.ParseInt(s, 10, bits)
		if err != nil {
			return bad(path, s, "want an integer")
		}
		v.SetInt(n)
	case shape.Float64:
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return bad(path, s, "want a number")
		}
		v.SetFloat(n)
	case shape.Time:
		at, err := parseTime(s)
		if err != nil {
			return bad(path, s, "want a time such as 2026-01-02T15:04:05Z")
		}
		v.Set(reflect.ValueOf(at))
	case shape.Blob:
		raw, err := base64.StdEncoding.DecodeString(s)
		if err != nil {
			return bad(path, s, "want base64")
		}
		v.SetBytes(raw)
	case shape.List, shape.Map, shape.Struct:
	}
	return nil
}

func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		t, err = time.Parse("20060102T150405Z", s)
	}
	return t.UTC(), err
}

func bad(path, value, reason string) error {
	return &Error{Problem: BadValue, Parameter: clip(path), Value: clip(value), Reason: reason}
}
