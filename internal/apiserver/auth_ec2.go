package apiserver

import (
	"context"
	"reflect"
	"strings"

	"penstock.dev/penstock/internal/iam"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// ec2RequestKeys are EC2's condition keys that a request brings, whichever resource it is about.
func ec2RequestKeys(c Caller, in reflect.Value, into map[string][]string) {
	into["ec2:region"] = []string{c.Region}
	if name := textField(in, "ServiceName"); name != "" {
		into["ec2:vpceservicename"] = []string{name}
		into["ec2:vpceserviceowner"] = []string{"amazon"}
	}
	if _, attribute, ok := strings.Cut(c.Action, ":Modify"); ok && strings.HasSuffix(attribute, "Attribute") {
		for f, v := range in.Fields() {
			if v.Kind() == reflect.Pointer && !v.IsNil() && f.Type != reflect.TypeFor[*bool]() && !strings.HasSuffix(f.Name, "Id") {
				into["ec2:attribute"] = append(into["ec2:attribute"], f.Name)
			}
		}
	}
}

// ec2ResourceKeys are the condition keys of each resource: ec2:Vpc is the ARN of the VPC that it is in, or is to be made in.
func (x *exchange) ec2ResourceKeys(ctx context.Context, c Caller, in reflect.Value, arns []string) (map[string]map[string][]string, error) {
	arn := func(id string) string { return "arn:aws:ec2:" + c.Region + ":" + c.AccountID + ":vpc/" + id }
	ids := make([]string, 0, len(arns))
	for _, a := range arns {
		ids = append(ids, a[strings.LastIndexByte(a, '/')+1:])
	}
	places, err := x.server.options.Network.VPCsOf(ctx, append(ids, textField(in, "SubnetId")))
	if err != nil {
		return nil, err
	}
	made := textField(in, "VpcId")
	if v := places[textField(in, "SubnetId")]; made == "" && v != "" {
		made = string(v)
	}
	out := map[string]map[string][]string{}
	for i, a := range arns {
		switch v := places[ids[i]]; {
		case v != "":
			out[a] = map[string][]string{"ec2:vpc": {arn(string(v))}}
		case ids[i] == "*" && made != "":
			out[a] = map[string][]string{"ec2:vpc": {arn(made)}}
		}
	}
	return out, nil
}

// mayTag asks for ec2:CreateTags when a request gives tags to what it makes: EC2 wants that permission too, and tells its policies
// by ec2:CreateAction which operation it is for.
func (x *exchange) mayTag(ctx context.Context, c Caller, q iam.Request, in any) (iam.Decision, error) {
	f := reflect.ValueOf(in).Elem().FieldByName("TagSpecifications")
	if !f.IsValid() {
		return iam.Decision{Allowed: true}, nil
	}
	specs, _ := reflect.TypeAssert[[]api.TagSpecification](f)
	q.Resources = nil
	for _, s := range specs {
		if len(s.Tags) > 0 {
			q.Resources = append(q.Resources, "arn:aws:ec2:"+c.Region+":"+c.AccountID+":"+deref(s.ResourceType)+"/*")
		}
	}
	if len(q.Resources) == 0 {
		return iam.Decision{Allowed: true}, nil
	}
	q.Action = "ec2:CreateTags"
	q.Keys["ec2:createaction"] = []string{strings.TrimPrefix(c.Action, "ec2:")}
	return x.decide(ctx, c, q, reflect.ValueOf(in).Elem())
}
