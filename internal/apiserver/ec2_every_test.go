package apiserver

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/hostnet/loopback"
	"penstock.dev/penstock/internal/sqlite"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// The tests of this file take their cases from the table of operations, so that a new operation cannot be forgotten.

// ec2World is a front door with a network of which every ID is known by the member that takes it.
type ec2World struct {
	*front
	store  state.Store
	nobody sigv4.Key         // may do nothing
	have   map[string]string // by prefix of IDs
}

func newEC2World(t *testing.T) *ec2World {
	t.Helper()
	store, err := sqlite.Open(t.Context(), sqlite.Options{Path: filepath.Join(t.TempDir(), "state.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	driver, err := loopback.New(loopback.Config{Store: store, Spread: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = driver.Close() })
	nets := network.New(network.Config{Store: store, Driver: driver, Region: region, AccountID: account})
	a, ann := newAccess(t, 0)
	w := &ec2World{front: newFront(t, Options{Access: a, Network: nets}), store: store, nobody: keyOf(ann)}
	w.options.Credentials = a
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	v, err := nets.EnsureDefaultVPC(ctx)
	must(err)
	subnets, err := nets.DescribeSubnets(ctx, nil)
	must(err)
	e, err := nets.CreateVPCEndpoint(ctx, network.CreateEndpoint{
		VPC: v.ID, Service: "com.amazonaws." + region + ".appstream.streaming", Type: vpc.EndpointInterface, Subnets: []vpc.SubnetID{subnets[0].ID},
	})
	must(err)
	group, err := nets.CreateSecurityGroup(ctx, v.ID, "g", "g", nil)
	must(err)
	acls, err := nets.DescribeNetworkACLs(ctx, nil)
	must(err)
	table, err := nets.CreateRouteTable(ctx, v.ID, nil, "")
	must(err)
	association, err := nets.AssociateRouteTable(ctx, table.ID, subnets[1].ID)
	must(err)
	list, err := nets.CreatePrefixList(ctx, network.CreatePrefixList{Name: "l", AddressFamily: "IPv4", MaxEntries: 1}, "")
	must(err)
	path, err := nets.CreateInsightsPath(ctx, network.CreateInsightsPath{Source: string(v.Gateway), Destination: string(e.ID), Protocol: "tcp"}, "")
	must(err)
	analysis, err := nets.StartInsightsAnalysis(ctx, path.ID, nil, nil, nil, "")
	must(err)
	w.have = map[string]string{
		"vpc": string(v.ID), "subnet": string(subnets[0].ID), "vpce": string(e.ID), "eni": string(e.Interfaces[0]), "sg": string(group.ID),
		"sgr": string(group.Rules[0].ID), "acl": string(acls[0].ID), "aclassoc": string(acls[0].Associations[0].ID), "rtb": string(table.ID),
		"rtbassoc": string(association), "pl": string(list.ID), "nip": string(path.ID), "nia": string(analysis.ID), "vgw": string(v.Gateway),
		"dopt": v.DHCPOptions, "vpc-cidr-assoc": v.CIDRAssociation,
	}
	return w
}

// idMembers are the members that take IDs, with the prefix of these; "operation.member" goes before "member". Empty: anything else,
// and why.
func idMembers() map[string]string {
	return map[string]string{
		"VpcId": "vpc", "VpcIds": "vpc", "SubnetId": "subnet", "SubnetIds": "subnet", "GroupId": "sg", "GroupIds": "sg", "NetworkAclId": "acl",
		"NetworkAclIds": "acl", "RouteTableId": "rtb", "RouteTableIds": "rtb", "VpcEndpointId": "vpce", "VpcEndpointIds": "vpce",
		"NetworkInterfaceId": "eni", "NetworkInterfaceIds": "eni", "SecurityGroupIds": "sg", "SecurityGroupRuleIds": "sgr",
		"AddSubnetIds": "subnet", "RemoveSubnetIds": "subnet", "AddSecurityGroupIds": "sg", "RemoveSecurityGroupIds": "sg",
		"PrefixListId": "pl", "PrefixListIds": "pl", "DestinationPrefixListId": "pl", "DhcpOptionsIds": "dopt",
		"NetworkInsightsPathId": "nip", "NetworkInsightsPathIds": "nip", "NetworkInsightsAnalysisId": "nia", "NetworkInsightsAnalysisIds": "nia",
		"InternetGatewayIds": "igw", "VpcPeeringConnectionIds": "pcx", "GatewayId": "vgw",
		"AssociateRouteTable.AssociationId": "rtbassoc", "DisassociateRouteTable.AssociationId": "rtbassoc", "ReplaceRouteTableAssociation.AssociationId": "rtbassoc",
		"ReplaceNetworkAclAssociation.AssociationId": "aclassoc", "DisassociateVpcCidrBlock.AssociationId": "vpc-cidr-assoc",
		"AssociateRouteTable.GatewayId":   "", // only subnets have tables
		"AddRouteTableIds":                "", // of gateway endpoints
		"RemoveRouteTableIds":             "",
		"CreateVpcEndpoint.RouteTableIds": "",
		// What cannot be here is refused by name: TestRefusedMembers.
		"AvailabilityZoneId": "", "ZoneIds": "", "Ipv4IpamPoolId": "", "Ipv6IpamPoolId": "", "SourceSecurityGroupOwnerId": "", "EgressOnlyInternetGatewayId": "", "InstanceId": "",
		"NatGatewayId": "", "TransitGatewayId": "", "LocalGatewayId": "", "CarrierGatewayId": "", "VpcPeeringConnectionId": "", "CreateRoute.VpcEndpointId": "", "ReplaceRoute.VpcEndpointId": "",
	}
}

func idPrefix(operation, member string) (string, bool) {
	all := idMembers()
	if p, ok := all[operation+"."+member]; ok {
		return p, true
	}
	p, ok := all[member]
	return p, ok
}

// values are members of requests that are neither IDs nor say in the model what they may be.
func values() map[string]string {
	return map[string]string{
		"CidrBlock": "10.201.0.0/16", "CreateSubnet.CidrBlock": "172.31.200.0/24", "DestinationCidrBlock": "192.168.5.0/24", "Protocol": "-1", "GroupName": "n", "Description": "d",
		"ServiceName": "com.amazonaws." + region + ".appstream.streaming", "RuleNumber": "77", "Egress": "true", "ClientToken": "c", "PrefixListName": "n",
		"AddressFamily": "IPv4", "MaxEntries": "1", "Cidr": "10.0.0.0/8", "PreviousVersion": "1", "CurrentVersion": "1", "Resources": "vpc-0", "Key": "k",
		"Attribute": "enableDnsSupport",
	}
}

// requirement is what a field's tag says.
func requirement(f reflect.StructField, word string) (string, bool) {
	for w := range strings.SplitSeq(f.Tag.Get("check"), ";") {
		key, value, _ := strings.Cut(w, "=")
		if key == word {
			return value, true
		}
	}
	return "", false
}

// fill puts the required members of a struct into a form.
func (w *ec2World) fill(form url.Values, operation, prefix string, t reflect.Type) {
	for f := range t.Fields() {
		if mustHave(f) || needed(operation, f.Name) && prefix == "" {
			w.put(form, operation, prefix, f)
		}
	}
}

func mustHave(f reflect.StructField) bool { _, ok := requirement(f, "required"); return ok }

// needed are members that the model calls optional and the operation does not do without.
func needed(operation, member string) bool {
	return slices.Contains(map[string][]string{
		"CreateVpc": {"CidrBlock"}, "CreateSubnet": {"CidrBlock"}, "AssociateRouteTable": {"SubnetId"}, "CreateSecurityGroup": {"VpcId"},
		"CreateNetworkAclEntry": {"CidrBlock"}, "ReplaceNetworkAclEntry": {"CidrBlock"}, "DeleteSecurityGroup": {"GroupId"},
		"CreateRoute": {"DestinationCidrBlock", "GatewayId"}, "ReplaceRoute": {"DestinationCidrBlock", "GatewayId"}, "DeleteRoute": {"DestinationCidrBlock"},
		"CreateTags": {"Resources", "Tags"}, "AuthorizeSecurityGroupIngress": {"GroupId"}, "RevokeSecurityGroupIngress": {"GroupId"},
		"UpdateSecurityGroupRuleDescriptionsIngress": {"GroupId"}, "UpdateSecurityGroupRuleDescriptionsEgress": {"GroupId"},
		"CreateNetworkInsightsPath": {"Destination"}, "CreateVpcEndpoint": {"ServiceName"},
	}[operation], member)
}

func (w *ec2World) put(form url.Values, operation, prefix string, f reflect.StructField) {
	name, t := prefix+f.Tag.Get("in"), f.Type
	if t.Kind() == reflect.Slice && t.Elem().Kind() != reflect.Uint8 {
		name += ".1"
		t = t.Elem()
	}
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() == reflect.Struct && t.Name() != "Time" {
		before := len(form)
		w.fill(form, operation, name+".", t)
		if len(form) == before { // a struct without required members: its first
			w.put(form, operation, name+".", t.Field(0))
		}
		return
	}
	value := ""
	all := values()
	switch enum, isEnum := requirement(f, "enum"); {
	case isEnum:
		value = ec2api.EnumValues(enum)[0]
	case all[operation+"."+f.Name] != "":
		value = all[operation+"."+f.Name]
	case all[f.Name] != "":
		value = all[f.Name]
	case f.Name == "Source":
		value = w.have["vgw"]
	case f.Name == "Destination":
		value = w.have["eni"]
	case t.Kind() == reflect.Int32 || t.Kind() == reflect.Int64:
		value = "5"
	case t.Kind() == reflect.Bool:
		value = "true"
	default:
		if p, ok := idPrefix(operation, f.Name); ok && p != "" {
			value = w.have[p]
		} else {
			value = "x"
		}
	}
	if f.Name == "Resources" {
		value = w.have["vpc"]
	}
	form.Set(name, value)
}

// form is a request of an operation with everything that it needs.
func (w *ec2World) form(o *servedOperation) url.Values {
	form := url.Values{"Action": {o.name}, "Version": {ec2api.Version}}
	w.fill(form, o.name, "", o.in)
	rule := func(prefix, peer string) {
		form.Set(prefix+"IpProtocol", "tcp")
		form.Set(prefix+"FromPort", "9")
		form.Set(prefix+"ToPort", "9")
		form.Set(prefix+peer, "10.9.0.0/16")
	}
	switch o.name {
	case "AuthorizeSecurityGroupIngress", "AuthorizeSecurityGroupEgress", "RevokeSecurityGroupIngress", "RevokeSecurityGroupEgress",
		"UpdateSecurityGroupRuleDescriptionsIngress", "UpdateSecurityGroupRuleDescriptionsEgress":
		rule("IpPermissions.1.", "IpRanges.1.CidrIp")
	case "ModifySecurityGroupRules":
		form.Set("SecurityGroupRule.1.SecurityGroupRuleId", w.have["sgr"])
		rule("SecurityGroupRule.1.SecurityGroupRule.", "CidrIpv4")
	case "ModifyVpcAttribute":
		form.Set("EnableDnsSupport.Value", "true")
	case "ModifySubnetAttribute":
		form.Set("MapPublicIpOnLaunch.Value", "true")
	case "ModifyManagedPrefixList":
		form.Set("PrefixListName", "m")
	}
	return form
}

func (w *ec2World) ask(t *testing.T, form url.Values, key sigv4.Key) reply {
	t.Helper()
	return w.do(call{service: "ec2", form: form.Encode(), key: key}.request(t))
}

// everyEC2Operation calls fn for each operation that is served, in order.
func (w *ec2World) everyEC2Operation(t *testing.T, fn func(t *testing.T, o *servedOperation)) {
	t.Helper()
	served := w.tables[ec2].served
	for _, name := range slices.Sorted(maps.Keys(served)) {
		t.Run(name, func(t *testing.T) { fn(t, served[name]) })
	}
}

func withMember(form url.Values, name, value string) url.Values {
	out := maps.Clone(form)
	out[name] = []string{value}
	return out
}

// withoutMember drops a member and what is inside it.
func withoutMember(form url.Values, name string) url.Values {
	out := url.Values{}
	for k, v := range form {
		if k != name && !strings.HasPrefix(k, name+".") {
			out[k] = v
		}
	}
	return out
}

// TestEveryEC2OperationDryRun: with DryRun each says whether it would have been done; without policies none is.
func TestEveryEC2OperationDryRun(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	var without []string
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		form := w.form(o)
		denied := "no identity-based policy allows the ec2:" + o.name + " action"
		if got := w.ask(t, form, w.nobody); got.code != "UnauthorizedOperation" || got.status != 403 || !strings.Contains(got.message, denied) {
			t.Errorf("without policies: got %d %s: %s", got.status, got.code, got.message)
		}
		if _, has := o.in.FieldByName("DryRun"); !has {
			without = append(without, o.name)
			return
		}
		form.Set("DryRun", "true")
		if got := w.ask(t, form, root); got.code != "DryRunOperation" || got.status != 412 {
			t.Errorf("dry run: got %d %s: %s", got.status, got.code, got.message)
		}
		if got := w.ask(t, form, w.nobody); got.code != "UnauthorizedOperation" || got.status != 403 {
			t.Errorf("dry run without policies: got %d %s: %s", got.status, got.code, got.message)
		}
	})
	for _, name := range without {
		if !slices.Contains([]string{"AssociateVpcCidrBlock", "DisassociateVpcCidrBlock", "ModifySubnetAttribute", "ModifyVpcAttribute"}, name) {
			t.Errorf("%s has no DryRun", name)
		}
	}
}

// documentedFilters are those of the model; of the operations whose filters it does not list, those of the SDK's documentation.
func documentedFilters(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../tools/apigen/model/ec2.json")
	if err != nil {
		t.Fatal(err)
	}
	var model struct {
		Operations map[string]struct{ Filters []string }
	}
	if err := json.Unmarshal(text, &model); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{
		"DescribeNetworkInsightsAnalyses": {"path-found", "status"},
		"DescribeNetworkInsightsPaths":    {"destination", "protocol", "source"},
		"DescribeVpcEndpointAssociations": {
			"vpc-endpoint-id", "associated-resource-accessibility", "association-id", "associated-resource-id", "service-network-arn",
			"resource-configuration-group-arn", "service-network-resource-association-id",
		},
	}
	for _, at := range []string{"source", "destination"} {
		for _, what := range []string{"source-address", "source-port-range", "destination-address", "destination-port-range"} {
			out["DescribeNetworkInsightsPaths"] = append(out["DescribeNetworkInsightsPaths"], "filter-at-"+at+"."+what)
		}
	}
	for name, o := range model.Operations {
		if len(o.Filters) > 0 {
			out[name] = o.Filters
		}
	}
	return out
}

// TestEveryEC2Filter: each operation takes the filters that are documented, and no other.
func TestEveryEC2Filter(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	documented := documentedFilters(t)
	tried := 0
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		if _, has := o.in.FieldByName("Filters"); !has {
			return
		}
		form := w.form(o)
		form.Set("Filter.1.Value.1", "x")
		if got := w.ask(t, withMember(form, "Filter.1.Name", "colour"), root); got.code != "InvalidParameterValue" || !strings.Contains(got.message, "'colour'") {
			t.Errorf("an unknown filter: got %d %s: %s", got.status, got.code, got.message)
		}
		if len(documented[o.name]) == 0 {
			t.Error("nobody says which filters it has")
		}
		for _, name := range documented[o.name] {
			if name == "tag" {
				name = "tag:Owner"
			}
			tried++
			if got := w.ask(t, withMember(form, "Filter.1.Name", name), root); got.status != 200 {
				t.Errorf("filter %s: got %d %s: %s", name, got.status, got.code, got.message)
			}
		}
	})
	if tried < 150 {
		t.Errorf("only %d filters were tried", tried)
	}
}

