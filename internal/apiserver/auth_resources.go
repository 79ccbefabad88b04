package apiserver

import (
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// unquestioned are the operations that need no permission: STS lets everyone who proved a key ask who it is, and those
// that assume a role ask its trust policy in their handlers.
func unquestioned(action string) bool {
	switch action {
	case "sts:GetCallerIdentity", "sts:GetSessionToken", "sts:AssumeRole", "sts:AssumeRoleWithSAML":
		return true
	}
	return false
}

// authorize asks the policies whether the caller may do its action to the resources that the input names, by the table of authorization.
// o is nil for an operation that is not served: it is asked for everything.
func (x *exchange) authorize(ctx context.Context, c *Caller, o *servedOperation, in any) error {
	options := &x.server.options
	q := iam.Request{
		Principal: c.Principal, Action: c.Action, SourceIP: c.SourceIP, Time: options.Now(), Region: c.Region,
		UserAgent: x.request.UserAgent(), Transport: iam.Plain,
	}
	if x.request.TLS != nil {
		q.Transport = iam.Secure
	}
	if options.Access == nil {
		return x.permit(options.Authorizer.Authorize(q))
	}
	c.proof = &proof{credential: x.credential, question: q}
	x.proof = c.proof
	var all []asked
	if o != nil {
		var err error
		if all, err = x.resources(ctx, *c, o.targets, reflect.ValueOf(in).Elem()); err != nil {
			return err
		}
		for _, a := range all {
			x.named = append(x.named, a.arn)
		}
	}
	if unquestioned(c.Action) || c.Principal.Kind == iam.Root {
		return nil // no policy limits the account's root
	}
	d, err := x.decide(ctx, q, all)
	if err == nil && d.Allowed && x.service == ec2 && o != nil {
		d, err = x.mayTag(ctx, *c, q, in)
	}
	if err != nil || !d.Allowed {
		return orDenied(err, x.permit(d))
	}
	if x.service != appStream || o == nil {
		return nil
	}
	passed := textField(reflect.ValueOf(in).Elem(), "IamRoleArn")
	if passed == "" {
		return nil
	}
	q.Action, q.Resources = "iam:PassRole", []string{passed}
	q.Keys = map[string][]string{"iam:passedtoservice": {iam.AppStreamService}}
	d, err = options.Access.Authorize(ctx, x.credential, q)
	return orDenied(err, x.permit(d))
}

// asked is one resource that policies are asked about, with the condition keys of the request for it.
type asked struct {
	arn  string
	keys map[string][]string
}

// decide asks about each resource with its keys; about everything when there is none.
func (x *exchange) decide(ctx context.Context, q iam.Request, all []asked) (d iam.Decision, err error) {
	if len(all) == 0 {
		if x.service == ec2 {
			q.Keys = map[string][]string{"ec2:region": {q.Region}}
		}
		return x.server.options.Access.Authorize(ctx, x.credential, q)
	}
	for _, a := range all {
		q.Resources, q.Keys = []string{a.arn}, a.keys
		if d, err = x.server.options.Access.Authorize(ctx, x.credential, q); err != nil || !d.Allowed {
			return d, err
		}
	}
	return d, nil
}

// resources are what a request is about, by its operation's targets. None stands for everything.
func (x *exchange) resources(ctx context.Context, c Caller, targets []target, in reflect.Value) ([]asked, error) {
	var out []asked
	var err error
	switch x.service {
	case appStream:
		out, err = x.appstreamResources(ctx, c, targets, in)
	case ec2:
		out, err = x.ec2Resources(ctx, c, targets, in)
	case iamService:
		out, err = x.iamResources(ctx, c, targets, in)
	case sts:
		for _, t := range targets {
			for _, arn := range textFields(in, t.members[0]) {
				out = append(out, asked{arn: arn})
			}
		}
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(out, func(a asked) bool {
		twice := seen[a.arn]
		seen[a.arn] = true
		return twice
	}), err
}

func (x *exchange) appstreamResources(ctx context.Context, c Caller, targets []target, in reflect.Value) (out []asked, err error) {
	tags := requestTagsOf(in)
	for i := range targets {
		t := &targets[i]
		var arns []string
		for _, name := range t.values(in) {
			if !strings.HasPrefix(name, "arn:") {
				name = appstream.ARN(c.Region, c.AccountID, t.kind, name)
			}
			arns = append(arns, name)
		}
		if len(arns) == 0 && !t.optional {
			arns = []string{appstream.ARN(c.Region, c.AccountID, t.kind, "*")}
		}
		for _, arn := range arns {
			keys := t.tagKeys(tags, textFields(in, "TagKeys"))
			if x.server.options.Control != nil && !t.made {
				own, err := x.server.options.Control.Tags(ctx, arn)
				if err != nil && !fault.Is(err, fault.NotFound) {
					return nil, err
				}
				addTagKeys(keys, own, "aws:resourcetag/")
			}
			out = append(out, asked{arn, keys})
		}
	}
	return out, nil
}

func orDenied(err, denied error) error {
	if err != nil {
		return err
	}
	return denied
}

func (x *exchange) permit(d iam.Decision) error {
	if d.Allowed {
		return nil
	}
	return x.denied(d.Reason)
}

// tagKeys are the condition keys of the tags that a request gives or takes away, where the target has them.
func (t *target) tagKeys(given map[string]string, removed []string) map[string][]string {
	keys := map[string][]string{}
	if t.has("aws:RequestTag/${TagKey}") {
		addTagKeys(keys, given, "aws:requesttag/")
	}
	if t.has("aws:TagKeys") && len(given)+len(removed) > 0 {
		keys["aws:tagkeys"] = append(slices.Clone(removed), slices.Sorted(maps.Keys(given))...)
	}
	return keys
}

// requestTagsOf are the tags in a request's member Tags.
func requestTagsOf(in reflect.Value) map[string]string {
	f := in.FieldByName("Tags")
	if !f.IsValid() {
		return nil
	}
	tags := map[string]string{}
	switch f.Kind() {
	case reflect.Map:
		for k, v := range f.Seq2() {
			tags[k.String()] = v.String()
		}
	case reflect.Slice:
		for i := range f.Len() {
			tags[textField(f.Index(i), "Key")] = textField(f.Index(i), "Value")
		}
	default:
	}
	return tags
}

// addTagKeys puts tags into condition keys. Those whose keys differ in case alone are values of one condition key: a tag cannot hide
// another one from a policy.
func addTagKeys(keys map[string][]string, tags map[string]string, prefixes ...string) {
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		for _, p := range prefixes {
			name := p + iam.LowerKey(k)
			keys[name] = append(keys[name], tags[k])
		}
	}
}

// values are what the input's members say that name the target.
func (t *target) values(in reflect.Value) (out []string) {
	for _, m := range t.members {
		out = append(out, textsAt(in, strings.TrimSuffix(m, "?"))...)
	}
	return out
}

// textsAt are the texts of a member; a dot leads into a structure or into each of a list of structures.
func textsAt(in reflect.Value, path string) (out []string) {
	head, rest, deeper := strings.Cut(path, ".")
	if !deeper {
		return textFields(in, head)
	}
	f := in.FieldByName(head)
	if !f.IsValid() {
		return nil
	}
	if f.Kind() == reflect.Pointer {
		if f.IsNil() {
			return nil
		}
		f = f.Elem()
	}
	if f.Kind() == reflect.Struct {
		return textsAt(f, rest)
	}
	for i := range f.Len() {
		out = append(out, textsAt(f.Index(i), rest)...)
	}
	return out
}

func textField(in reflect.Value, name string) string {
	if f := textFields(in, name); len(f) == 1 {
		return f[0]
	}
	return ""
}

// textFields are the values of a member that is a text or a list of texts.
func textFields(in reflect.Value, name string) []string {
	f := in.FieldByName(name)
	if !f.IsValid() {
		return nil
	}
	switch v := f.Interface().(type) {
	case *string:
		if v != nil {
			return []string{*v}
		}
	case []string:
		return v
	}
	return nil
}
