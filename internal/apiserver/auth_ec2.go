package apiserver

import (
	"context"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/iam"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

// ec2Prefixes are the types of resources by the prefix of their IDs.
var ec2Prefixes = map[string]string{
	"vpc": "vpc", "subnet": "subnet", "sg": "security-group", "sgr": "security-group-rule", "acl": "network-acl", "rtb": "route-table",
	"vpce": "vpc-endpoint", "eni": "network-interface", "igw": "internet-gateway", "pl": "prefix-list", "vgw": "vpn-gateway",
	"dopt": "dhcp-options", "nip": "network-insights-path", "nia": "network-insights-analysis", "i": "instance", "tgw": "transit-gateway",
	"pcx": "vpc-peering-connection", "ipam-pool": "ipam-pool",
}

// ec2Kind is the type of the resource with that ID; "*" for an ID of no type that we know.
func ec2Kind(id string) string {
	if kind := ec2Prefixes[id[:max(0, strings.LastIndexByte(id, '-'))]]; kind != "" {
		return kind
	}
	return "*"
}

// named is one resource of a request before its facts are known.
type ec2Named struct {
	target   *target
	kind, id string // id "*": every one of the type
}

// ec2Resources are the resources of a request to EC2.
func (x *exchange) ec2Resources(ctx context.Context, c Caller, targets []target, in reflect.Value) ([]asked, error) {
	var all []ec2Named
	for i := range targets {
		t := &targets[i]
		ids, err := x.ec2IDs(ctx, t, in)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			n := ec2Named{t, t.kind, id}
			if arn := strings.SplitN(id, ":", 6); len(arn) == 6 { // Reachability Analyzer takes ARNs, too
				kind, rest, _ := strings.Cut(arn[5], "/")
				n.kind, n.id = kind, rest
			}
			if n.kind == "" {
				n.kind = ec2Kind(n.id)
			}
			all = append(all, n)
		}
		switch {
		case t.made && (!t.optional || len(tagsFor(in, t.kind)) > 0), len(ids) == 0 && !t.optional && t.kind != "":
			all = append(all, ec2Named{t, t.kind, "*"})
		}
	}
	var ids []string
	for _, n := range all {
		if n.id != "*" {
			ids = append(ids, n.id)
		}
	}
	facts, tags := map[string]network.Facts{}, map[string]map[string]string{}
	if net := x.server.options.Network; net != nil && len(ids) > 0 {
		var err error
		if facts, err = net.FactsOf(ctx, ids); err != nil {
			return nil, err
		}
		of, err := net.TagsOf(ctx, ids)
		if err != nil {
			return nil, err
		}
		for id, t := range of {
			tags[id] = t
		}
	}
	var out []asked
	for _, n := range all {
		given := requestTagsOf(in)
		if n.target.made {
			given = tagsFor(in, n.kind)
		}
		keys := n.target.tagKeys(given, nil)
		addTagKeys(keys, tags[n.id], "aws:resourcetag/", "ec2:resourcetag/")
		ec2Keys(c, in, n, facts[n.id], keys)
		out = append(out, asked{ec2ARN(c, n.kind, n.id), keys})
	}
	return out, nil
}

// ec2ARN is the ARN of a resource. Pools of IPAM are of no Region.
func ec2ARN(c Caller, kind, id string) string {
	region := c.Region
	if kind == "ipam-pool" {
		region = ""
	}
	return "arn:aws:ec2:" + region + ":" + c.AccountID + ":" + kind + "/" + id
}

// ec2IDs are the IDs that a request has for a target.
func (x *exchange) ec2IDs(ctx context.Context, t *target, in reflect.Value) (out []string, err error) {
	net := x.server.options.Network
	for _, m := range t.members {
		switch {
		case net == nil:
			out = append(out, textsAt(in, m)...)
		case m == "GroupName":
			name := textField(in, m)
			if name == "" || textField(in, "GroupId") != "" {
				continue
			}
			id, err := net.GroupNamed(ctx, name)
			if err != nil {
				return nil, err
			}
			if id != "" {
				out = append(out, string(id))
			}
		case m == defaultVPC:
			ids := textFields(in, "VpcId")
			if len(ids) == 0 {
				id, err := net.DefaultVPC(ctx)
				if err != nil {
					return nil, err
				}
				if id != "" {
					ids = []string{string(id)}
				}
			}
			out = append(out, ids...)
		case m == "AssociationId":
			id := textField(in, m)
			if id == "" {
				continue
			}
			ends, err := net.Associated(ctx, id)
			if err != nil {
				return nil, err
			}
			out = append(out, slices.DeleteFunc(ends, func(id string) bool { return ec2Kind(id) != t.kind })...)
		default:
			out = append(out, textsAt(in, m)...)
		}
	}
	return slices.DeleteFunc(out, func(id string) bool { return id == "" }), nil
}

// tagsFor are the tags that a request gives to what it makes of a type.
func tagsFor(in reflect.Value, kind string) map[string]string {
	f := in.FieldByName("TagSpecifications")
	if !f.IsValid() {
		return nil
	}
	tags := map[string]string{}
	specs, _ := reflect.TypeAssert[[]api.TagSpecification](f)
	for _, s := range specs {
		if deref(s.ResourceType) != kind {
			continue
		}
		for _, t := range s.Tags {
			tags[deref(t.Key)] = deref(t.Value)
		}
	}
	return tags
}