// TestEveryEC2MemberIsNamed: what is missing, of a wrong form or unknown is named.
func TestEveryEC2MemberIsNamed(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		form := w.form(o)
		want := func(form url.Values, code, names string) {
			t.Helper()
			if got := w.ask(t, form, root); got.code != code || got.status != 400 || !strings.Contains(strings.ToLower(got.message), strings.ToLower(names)) {
				t.Errorf("%v: got %d %s: %s\nwant %s that names %s", withoutMember(withoutMember(form, "Action"), "Version"), got.status, got.code, got.message, code, names)
			}
		}
		want(withMember(form, "Nonsense", "x"), "UnknownParameter", "Nonsense")
		for f := range o.in.Fields() {
			name := f.Tag.Get("in")
			if mustHave(f) || needed(o.name, f.Name) && f.Name != "GroupId" && f.Name != "VpcId" { // which go without in the default VPC
				want(withoutMember(form, name), "MissingParameter", name)
			}
			if enum, is := requirement(f, "enum"); is && f.Type.Kind() == reflect.Pointer {
				want(withMember(form, name, "nonsense"), "InvalidParameterValue", name)
				if len(ec2api.EnumValues(enum)) == 0 {
					t.Errorf("%s has no values", enum)
				}
			}
			if f.Type == reflect.TypeFor[*int32]() || f.Type == reflect.TypeFor[*int64]() || f.Type == reflect.TypeFor[*bool]() {
				want(withMember(form, name, "nonsense"), "InvalidParameterValue", name)
			}
			for _, bound := range []struct {
				word string
				by   int
			}{{"min", -1}, {"max", 1}} {
				if text, is := requirement(f, bound.word); is && (f.Type == reflect.TypeFor[*int32]() || f.Type == reflect.TypeFor[*int64]()) {
					n, err := strconv.Atoi(text)
					if err != nil {
						t.Fatal(err)
					}
					want(withMember(form, name, strconv.Itoa(n+bound.by)), "InvalidParameterValue", name)
				}
			}
			if name == "MaxResults" {
				want(withMember(form, name, "0"), "InvalidParameterValue", name)
			}
			if name == "NextToken" {
				want(withMember(form, name, "bm9uc2Vuc2U"), "InvalidNextToken", name)
			}
			if f.Type == reflect.TypeFor[[]ec2api.TagSpecification]() {
				wrong := withMember(withMember(withMember(form, name+".1.ResourceType", "image"), name+".1.Tag.1.Key", "k"), name+".1.Tag.1.Value", "v")
				want(wrong, "InvalidParameterValue", "image")
			}
		}
	})
}

