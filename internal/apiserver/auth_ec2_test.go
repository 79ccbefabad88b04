package apiserver

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/wire/ec2api"
)

// TestEC2Policies: what policies say about actions, resources and condition keys decides, for the operations on networks.
func TestEC2Policies(t *testing.T) {
	t.Parallel()
	w := newEC2World(t)
	ctx := t.Context()
	other, err := w.options.Network.CreateVPC(ctx, "10.44.0.0/16", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	otherSubnet, err := w.options.Network.CreateSubnet(ctx, other.ID, "10.44.1.0/24", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.options.Network.CreateTags(ctx, []string{w.have["pl"]}, vpc.Tags{"team": "blue"}); err != nil {
		t.Fatal(err)
	}
	arn := func(kind, id string) string { return "arn:aws:ec2:" + region + ":" + account + ":" + kind + "/" + id }
	allow := func(action, resource string, conditions ...string) string {
		condition := ""
		if len(conditions) > 0 {
			condition = `,"Condition":{"StringEquals":{` + strings.Join(conditions, ",") + `}}`
		}
		return fmt.Sprintf(`{"Effect":"Allow","Action":%q,"Resource":%q%s}`, action, resource, condition)
	}
	form := func(action string, members ...string) url.Values {
		f := url.Values{"Action": {action}, "Version": {ec2api.Version}, "DryRun": {"true"}}
		for i := 0; i < len(members); i += 2 {
			f.Set(members[i], members[i+1])
		}
		return f
	}
	tagged := []string{"TagSpecification.1.ResourceType", "vpc", "TagSpecification.1.Tag.1.Key", "team", "TagSpecification.1.Tag.1.Value", "blue"}
	createVPC := []string{"CidrBlock", "10.45.0.0/16"}
	endpoint := []string{"VpcId", w.have["vpc"], "ServiceName", "com.amazonaws." + region + ".appstream.streaming"}
	for _, tt := range []struct {
		name       string
		statements []string
		form       url.Values
		denied     string // the action that is; empty: allowed
	}{
		{"create", []string{allow("ec2:CreateVpc", "*")}, form("CreateVpc", createVPC...), ""},
		{"create with tags, and no right to tag", []string{allow("ec2:CreateVpc", "*")}, form("CreateVpc", append(createVPC, tagged...)...), "ec2:CreateTags"},
		{
			"create with tags",
			[]string{allow("ec2:CreateVpc", "*"), allow("ec2:CreateTags", arn("vpc", "*"), `"ec2:CreateAction":"CreateVpc"`)},
			form("CreateVpc", append(createVPC, tagged...)...), "",
		},
		{
			"tags of another operation",
			[]string{allow("ec2:CreateVpc", "*"), allow("ec2:CreateTags", "*", `"ec2:CreateAction":"CreateSubnet"`)},
			form("CreateVpc", append(createVPC, tagged...)...), "ec2:CreateTags",
		},
		{
			"tags later",
			[]string{allow("ec2:CreateTags", "*", `"ec2:CreateAction":"CreateVpc"`)},
			form("CreateTags", "ResourceId.1", w.have["vpc"], "Tag.1.Key", "team"), "ec2:CreateTags",
		},
		{"tags that the policy names", []string{allow("ec2:*", "*", `"aws:RequestTag/team":"blue"`)}, form("CreateVpc", append(createVPC, tagged...)...), ""},
		{"in its VPC", []string{allow("ec2:DeleteSubnet", "*", `"ec2:Vpc":"`+arn("vpc", w.have["vpc"])+`"`)}, form("DeleteSubnet", "SubnetId", w.have["subnet"]), ""},
		{"in another VPC", []string{allow("ec2:DeleteSubnet", "*", `"ec2:Vpc":"`+arn("vpc", w.have["vpc"])+`"`)}, form("DeleteSubnet", "SubnetId", string(otherSubnet.ID)), "ec2:DeleteSubnet"},
		{"made in its VPC", []string{allow("ec2:CreateRouteTable", arn("route-table", "*")), allow("ec2:CreateRouteTable", arn("vpc", "*"), `"ec2:VpcID":"`+w.have["vpc"]+`"`)}, form("CreateRouteTable", "VpcId", w.have["vpc"]), ""},
		{"made in another VPC", []string{allow("ec2:CreateRouteTable", arn("route-table", "*")), allow("ec2:CreateRouteTable", arn("vpc", "*"), `"ec2:VpcID":"`+w.have["vpc"]+`"`)}, form("CreateRouteTable", "VpcId", string(other.ID)), "ec2:CreateRouteTable"},
		{"a group by its name", []string{allow("ec2:DeleteSecurityGroup", "*"), `{"Effect":"Deny","Action":"ec2:*","Resource":"` + arn("security-group", w.have["sg"]) + `"}`}, form("DeleteSecurityGroup", "GroupName", "g"), "ec2:DeleteSecurityGroup on resource: " + arn("security-group", w.have["sg"])},
		{"endpoint of a service", []string{allow("ec2:CreateVpcEndpoint", arn("vpc", "*")), allow("ec2:CreateVpcEndpoint", arn("vpc-endpoint", "*"), `"ec2:VpceServiceName":"com.amazonaws.`+region+`.appstream.streaming"`)}, form("CreateVpcEndpoint", endpoint...), ""},
		{"endpoint of another service", []string{allow("ec2:CreateVpcEndpoint", arn("vpc", "*")), allow("ec2:CreateVpcEndpoint", arn("vpc-endpoint", "*"), `"ec2:VpceServiceName":"com.amazonaws.`+region+`.appstream.api"`)}, form("CreateVpcEndpoint", endpoint...), "ec2:CreateVpcEndpoint"},
		{"Region", []string{allow("ec2:CreateVpc", "*", `"ec2:Region":"`+region+`"`)}, form("CreateVpc", createVPC...), ""},
		{"another Region", []string{allow("ec2:CreateVpc", "*", `"ec2:Region":"eu-west-1"`)}, form("CreateVpc", createVPC...), "ec2:CreateVpc"},
		{"attribute", []string{allow("ec2:ModifyVpcAttribute", "*", `"ec2:Attribute":"EnableDnsHostnames"`)}, func() url.Values {
			f := form("ModifyVpcAttribute", "VpcId", w.have["vpc"], "EnableDnsSupport.Value", "true")
			f.Del("DryRun")
			return f
		}(), "ec2:ModifyVpcAttribute"},
		{"path", []string{allow("ec2:CreateNetworkInsightsPath", arn("network-insights-path", "*"))}, form("CreateNetworkInsightsPath", "Source", w.have["vgw"], "Destination", w.have["vpce"], "Protocol", "tcp", "ClientToken", "x"), "ec2:CreateNetworkInsightsPath on resource: " + arn("vpn-gateway", w.have["vgw"])},
		{"analysis needs its path", []string{allow("ec2:StartNetworkInsightsAnalysis", arn("network-insights-analysis", "*"))}, form("StartNetworkInsightsAnalysis", "NetworkInsightsPathId", w.have["nip"], "ClientToken", "x"), "ec2:StartNetworkInsightsAnalysis"},
		{"analysis", []string{allow("ec2:StartNetworkInsightsAnalysis", arn("network-insights-*", "*"))}, form("StartNetworkInsightsAnalysis", "NetworkInsightsPathId", w.have["nip"], "ClientToken", "x"), ""},
		{"list by tag", []string{allow("ec2:*", "*", `"aws:ResourceTag/team":"blue"`)}, form("ModifyManagedPrefixList", "PrefixListId", w.have["pl"], "PrefixListName", "x"), ""},
		{"list of another tag", []string{allow("ec2:*", "*", `"aws:ResourceTag/team":"red"`)}, form("DeleteManagedPrefixList", "PrefixListId", w.have["pl"]), "ec2:DeleteManagedPrefixList"},
		{"entries of a list", []string{allow("ec2:GetManagedPrefixListEntries", arn("prefix-list", w.have["pl"]))}, form("GetManagedPrefixListEntries", "PrefixListId", w.have["pl"]), ""},
		{"association by its table", []string{allow("ec2:DisassociateRouteTable", arn("route-table", w.have["rtb"])), allow("ec2:DisassociateRouteTable", arn("subnet", "*"))}, form("DisassociateRouteTable", "AssociationId", w.have["rtbassoc"]), ""},
		{"association of another table", []string{allow("ec2:DisassociateRouteTable", arn("route-table", "rtb-00000000000000000")), allow("ec2:DisassociateRouteTable", arn("subnet", "*"))}, form("DisassociateRouteTable", "AssociationId", w.have["rtbassoc"]), "ec2:DisassociateRouteTable"},
		{"rule with tags", []string{allow("ec2:AuthorizeSecurityGroupIngress", "*")}, form("AuthorizeSecurityGroupIngress", "GroupId", w.have["sg"], "IpPermissions.1.IpProtocol", "-1", "IpPermissions.1.IpRanges.1.CidrIp", "10.0.0.0/8", "TagSpecification.1.ResourceType", "security-group-rule", "TagSpecification.1.Tag.1.Key", "k", "TagSpecification.1.Tag.1.Value", "v"), "ec2:CreateTags"},
	} {
		document := `{"Version":"2012-10-17","Statement":[` + strings.Join(tt.statements, ",") + `]}`
		if err := w.options.Access.PutInline(ctx, access.User, "ann", "p", document); err != nil {
			t.Fatalf("%s: %v\n%s", tt.name, err, document)
		}
		got := w.ask(t, tt.form, w.nobody)
		switch {
		case tt.denied == "" && got.code != "DryRunOperation":
			t.Errorf("%s: got %d %s: %s", tt.name, got.status, got.code, got.message)
		case tt.denied != "" && (got.code != "UnauthorizedOperation" || !strings.Contains(got.message, "the "+tt.denied+" action") && !strings.Contains(got.message, "to perform: "+tt.denied)):
			t.Errorf("%s: got %d %s: %s, want %s denied", tt.name, got.status, got.code, got.message, tt.denied)
		}
	}
}
