package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// ordered is a JSON object whose members keep the order of the text: the order of XML elements and Go fields.
type ordered[T any] struct {
	names  []string
	values map[string]T
}

func (o *ordered[T]) UnmarshalJSON(text []byte) error {
	d := json.NewDecoder(bytes.NewReader(text))
	tok, err := d.Token()
	if err != nil {
		return err
	}
	if tok == nil {
		return nil
	}
	if tok != json.Delim('{') {
		return fmt.Errorf("want an object, got %v", tok)
	}
	o.values = map[string]T{}
	for d.More() {
		tok, err := d.Token()
		if err != nil {
			return err
		}
		name := tok.(string)
		var v T
		if err := d.Decode(&v); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		o.names = append(o.names, name)
		o.values[name] = v
	}
	return nil
}

// add puts the members of another object behind those that are there.
func (o *ordered[T]) add(other ordered[T]) error {
	for _, n := range other.names {
		if _, twice := o.values[n]; twice {
			return fmt.Errorf("%s is there twice", n)
		}
		o.names = append(o.names, n)
		o.values[n] = other.values[n]
	}
	return nil
}

// trait is one member, list item, map key or map value. Its keys are explained in the model's meta.keys.
type trait struct {
	T         string
	Of        *trait
	Key       *trait
	Value     *trait
	Req       bool
	Enum      string
	MinLen    *int64
	MaxLen    *int64
	Min       *int64
	Max       *int64
	MinItems  *int64
	MaxItems  *int64
	Pattern   string
	Sensitive bool
	In        string
	Out       string
	Item      string
	KeyName   string
	ValueName string
}

// UnmarshalJSON takes the object form and the short form, which is the type's name alone.
func (t *trait) UnmarshalJSON(text []byte) error {
	if len(text) > 0 && text[0] == '"' {
		return json.Unmarshal(text, &t.T)
	}
	type plain trait
	return json.Unmarshal(text, (*plain)(t))
}

type members = ordered[*trait]

type operation struct {
	Input, Output           *members // AppStream: the members themselves
	InputShape, OutputShape string   // others: a name in shapes
	Errors                  []string
}

type apiError struct {
	Status      int
	SenderFault bool
}

// service is one service of the model and the package that its shapes go to.
type service struct {
	pkg        string
	title      string
	namespace  string // XML namespace, empty for JSON
	version    string
	protocol   protocol
	operations ordered[operation]
	shapes     ordered[*members]
	enums      ordered[[]string]
	errors     ordered[apiError]
	open       map[string]bool // enumerations that have more values than the model lists
	more       []string        // operations beyond the model's first file
}

type protocol int

const (
	awsJSON protocol = iota
	ec2Query
	awsQuery
)

// load reads every service of the embedded model.
func load() ([]*service, error) {
	var appstream, ec2, more struct {
		Meta       struct{ APIVersion, XMLNamespace string }
		Operations ordered[operation]
		Shapes     ordered[*members]
		Enums      ordered[[]string]
		Errors     ordered[apiError]
	}
	var identity struct {
		Meta struct {
			Services map[string]struct{ APIVersion, XMLNamespace string }
		}
		IAMOperations ordered[operation] `json:"iam.operations"`
		IAMShapes     ordered[*members]  `json:"iam.shapes"`
		IAMEnums      ordered[[]string]  `json:"iam.enums"`
		IAMErrors     ordered[apiError]  `json:"iam.errors"`
		STSOperations ordered[operation] `json:"sts.operations"`
		STSShapes     ordered[*members]  `json:"sts.shapes"`
		STSEnums      ordered[[]string]  `json:"sts.enums"`
		STSErrors     ordered[apiError]  `json:"sts.errors"`
	}
	for _, f := range []struct {
		name string
		into any
	}{{"appstream", &appstream}, {"ec2", &ec2}, {"ec2-more", &more}, {"iam-sts", &identity}} {
		text, err := model.ReadFile("model/" + f.name + ".json")
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(text, f.into); err != nil {
			return nil, fmt.Errorf("read model %s: %w", f.name, err)
		}
	}
	if err := errors.Join(ec2.Operations.add(more.Operations), ec2.Shapes.add(more.Shapes)); err != nil {
		return nil, fmt.Errorf("model ec2-more: %w", err)
	}
	iam, sts := identity.Meta.Services["iam"], identity.Meta.Services["sts"]
	return []*service{
		{
			pkg: "appstreamapi", title: "AppStream 2.0", protocol: awsJSON, version: appstream.Meta.APIVersion,
			operations: appstream.Operations, shapes: appstream.Shapes, enums: appstream.Enums, errors: appstream.Errors,
		},
		{
			pkg: "ec2api", title: "EC2", protocol: ec2Query, version: ec2.Meta.APIVersion, namespace: ec2.Meta.XMLNamespace,
			operations: ec2.Operations, shapes: ec2.Shapes, enums: ec2.Enums, errors: ec2.Errors,
			more: more.Operations.names,
		},
		{
			pkg: "iamapi", title: "IAM", protocol: awsQuery, version: iam.APIVersion, namespace: iam.XMLNamespace,
			operations: identity.IAMOperations, shapes: identity.IAMShapes, enums: identity.IAMEnums, errors: identity.IAMErrors,
		},
		{
			pkg: "stsapi", title: "STS", protocol: awsQuery, version: sts.APIVersion, namespace: sts.XMLNamespace,
			operations: identity.STSOperations, shapes: identity.STSShapes, enums: identity.STSEnums, errors: identity.STSErrors,
		},
	}, nil
}