// TestEveryEC2ID: each member that takes IDs says whether one is of a wrong form or unknown.
func TestEveryEC2ID(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	notFound := map[string]string{
		"vpc": "InvalidVpcID.NotFound", "subnet": "InvalidSubnetID.NotFound", "sg": "InvalidGroup.NotFound", "sgr": "InvalidSecurityGroupRuleId.NotFound",
		"acl": "InvalidNetworkAclID.NotFound", "aclassoc": "InvalidAssociationID.NotFound", "rtb": "InvalidRouteTableID.NotFound", "rtbassoc": "InvalidAssociationID.NotFound",
		"eni": "InvalidNetworkInterfaceID.NotFound", "vpce": "InvalidVpcEndpointId.NotFound", "pl": "InvalidPrefixListID.NotFound", "nip": "InvalidNetworkInsightsPathId.NotFound",
		"nia": "InvalidNetworkInsightsAnalysisId.NotFound", "dopt": "InvalidDhcpOptionID.NotFound", "igw": "InvalidInternetGatewayID.NotFound", "pcx": "InvalidVpcPeeringConnectionID.NotFound",
		"vgw": "InvalidGatewayID.NotFound", "vpc-cidr-assoc": "InvalidVpcCidrBlockAssociationID.NotFound",
	}
	tried := 0
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		for f := range o.in.Fields() {
			list := f.Type == reflect.TypeFor[[]string]()
			if !list && f.Type != reflect.TypeFor[*string]() || !strings.HasSuffix(f.Name, "Id") && !strings.HasSuffix(f.Name, "Ids") {
				continue
			}
			prefix, known := idPrefix(o.name, f.Name)
			if !known {
				t.Errorf("%s: name the prefix of its IDs in idMembers", f.Name)
			}
			if prefix == "" {
				continue
			}
			name := f.Tag.Get("in")
			if list {
				name += ".1"
			}
			tried++
			form := w.form(o)
			switch o.name + "." + f.Name {
			case "CreateRoute.DestinationPrefixListId", "ReplaceRoute.DestinationPrefixListId", "DeleteRoute.DestinationPrefixListId":
				form = withoutMember(form, "DestinationCidrBlock")
			case "CreateRoute.NetworkInterfaceId", "ReplaceRoute.NetworkInterfaceId":
				form = withoutMember(form, "GatewayId")
			case "CreateVpcEndpoint.VpcId", "CreateVpcEndpoint.SubnetIds", "CreateVpcEndpoint.SecurityGroupIds":
				form.Set("VpcEndpointType", "Interface")
			}
			if got := w.ask(t, withMember(form, name, "nonsense"), root); !strings.HasSuffix(got.code, ".Malformed") || !strings.Contains(got.message, "nonsense") {
				t.Errorf("%s=nonsense: got %d %s: %s", name, got.status, got.code, got.message)
			}
			unknown := prefix + "-0ffffffffffffffff"
			want := notFound[prefix]
			if f.Name == "DestinationPrefixListId" || o.name == "DescribePrefixLists" {
				want = "InvalidPrefixListId.NotFound"
			}
			got := w.ask(t, withMember(form, name, unknown), root)
			if o.name == "DeleteVpcEndpoints" { // each item fails by itself
				if got.status != 200 || !strings.Contains(got.body, "InvalidVpcEndpoint.NotFound") || !strings.Contains(got.body, unknown) {
					t.Errorf("%s=%s: got %d %s", name, unknown, got.status, got.body)
				}
				continue
			}
			if got.code != want || !strings.Contains(got.message, unknown) {
				t.Errorf("%s=%s: got %d %s: %s, want %s", name, unknown, got.status, got.code, got.message, want)
			}
			if list && w.have[prefix] != "" && strings.HasPrefix(o.name, "Describe") {
				mixed := withMember(withMember(form, name, w.have[prefix]), strings.TrimSuffix(name, ".1")+".2", unknown)
				if got := w.ask(t, mixed, root); got.code != want {
					t.Errorf("%s known and unknown: got %d %s: %s, want %s", name, got.status, got.code, got.message, want)
				}
				if got := w.ask(t, withMember(form, name, w.have[prefix]), root); got.status != 200 || !strings.Contains(got.body, w.have[prefix]) {
					if o.name != "DescribeSecurityGroupReferences" && o.name != "DescribeVpcEndpointAssociations" && o.name != "DescribePrefixLists" { // which are truthfully empty
						t.Errorf("%s known: got %d %s: %s", name, got.status, got.code, got.body)
					}
				}
			}
		}
	})
	if tried < 60 {
		t.Errorf("only %d members were tried", tried)
	}
}

