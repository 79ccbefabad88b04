package apiserver

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// unquestioned are the operations that need no permission: STS lets everyone who proved a key ask who it is, and AssumeRole
// asks the role's trust policy in its handler.
func unquestioned(action string) bool {
	switch action {
	case "sts:GetCallerIdentity", "sts:GetSessionToken", "sts:AssumeRole":
		return true
	}
	return false
}

// authorize asks the policies whether the caller may do its action to the resources that the input names.
func (x *exchange) authorize(ctx context.Context, c *Caller, in any) error {
	o := &x.server.options
	q := iam.Request{
		Principal: c.Principal, Action: c.Action, SourceIP: c.SourceIP, Time: o.Now(), Region: c.Region,
		UserAgent: x.request.UserAgent(), Transport: iam.Plain,
	}
	if x.request.TLS != nil {
		q.Transport = iam.Secure
	}
	if o.Access == nil {
		return x.permit(o.Authorizer.Authorize(q))
	}
	c.proof = &proof{x.credential, q}
	if in != nil {
		x.named = x.resources(ctx, *c, reflect.ValueOf(in).Elem())
	}
	if unquestioned(c.Action) || c.Principal.Kind == iam.Root {
		return nil // no policy limits the account's root
	}
	var passed string
	if in != nil {
		v := reflect.ValueOf(in).Elem()
		q.Resources, q.Keys = x.named, requestKeys(v)
		switch x.service {
		case appStream:
			passed = textField(v, "IamRoleArn")
		case ec2:
			ec2RequestKeys(*c, v, q.Keys)
		case iamService, sts:
		}
	}
	d, err := x.decide(ctx, *c, q, reflect.Indirect(reflect.ValueOf(in)))
	if err == nil && d.Allowed && x.service == ec2 && in != nil {
		d, err = x.mayTag(ctx, *c, q, in)
	}
	if err != nil || !d.Allowed || passed == "" {
		return orDenied(err, x.permit(d))
	}
	q.Action, q.Resources = "iam:PassRole", []string{passed}
	q.Keys = map[string][]string{"iam:passedtoservice": {"appstream.amazonaws.com"}}
	d, err = o.Access.Authorize(ctx, x.credential, q)
	return orDenied(err, x.permit(d))
}

// decide asks about each resource with the tags that it has and the keys that are its own.
func (x *exchange) decide(ctx context.Context, c Caller, q iam.Request, in reflect.Value) (d iam.Decision, err error) {
	resources, keys := q.Resources, q.Keys
	if len(resources) == 0 {
		return x.server.options.Access.Authorize(ctx, x.credential, q)
	}
	tags, err := x.resourceTags(ctx, resources)
	if err != nil {
		return d, err
	}
	var own map[string]map[string][]string
	if x.service == ec2 && x.server.options.Network != nil {
		if own, err = x.ec2ResourceKeys(ctx, c, in, resources); err != nil {
			return d, err
		}
	}
	for _, arn := range resources {
		q.Resources, q.Keys = []string{arn}, maps.Clone(keys)
		if q.Keys == nil {
			q.Keys = map[string][]string{}
		}
		addTagKeys(q.Keys, tags[arn], "aws:resourcetag/", x.service.signingName()+":resourcetag/")
		maps.Copy(q.Keys, own[arn])
		if d, err = x.server.options.Access.Authorize(ctx, x.credential, q); err != nil || !d.Allowed {
			return d, err
		}
	}
	return d, nil
}

// resourceTags are the tags of each resource that exists and has some.
func (x *exchange) resourceTags(ctx context.Context, arns []string) (map[string]map[string]string, error) {
	o, out := &x.server.options, map[string]map[string]string{}
	if x.service == ec2 && o.Network != nil {
		ids := make([]string, 0, len(arns))
		for _, arn := range arns {
			if id := arn[strings.LastIndexByte(arn, '/')+1:]; id != "*" {
				ids = append(ids, id)
			}
		}
		if len(ids) == 0 {
			return out, nil
		}
		tags, err := o.Network.TagsOf(ctx, ids)
		if err != nil {
			return nil, err
		}
		for _, arn := range arns {
			out[arn] = tags[arn[strings.LastIndexByte(arn, '/')+1:]]
		}
	}
	for _, arn := range arns {
		name := arn[strings.LastIndexByte(arn, '/')+1:]
		var err error
		switch {
		case x.service == appStream && o.Control != nil:
			out[arn], err = o.Control.Tags(ctx, arn)
		case x.service == iamService && strings.Contains(arn, ":user/"):
			out[arn], err = x.entityTags(ctx, access.User, name)
		case x.service == iamService && strings.Contains(arn, ":role/"):
			out[arn], err = x.entityTags(ctx, access.Role, name)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			return nil, err
		}
	}
	return out, nil
}