// ec2Keys adds the condition keys of a resource that its target has, and ec2:Region, which every request has. A key without a value stays
// absent: ec2:VpcID of a VPC that is not there yet.
func ec2Keys(c Caller, in reflect.Value, n ec2Named, f network.Facts, into map[string][]string) {
	into["ec2:region"] = []string{c.Region}
	arn := func(kind, id string) string {
		if id == "" {
			return ""
		}
		return ec2ARN(c, kind, id)
	}
	own := func(kind string) string {
		if n.kind != kind || n.id == "*" {
			return ""
		}
		return n.id
	}
	service := f.Service
	if n.target.made {
		service = textField(in, "ServiceName")
	}
	for _, key := range n.target.keys {
		var value string
		switch key {
		case "ec2:Vpc":
			if n.kind != "vpc" && n.kind != "vpc-endpoint" { // which have no such key
				value = arn("vpc", string(f.VPC))
			}
		case "ec2:Subnet":
			if n.kind == "network-interface" {
				value = arn("subnet", string(f.Subnet))
			}
		case "ec2:AvailabilityZone":
			value = f.Zone
		case "ec2:AvailabilityZoneId":
			if n.kind == "subnet" {
				value = f.ZoneID
			}
		case "ec2:Tenancy":
			value = f.Tenancy
		case "ec2:VpcID":
			value = own("vpc")
		case "ec2:SubnetID":
			value = own("subnet")
		case "ec2:SecurityGroupID":
			value = own("security-group")
		case "ec2:NetworkAclID":
			value = own("network-acl")
		case "ec2:RouteTableID":
			value = own("route-table")
		case "ec2:NetworkInterfaceID":
			value = own("network-interface")
		case "ec2:InternetGatewayID":
			value = own("internet-gateway")
		case "ec2:DhcpOptionsID":
			value = own("dhcp-options")
		case "ec2:Ipv4IpamPoolId", "ec2:Ipv6IpamPoolId":
			value = textField(in, strings.TrimPrefix(key, "ec2:"))
		case "ec2:VpceServiceName":
			value = service
		case "ec2:VpceServiceOwner":
			if strings.HasPrefix(service, "com.amazonaws.") {
				value = "amazon"
			}
		case "ec2:VpceServiceRegion":
			if value = textField(in, "ServiceRegion"); value == "" && service != "" {
				value = c.Region
			}
		case "ec2:VpcePrivateDnsPreference":
			value = strings.Join(textsAt(in, "DnsOptions.PrivateDnsPreference"), "")
		case "ec2:VpcePrivateDnsSpecifiedDomains":
			if domains := textsAt(in, "DnsOptions.PrivateDnsSpecifiedDomains"); len(domains) > 0 {
				into[iam.LowerKey(key)] = domains
			}
		case "ec2:Attribute":
			for name, value := range changed(in) {
				into["ec2:attribute"] = append(into["ec2:attribute"], name)
				if value != "" {
					into["ec2:attribute/"+iam.LowerKey(name)] = []string{value}
				}
			}
		}
		if value != "" {
			into[iam.LowerKey(key)] = []string{value}
		}
	}
}

// changed are the attributes that an operation on attributes sets: the members of its input that name no resource, with the text of those
// that are one value.
func changed(in reflect.Value) map[string]string {
	out := map[string]string{}
	for f, v := range in.Fields() {
		if strings.HasSuffix(f.Name, "Id") || strings.HasSuffix(f.Name, "Ids") || slices.Contains([]string{"DryRun", "CurrentVersion", "SubnetConfigurations"}, f.Name) {
			continue
		}
		switch v.Kind() {
		case reflect.Pointer:
			if !v.IsNil() {
				out[f.Name] = oneValue(v.Elem())
			}
		case reflect.Slice:
			if v.Len() > 0 {
				out[f.Name] = ""
			}
		default:
		}
	}
	return out
}

func oneValue(v reflect.Value) string {
	switch v.Kind() {
	case reflect.String:
		return v.String()
	case reflect.Bool:
		return strconv.FormatBool(v.Bool())
	case reflect.Int32, reflect.Int64:
		return strconv.FormatInt(v.Int(), 10)
	case reflect.Struct:
		if a, ok := reflect.TypeAssert[api.AttributeBooleanValue](v); ok && a.Value != nil {
			return strconv.FormatBool(*a.Value)
		}
	default:
	}
	return ""
}

// mayTag asks for ec2:CreateTags when a request gives tags to what it makes: EC2 wants that permission too, and tells its policies
// by ec2:CreateAction which operation it is for.
func (x *exchange) mayTag(ctx context.Context, c Caller, q iam.Request, in any) (iam.Decision, error) {
	v := reflect.ValueOf(in).Elem()
	f := v.FieldByName("TagSpecifications")
	if !f.IsValid() {
		return iam.Decision{Allowed: true}, nil
	}
	specs, _ := reflect.TypeAssert[[]api.TagSpecification](f)
	q.Action = "ec2:CreateTags"
	t := made("", "")
	var all []asked
	for _, s := range specs {
		if len(s.Tags) == 0 {
			continue
		}
		keys := t.tagKeys(tagsFor(v, deref(s.ResourceType)), nil)
		keys["ec2:region"], keys["ec2:createaction"] = []string{c.Region}, []string{strings.TrimPrefix(c.Action, "ec2:")}
		all = append(all, asked{ec2ARN(c, deref(s.ResourceType), "*"), keys})
	}
	if len(all) == 0 {
		return iam.Decision{Allowed: true}, nil
	}
	return x.decide(ctx, q, all)
}