// TestEveryEC2Page: what an operation pages comes once and whole, page by page; a token is good for its operation alone.
func TestEveryEC2Page(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	ctx := t.Context()
	for n := range 7 {
		v := vpc.VPCID(w.have["vpc"])
		if _, err := w.options.Network.CreateSubnet(ctx, v, fmt.Sprintf("172.31.%d.0/28", 100+n), "", vpc.Tags{"n": strconv.Itoa(n)}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.options.Network.CreateSecurityGroup(ctx, v, fmt.Sprint("page ", n), "d", nil); err != nil {
			t.Fatal(err)
		}
		if _, err := w.options.Network.CreateNetworkACL(ctx, v, nil, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := w.options.Network.CreateRouteTable(ctx, v, nil, ""); err != nil {
			t.Fatal(err)
		}
	}
	paged := 0
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		if _, has := o.in.FieldByName("NextToken"); !has {
			return
		}
		size := "1"
		if f, has := o.in.FieldByName("MaxResults"); has {
			if least, bounded := requirement(f, "min"); bounded {
				size = least
			}
		}
		form := w.form(o)
		whole := w.ask(t, form, root)
		if whole.status != 200 {
			t.Fatalf("got %d %s: %s", whole.status, whole.code, whole.message)
		}
		form.Set("MaxResults", size)
		pages, token := "", ""
		for n := 0; ; n++ {
			if n > 50 {
				t.Fatal("pages have no end")
			}
			if token != "" {
				form.Set("NextToken", token)
			}
			got := w.ask(t, form, root)
			if got.status != 200 {
				t.Fatalf("page %d: %d %s: %s", n, got.status, got.code, got.message)
			}
			pages += got.body
			_, rest, more := strings.Cut(got.body, "<nextToken>")
			if !more {
				break
			}
			token, _, _ = strings.Cut(rest, "</nextToken>")
			last := token[:len(token)-1]
			for _, bad := range []string{last, last + "_", last + "A", "A" + token} {
				if bad == token {
					continue
				}
				if got := w.ask(t, withMember(form, "NextToken", bad), root); got.code != "InvalidNextToken" {
					t.Errorf("a changed token: got %d %s", got.status, got.code)
				}
			}
			other := "DescribeVpcs"
			if o.name == other {
				other = "DescribeSubnets"
			}
			if got := w.ask(t, url.Values{"Action": {other}, "Version": {ec2api.Version}, "NextToken": {token}}, root); got.code != "InvalidNextToken" {
				t.Errorf("a token of %s at %s: got %d %s", o.name, other, got.status, got.code)
			}
		}
		if got, want := strings.Count(pages, "<item>"), strings.Count(whole.body, "<item>"); got != want {
			t.Errorf("pages have %d items, all at once %d", got, want)
		}
		paged += strings.Count(pages, "<nextToken>")
	})
	if paged < 12 {
		t.Errorf("only %d answers had a next page", paged)
	}
	form := url.Values{"Action": {"DescribeSubnets"}, "Version": {ec2api.Version}, "MaxResults": {"5"}, "SubnetId.1": {w.have["subnet"]}}
	if got := w.ask(t, form, root); got.code != "InvalidParameterCombination" || !strings.Contains(got.message, "SubnetId") {
		t.Errorf("IDs with MaxResults: got %d %s: %s", got.status, got.code, got.message)
	}
}

