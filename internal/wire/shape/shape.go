// Package shape reads the generated API structs once and tells the codecs what each of them looks like on the wire.
//
// A struct's tags say everything: json is the member's name in AWS JSON; in, out and item are its names in Query
// requests, XML answers and XML lists; check, each and key are the constraints of the member, of its items (or map
// values) and of its map keys, as "required;sensitive;minlen=1;maxlen=9;min=1;max=9;minitems=1;maxitems=9;enum=Name;
// not=REGEXP;pattern=REGEXP" with the pattern last.
package shape

//go:generate go run -C ../../../tools ./apigen

import (
	"fmt"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Kind is the class of a Type.
type Kind uint8

// The kinds. A scalar member is a Go pointer, a scalar item is not.
const (
	String Kind = iota + 1
	Int32
	Int64
	Float64
	Bool
	Time
	Blob
	List
	Map // keys are strings
	Struct
)

// Type is a value's form on the wire. It is immutable once built and may be shared.
type Type struct {
	Kind   Kind
	Elem   *Type   // of a List or Map
	Fields []Field // of a Struct, in the model's order
	Go     reflect.Type

	byJSON map[string]int
	byIn   map[string]int
}

// Field is one member of a Struct.
type Field struct {
	Name     string // the member's name in the model
	JSON     string
	In       string // name in Query requests
	Out      string // element name in XML answers
	Item     string // element name of a list's items
	Type     *Type
	Index    int  // of the Go field
	Pointer  bool // the Go field is a pointer to the value
	Required bool
	Secret   bool // never shown in messages or logs

	own, each, key rules
}

// rules are the constraints of one value. Nil or empty means none.
type rules struct {
	minLen, maxLen, minItems, maxItems, min, max *int64
	enum                                         []string
	pattern                                      *pattern
}

func (r *rules) empty() bool {
	return r.minLen == nil && r.maxLen == nil && r.minItems == nil && r.maxItems == nil &&
		r.min == nil && r.max == nil && r.enum == nil && r.pattern == nil
}

// pattern is a regular expression over the whole value, compiled at its first use.
type pattern struct {
	text    string
	compile func() (yes, not *regexp.Regexp)
}

func newPattern(text, not string) *pattern {
	return &pattern{text: text, compile: sync.OnceValues(func() (*regexp.Regexp, *regexp.Regexp) {
		yes := regexp.MustCompile(`\A(?:` + text + `)\z`) // checked when the tag was written
		if not == "" {
			return yes, nil
		}
		return yes, regexp.MustCompile(not)
	})}
}

func (p *pattern) match(s string) bool {
	yes, not := p.compile()
	return yes.MatchString(s) && (not == nil || !not.MatchString(s))
}

// Schemas builds the Types of one API package. It is not safe for concurrent use; the Types are.
type Schemas struct {
	enums    func(name string) []string
	types    map[reflect.Type]*Type
	patterns map[[2]string]*pattern
}

// NewSchemas makes a builder; enums lists the values of a named enumeration of the API package.
func NewSchemas(enums func(name string) []string) *Schemas {
	return &Schemas{enums: enums, types: map[reflect.Type]*Type{}, patterns: map[[2]string]*pattern{}}
}

// Of is the form of a generated struct. It fails for a Go type that no wire format has.
func (s *Schemas) Of(t reflect.Type) (*Type, error) {
	if st, ok := s.types[t]; ok {
		return st, nil
	}
	st := &Type{Go: t}
	s.types[t] = st // before its fields, so that a shape may contain itself
	switch {
	case t == reflect.TypeFor[time.Time]():
		st.Kind = Time
	case t == reflect.TypeFor[[]byte]():
		st.Kind = Blob
	case t.Kind() == reflect.String:
		st.Kind = String
	case t.Kind() == reflect.Int32:
		st.Kind = Int32
	case t.Kind() == reflect.Int64:
		st.Kind = Int64
	case t.Kind() == reflect.Float64:
		st.Kind = Float64
	case t.Kind() == reflect.Bool:
		st.Kind = Bool
	case t.Kind() == reflect.Slice, t.Kind() == reflect.Map:
		st.Kind = List
		if t.Kind() == reflect.Map {
			st.Kind = Map
			if t.Key().Kind() != reflect.String {
				return nil, fmt.Errorf("map %s: keys must be strings", t)
			}
		}
		elem, err := s.Of(t.Elem())
		if err != nil {
			return nil, err
		}
		st.Elem = elem
	case t.Kind() == reflect.Struct:
		st.Kind = Struct
		if err := s.fields(st); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s has no form on the wire", t)
	}
	return st, nil
}

func (s *Schemas) fields(st *Type) error {
	n := st.Go.NumField()
	st.byJSON, st.byIn = make(map[string]int, n), make(map[string]int, n)
	st.Fields = make([]Field, n)
	for i := range n {
		gf := st.Go.Field(i)
		f := &st.Fields[i]
		f.Index = i
		f.JSON, f.In, f.Out, f.Item = gf.Tag.Get("json"), gf.Tag.Get("in"), gf.Tag.Get("out"), gf.Tag.Get("item")
		f.Name = gf.Name
		ft := gf.Type
		if ft.Kind() == reflect.Pointer {
			f.Pointer = true
			ft = ft.Elem()
		}
		var err error
		if f.Type, err = s.Of(ft); err != nil {
			return fmt.Errorf("%s.%s: %w", st.Go.Name(), gf.Name, err)
		}
		for _, r := range []struct {
			tag  string
			into *rules
		}{{"check", &f.own}, {"each", &f.each}, {"key", &f.key}} {
			if err := s.parse(f, gf.Tag.Get(r.tag), r.into); err != nil {
				return fmt.Errorf("%s.%s: tag %s: %w", st.Go.Name(), gf.Name, r.tag, err)
			}
		}
		if f.JSON != "" {
			st.byJSON[f.JSON] = i
		}
		if f.In != "" {
			st.byIn[f.In] = i
		}
	}
	return nil
}

// parse reads one tag of constraints. Required and sensitive belong to the field whichever tag names them.
func (s *Schemas) parse(f *Field, tag string, r *rules) error {
	var not string
	for tag != "" {
		var word string
		if strings.HasPrefix(tag, "pattern=") {
			word, tag = tag, ""
		} else {
			word, tag, _ = strings.Cut(tag, ";")
		}
		key, value, _ := strings.Cut(word, "=")
		var into **int64
		switch key {
		case "required":
			f.Required = true
			continue
		case "sensitive":
			f.Secret = true
			continue
		case "enum":
			if r.enum = s.enums(value); r.enum == nil {
				return fmt.Errorf("unknown enumeration %q", value)
			}
			continue
		case "not":
			not = value
			continue
		case "pattern":
			id := [2]string{value, not}
			if s.patterns[id] == nil {
				s.patterns[id] = newPattern(value, not)
			}
			r.pattern = s.patterns[id]
			continue
		case "minlen":
			into = &r.minLen
		case "maxlen":
			into = &r.maxLen
		case "minitems":
			into = &r.minItems
		case "maxitems":
			into = &r.maxItems
		case "min":
			into = &r.min
		case "max":
			into = &r.max
		default:
			return fmt.Errorf("unknown word %q", word)
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil {
			return fmt.Errorf("%s: %w", word, err)
		}
		*into = &n
	}
	return nil
}

// ByJSON finds a member by its exact JSON name.
func (t *Type) ByJSON(name []byte) *Field {
	if i, ok := t.byJSON[string(name)]; ok {
		return &t.Fields[i]
	}
	return nil
}

// ByIn finds a member by its exact name in Query requests.
func (t *Type) ByIn(name string) *Field {
	if i, ok := t.byIn[name]; ok {
		return &t.Fields[i]
	}
	return nil
}

// Value is the field of the struct v and whether it is present: a nil pointer, slice or map is absent.
func (f *Field) Value(v reflect.Value) (reflect.Value, bool) {
	fv := v.Field(f.Index)
	if fv.IsNil() { // every field is a pointer, a slice or a map
		return fv, false
	}
	if f.Pointer {
		return fv.Elem(), true
	}
	return fv, true
}

// Settable is the field of the struct v, made present so that it can be decoded into.
func (f *Field) Settable(v reflect.Value) reflect.Value {
	fv := v.Field(f.Index)
	if f.Pointer {
		fv.Set(reflect.New(f.Type.Go))
		return fv.Elem()
	}
	return fv
}

// TimeOf is the time that v, a value of kind Time, holds.
func TimeOf(v reflect.Value) time.Time {
	if v.CanAddr() {
		return *v.Addr().Interface().(*time.Time) // a pointer in an interface needs no memory of its own
	}
	return v.Interface().(time.Time)
}