func (x *exchange) entityTags(ctx context.Context, k access.Kind, name string) (map[string]string, error) {
	e, err := x.server.options.Access.Get(ctx, k, name)
	if err != nil {
		return nil, err
	}
	return e.Tags, nil
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

// resources are the ARNs that a request is about; none stands for every resource.
func (x *exchange) resources(ctx context.Context, c Caller, in reflect.Value) []string {
	switch x.service {
	case appStream:
		return appstreamResources(c, x.operation, in)
	case ec2:
		return append(ec2Resources(c, x.operation, in), x.associated(ctx, c, in)...)
	case iamService:
		return x.iamResources(ctx, c, in)
	case sts:
	}
	return nil
}

// appstreamResources follows the service authorization reference: stacks, fleets and images by name, anything by its ARN.
func appstreamResources(c Caller, operation string, in reflect.Value) (out []string) {
	add := func(kind, field string) {
		for _, name := range textFields(in, field) {
			out = append(out, appstream.ARN(c.Region, c.AccountID, kind, name))
		}
	}
	for kind, noun := range map[string]string{"stack": "Stack", "fleet": "Fleet", "image": "Image"} {
		if strings.HasSuffix(operation, noun) || operation == "Describe"+noun+"s" {
			add(kind, "Name")
			add(kind, "Names")
		}
	}
	add("fleet", "FleetName")
	add("stack", "StackName")
	if f := in.FieldByName("UserStackAssociations"); f.IsValid() {
		for i := range f.Len() {
			for _, name := range textFields(f.Index(i), "StackName") {
				out = append(out, appstream.ARN(c.Region, c.AccountID, "stack", name))
			}
		}
	}
	if operation != "DescribeFleets" {
		add("image", "ImageName")
	}
	return append(out, textFields(in, "ResourceArn")...)
}

// ec2Created are the resource types that operations create.
var ec2Created = map[string]string{
	"CreateVpc": "vpc", "CreateSubnet": "subnet", "CreateSecurityGroup": "security-group", "CreateNetworkAcl": "network-acl",
	"CreateRouteTable": "route-table", "CreateVpcEndpoint": "vpc-endpoint", "CreateNetworkInsightsPath": "network-insights-path",
	"StartNetworkInsightsAnalysis": "network-insights-analysis", "CreateManagedPrefixList": "prefix-list",
}

// ec2Members are the input members that name resources, with the resource's type.
var ec2Members = []struct{ field, kind string }{
	{"VpcId", "vpc"},
	{"SubnetId", "subnet"},
	{"SubnetIds", "subnet"},
	{"GroupId", "security-group"},
	{"SecurityGroupIds", "security-group"},
	{"NetworkAclId", "network-acl"},
	{"RouteTableId", "route-table"},
	{"RouteTableIds", "route-table"},
	{"VpcEndpointId", "vpc-endpoint"},
	{"VpcEndpointIds", "vpc-endpoint"},
	{"AddSubnetIds", "subnet"},
	{"RemoveSubnetIds", "subnet"},
	{"AddSecurityGroupIds", "security-group"},
	{"RemoveSecurityGroupIds", "security-group"},
	{"AddRouteTableIds", "route-table"},
	{"RemoveRouteTableIds", "route-table"},
	{"SecurityGroupRuleIds", "security-group-rule"},
	{"PrefixListId", "prefix-list"},
	{"NetworkInsightsPathId", "network-insights-path"},
	{"NetworkInsightsAnalysisId", "network-insights-analysis"},
}

// ec2Prefixes are the types of resources by the prefix of their IDs, for operations on tags.
var ec2Prefixes = map[string]string{
	"vpc": "vpc", "subnet": "subnet", "sg": "security-group", "sgr": "security-group-rule", "acl": "network-acl", "rtb": "route-table",
	"vpce": "vpc-endpoint", "eni": "network-interface", "igw": "internet-gateway", "pl": "prefix-list", "vgw": "vpn-gateway",
	"dopt": "dhcp-options", "nip": "network-insights-path", "nia": "network-insights-analysis",
}

// associated are the route table or network ACL and the subnet of the association that an input names.
func (x *exchange) associated(ctx context.Context, c Caller, in reflect.Value) (out []string) {
	id := textField(in, "AssociationId")
	if id == "" || x.server.options.Network == nil {
		return nil
	}
	for _, id := range x.server.options.Network.Associated(ctx, id) {
		prefix, _, _ := strings.Cut(id, "-")
		out = append(out, "arn:aws:ec2:"+c.Region+":"+c.AccountID+":"+cmp.Or(ec2Prefixes[prefix], "*")+"/"+id)
	}
	return out
}

// ec2Resources: describing has no resources in EC2.
func ec2Resources(c Caller, operation string, in reflect.Value) (out []string) {
	if strings.HasPrefix(operation, "Describe") {
		return nil
	}
	arn := func(kind, id string) string {
		return "arn:aws:ec2:" + c.Region + ":" + c.AccountID + ":" + kind + "/" + id
	}
	if kind := ec2Created[operation]; kind != "" {
		out = append(out, arn(kind, "*"))
	}
	for _, m := range ec2Members {
		for _, id := range textFields(in, m.field) {
			out = append(out, arn(m.kind, id))
		}
	}
	if operation == "CreateTags" || operation == "DeleteTags" {
		for _, id := range textFields(in, "Resources") {
			prefix, _, _ := strings.Cut(id, "-")
			kind := ec2Prefixes[prefix]
			if kind == "" {
				kind = "*"
			}
			out = append(out, arn(kind, id))
		}
	}
	return out
}

// iamResources are the ARNs of the users, roles and policies that an input names. An entity that exists has the path that it was made with.
func (x *exchange) iamResources(ctx context.Context, c Caller, in reflect.Value) []string {
	for _, m := range []struct {
		field string
		kind  access.Kind
	}{{"UserName", access.User}, {"RoleName", access.Role}} {
		if !in.FieldByName(m.field).IsValid() {
			continue
		}
		name := textField(in, m.field)
		if name == "" { // the caller itself
			return []string{c.Principal.ARN()}
		}
		e := &access.Entity{Kind: m.kind, Name: name, Path: pathOrRoot(textField(in, "Path"))}
		if known, err := x.server.options.Access.Get(ctx, m.kind, name); err == nil {
			e = known
		}
		return []string{e.ARN(c.AccountID)}
	}
	if arn := textField(in, "PolicyArn"); arn != "" {
		return []string{arn}
	}
	if service := textField(in, "AWSServiceName"); service != "" {
		return []string{iam.RoleARN(c.AccountID, "/aws-service-role/"+service+"/", "*")}
	}
	if task, ok := strings.CutPrefix(textField(in, "DeletionTaskId"), "task/"); ok {
		return []string{iam.RoleARN(c.AccountID, "/", task[:max(0, strings.LastIndexByte(task, '/'))])}
	}
	if arn := textField(in, "PolicySourceArn"); arn != "" {
		return []string{arn}
	}
	if name := textField(in, "PolicyName"); name != "" {
		return []string{(&access.Managed{Path: pathOrRoot(textField(in, "Path")), Name: name}).ARN(c.AccountID)}
	}
	return nil
}

// requestKeys are the condition keys of the tags, policies and boundaries that a request brings.
func requestKeys(in reflect.Value) map[string][]string {
	tags := map[string]string{}
	collect := func(list reflect.Value) {
		for i := range list.Len() {
			tags[textField(list.Index(i), "Key")] = textField(list.Index(i), "Value")
		}
	}
	if f := in.FieldByName("Tags"); f.IsValid() {
		switch f.Kind() {
		case reflect.Map:
			for k, v := range f.Seq2() {
				tags[k.String()] = v.String()
			}
		case reflect.Slice:
			collect(f)
		default:
		}
	}
	if f := in.FieldByName("TagSpecifications"); f.IsValid() {
		for i := range f.Len() {
			if list := f.Index(i).FieldByName("Tags"); list.IsValid() {
				collect(list)
			}
		}
	}
	keys := map[string][]string{}
	for field, key := range map[string]string{"PolicyArn": "iam:policyarn", "PermissionsBoundary": "iam:permissionsboundary", "AWSServiceName": "iam:awsservicename"} {
		if v := textField(in, field); v != "" {
			keys[key] = []string{v}
		}
	}
	if removed := textFields(in, "TagKeys"); len(removed) > 0 {
		keys["aws:tagkeys"] = slices.Clone(removed)
	}
	addTagKeys(keys, tags, "aws:requesttag/")
	if len(tags) > 0 {
		keys["aws:tagkeys"] = append(keys["aws:tagkeys"], slices.Sorted(maps.Keys(tags))...)
	}
	return keys
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