// TestEveryEC2OperationTagsWhatItMakes: tags of TagSpecifications are on the one thing that was made.
func TestEveryEC2OperationTagsWhatItMakes(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	tried := 0
	w.everyEC2Operation(t, func(t *testing.T, o *servedOperation) {
		if _, has := o.in.FieldByName("TagSpecifications"); !has {
			return
		}
		tried++
		kind := ""
		for _, tg := range o.targets {
			if tg.made {
				kind = tg.kind
			}
		}
		if kind == "" {
			t.Fatal("the table of authorization does not say what it makes")
		}
		form := w.form(o)
		if o.name == "CreateVpcEndpoint" {
			form.Set("VpcEndpointType", "Interface")
		}
		form.Set("TagSpecification.1.ResourceType", kind)
		form.Set("TagSpecification.1.Tag.1.Key", "made-by")
		form.Set("TagSpecification.1.Tag.1.Value", o.name)
		if got := w.ask(t, form, root); got.status != 200 {
			t.Fatalf("got %d %s: %s", got.status, got.code, got.message)
		}
		tags := w.ask(t, url.Values{
			"Action": {"DescribeTags"}, "Version": {ec2api.Version}, "Filter.1.Name": {"key"}, "Filter.1.Value.1": {"made-by"}, "Filter.2.Name": {"value"}, "Filter.2.Value.1": {o.name},
		}, root)
		if strings.Count(tags.body, "<item>") != 1 || !strings.Contains(tags.body, "<resourceType>"+kind+"</resourceType>") {
			t.Errorf("tags: %s", tags.body)
		}
		twice := maps.Clone(form)
		twice.Set("TagSpecification.1.Tag.2.Key", "made-by")
		twice.Set("TagSpecification.1.Tag.2.Value", "again")
		twice.Set("ClientToken", "another")
		if _, has := o.in.FieldByName("ClientToken"); !has {
			twice.Del("ClientToken")
		}
		if got := w.ask(t, twice, root); got.code != "InvalidParameterValue" || !strings.Contains(got.message, "made-by") {
			t.Errorf("one key twice: got %d %s: %s", got.status, got.code, got.message)
		}
		for key, value := range map[string]string{"aws:x": "y", strings.Repeat("k", 128): "v", "k": strings.Repeat("v", 257)} {
			wrong := maps.Clone(twice)
			delete(wrong, "TagSpecification.1.Tag.2.Key")
			delete(wrong, "TagSpecification.1.Tag.2.Value")
			wrong.Set("TagSpecification.1.Tag.1.Key", key)
			wrong.Set("TagSpecification.1.Tag.1.Value", value)
			if got := w.ask(t, wrong, root); got.code != "InvalidParameterValue" {
				t.Errorf("tag %.20s=%.20s: got %d %s: %s", key, value, got.status, got.code, got.message)
			}
		}
	})
	if tried < 10 {
		t.Errorf("only %d operations were tried", tried)
	}
}
