package awscompat

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// office makes a VPC with an available streaming endpoint that admits 192.168.0.0/16 on 443 and 1400-1499.
type officeVPC struct{ vpc, gateway, group, endpoint, acl string }

func (a *netAPI) office(t *testing.T) officeVPC {
	t.Helper()
	ctx := t.Context()
	var o officeVPC
	o.vpc = *ok[*ec2.CreateVpcOutput](t)(a.ec2.CreateVpc(ctx, &ec2.CreateVpcInput{CidrBlock: aws.String("10.88.0.0/16")})).Vpc.VpcId
	subnet := *ok[*ec2.CreateSubnetOutput](t)(a.ec2.CreateSubnet(ctx, &ec2.CreateSubnetInput{VpcId: &o.vpc, CidrBlock: aws.String("10.88.1.0/24")})).Subnet.SubnetId
	o.group = *ok[*ec2.CreateSecurityGroupOutput](t)(a.ec2.CreateSecurityGroup(ctx, &ec2.CreateSecurityGroupInput{VpcId: &o.vpc, GroupName: aws.String("streaming"), Description: aws.String("streaming")})).GroupId
	ok[*ec2.AuthorizeSecurityGroupIngressOutput](t)(a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: &o.group, IpPermissions: []types.IpPermission{tcp(443, 443, "192.168.0.0/16"), tcp(1400, 1499, "192.168.0.0/16")},
	}))
	o.endpoint = *ok[*ec2.CreateVpcEndpointOutput](t)(a.ec2.CreateVpcEndpoint(ctx, &ec2.CreateVpcEndpointInput{
		VpcId: &o.vpc, ServiceName: aws.String(streamingService), VpcEndpointType: types.VpcEndpointTypeInterface, SubnetIds: []string{subnet}, SecurityGroupIds: []string{o.group},
	})).VpcEndpoint.VpcEndpointId
	a.endpointState(t, o.endpoint, "available")
	tables := ok[*ec2.DescribeRouteTablesOutput](t)(a.ec2.DescribeRouteTables(ctx, &ec2.DescribeRouteTablesInput{Filters: []types.Filter{filter("vpc-id", o.vpc)}}))
	o.gateway = *tables.RouteTables[0].PropagatingVgws[0].GatewayId
	acls := ok[*ec2.DescribeNetworkAclsOutput](t)(a.ec2.DescribeNetworkAcls(ctx, &ec2.DescribeNetworkAclsInput{Filters: []types.Filter{filter("vpc-id", o.vpc)}}))
	o.acl = *acls.NetworkAcls[0].NetworkAclId
	return o
}

// analyze starts an analysis and waits for its end.
func (a *netAPI) analyze(t *testing.T, path string) types.NetworkInsightsAnalysis {
	t.Helper()
	begun := ok[*ec2.StartNetworkInsightsAnalysisOutput](t)(a.ec2.StartNetworkInsightsAnalysis(t.Context(), &ec2.StartNetworkInsightsAnalysisInput{NetworkInsightsPathId: &path})).NetworkInsightsAnalysis
	if begun.Status != types.AnalysisStatusRunning {
		t.Errorf("an analysis begins as %s", begun.Status)
	}
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		out := ok[*ec2.DescribeNetworkInsightsAnalysesOutput](t)(a.ec2.DescribeNetworkInsightsAnalyses(t.Context(), &ec2.DescribeNetworkInsightsAnalysesInput{NetworkInsightsAnalysisIds: []string{*begun.NetworkInsightsAnalysisId}}))
		if n := out.NetworkInsightsAnalyses[0]; n.Status != types.AnalysisStatusRunning {
			return n
		}
	}
	t.Fatal("the analysis did not end")
	return types.NetworkInsightsAnalysis{}
}

func TestReachabilityAnalyzer(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	o := a.office(t)
	ctx := t.Context()
	ask := &ec2.CreateNetworkInsightsPathInput{
		Source: &o.gateway, SourceIp: aws.String("172.16.0.5"), Destination: &o.endpoint, DestinationPort: aws.Int32(1400), Protocol: types.ProtocolTcp, ClientToken: aws.String("one"),
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypeNetworkInsightsPath, Tags: []types.Tag{{Key: aws.String("for"), Value: aws.String("guests")}}}},
	}
	path := *ok[*ec2.CreateNetworkInsightsPathOutput](t)(a.ec2.CreateNetworkInsightsPath(ctx, ask)).NetworkInsightsPath.NetworkInsightsPathId
	if again := ok[*ec2.CreateNetworkInsightsPathOutput](t)(a.ec2.CreateNetworkInsightsPath(ctx, ask)).NetworkInsightsPath.NetworkInsightsPathId; *again != path {
		t.Errorf("the same token made %s and %s", path, *again)
	}
	other := *ask
	other.DestinationPort = aws.Int32(443)
	wantCode(t, refused(a.ec2.CreateNetworkInsightsPath(ctx, &other)), "IdempotentParameterMismatch", "")

	no := a.analyze(t, path)
	if aws.ToBool(no.NetworkPathFound) || no.Status != types.AnalysisStatusSucceeded || len(no.Explanations) != 1 {
		t.Fatalf("a client whom no rule admits: %+v", no)
	}
	x := no.Explanations[0]
	if *x.ExplanationCode != "ENI_SG_RULES_MISMATCH" || *x.Direction != "ingress" || *x.SecurityGroups[0].Id != o.group || *x.Vpc.Id != o.vpc ||
		*x.MissingComponent != "add an inbound rule to "+o.group+": tcp 1400-1499 from 172.16.0.0/16" {
		t.Errorf("explanation: %+v, missing %s", x, *x.MissingComponent)
	}
	rule := x.SecurityGroupRule
	if d := cmp.Diff([]string{"ingress", "172.16.0.0/16", "tcp", o.group}, []string{*rule.Direction, *rule.Cidr, *rule.Protocol, *rule.SecurityGroupId}); d != "" || *rule.PortRange.From != 1400 || *rule.PortRange.To != 1499 {
		t.Errorf("missing rule: %s, %+v", d, rule.PortRange)
	}

	// The rule that the explanation names is the one that helps: on the network and in the next analysis.
	network := ok[*ec2.DescribeNetworkInterfacesOutput](t)(a.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{filter("vpc-id", o.vpc)}}))
	addr := *network.NetworkInterfaces[0].PrivateIpAddress
	if a.dials(t, "127.1.0.5", o.vpc, addr, 1400) {
		t.Error("the network admits what the analysis does not")
	}
	ok[*ec2.AuthorizeSecurityGroupIngressOutput](t)(a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId: rule.SecurityGroupId, IpPermissions: []types.IpPermission{tcp(*rule.PortRange.From, *rule.PortRange.To, *rule.Cidr)},
	}))
	yes := a.analyze(t, path)
	if !aws.ToBool(yes.NetworkPathFound) {
		t.Fatalf("with the missing rule: %+v", yes.Explanations)
	}
	var way []string
	for _, c := range slices.Concat(yes.ForwardPathComponents, yes.ReturnPathComponents) {
		way = append(way, strings.SplitN(*c.Component.Id, "-", 2)[0])
	}
	if d := cmp.Diff([]string{"vgw", "acl", "sg", "eni", "eni", "rtb", "acl", "vgw"}, way); d != "" {
		t.Errorf("components (-want +got):\n%s", d)
	}
	if h := yes.ForwardPathComponents[0].OutboundHeader; h.SourceAddresses[0] != "172.16.0.5/32" || h.DestinationAddresses[0] != addr+"/32" || *h.DestinationPortRanges[0].From != 1400 || *h.Protocol != "6" {
		t.Errorf("header: %+v", h)
	}
	if !a.dials(t, "127.1.0.5", o.vpc, addr, 1400) {
		t.Error("the analysis admits what the network does not")
	}

	// What was answered stays as it was when it was asked.
	kept := ok[*ec2.DescribeNetworkInsightsAnalysesOutput](t)(a.ec2.DescribeNetworkInsightsAnalyses(ctx, &ec2.DescribeNetworkInsightsAnalysesInput{
		NetworkInsightsPathId: &path, Filters: []types.Filter{filter("path-found", "false")},
	}))
	if len(kept.NetworkInsightsAnalyses) != 1 || *kept.NetworkInsightsAnalyses[0].NetworkInsightsAnalysisId != *no.NetworkInsightsAnalysisId {
		t.Errorf("analyses without a path: %+v", kept.NetworkInsightsAnalyses)
	}

	// The stateless way back.
	ok[*ec2.ReplaceNetworkAclEntryOutput](t)(a.ec2.ReplaceNetworkAclEntry(ctx, &ec2.ReplaceNetworkAclEntryInput{
		NetworkAclId: &o.acl, RuleNumber: aws.Int32(100), Egress: aws.Bool(true), Protocol: aws.String("6"), RuleAction: types.RuleActionAllow,
		CidrBlock: aws.String("0.0.0.0/0"), PortRange: &types.PortRange{From: aws.Int32(443), To: aws.Int32(443)},
	}))
	if back := a.analyze(t, path); aws.ToBool(back.NetworkPathFound) || *back.Explanations[0].ExplanationCode != "SUBNET_ACL_RESTRICTION" || *back.Explanations[0].Direction != "egress" || *back.Explanations[0].Acl.Id != o.acl {
		t.Errorf("without ports for answers: %+v", back.Explanations)
	}

	wantCode(t, refused(a.ec2.DeleteNetworkInsightsPath(ctx, &ec2.DeleteNetworkInsightsPathInput{NetworkInsightsPathId: &path})), "AnalysisExistsForNetworkInsightsPath", "")
	all := ok[*ec2.DescribeNetworkInsightsAnalysesOutput](t)(a.ec2.DescribeNetworkInsightsAnalyses(ctx, &ec2.DescribeNetworkInsightsAnalysesInput{NetworkInsightsPathId: &path}))
	for _, n := range all.NetworkInsightsAnalyses {
		ok[*ec2.DeleteNetworkInsightsAnalysisOutput](t)(a.ec2.DeleteNetworkInsightsAnalysis(ctx, &ec2.DeleteNetworkInsightsAnalysisInput{NetworkInsightsAnalysisId: n.NetworkInsightsAnalysisId}))
	}
	tagged := ok[*ec2.DescribeNetworkInsightsPathsOutput](t)(a.ec2.DescribeNetworkInsightsPaths(ctx, &ec2.DescribeNetworkInsightsPathsInput{Filters: []types.Filter{filter("tag:for", "guests"), filter("destination", o.endpoint)}}))
	if len(tagged.NetworkInsightsPaths) != 1 {
		t.Errorf("paths by tag: %+v", tagged)
	}
	ok[*ec2.DeleteNetworkInsightsPathOutput](t)(a.ec2.DeleteNetworkInsightsPath(ctx, &ec2.DeleteNetworkInsightsPathInput{NetworkInsightsPathId: &path}))
	wantCode(t, refused(a.ec2.StartNetworkInsightsAnalysis(ctx, &ec2.StartNetworkInsightsAnalysisInput{NetworkInsightsPathId: &path})), "InvalidNetworkInsightsPathId.NotFound", "")
	wantCode(t, refused(a.ec2.DescribeNetworkInsightsPaths(ctx, &ec2.DescribeNetworkInsightsPathsInput{NetworkInsightsPathIds: []string{path}})), "InvalidNetworkInsightsPathId.NotFound", "")
	wantCode(t, refused(a.ec2.DeleteNetworkInsightsAnalysis(ctx, &ec2.DeleteNetworkInsightsAnalysisInput{NetworkInsightsAnalysisId: no.NetworkInsightsAnalysisId})), "InvalidNetworkInsightsAnalysisId.NotFound", "")

	filtered := func(in *types.PathRequestFilter) *ec2.CreateNetworkInsightsPathInput {
		return &ec2.CreateNetworkInsightsPathInput{Source: &o.gateway, Destination: &o.endpoint, Protocol: types.ProtocolTcp, FilterAtSource: in}
	}
	p := ok[*ec2.CreateNetworkInsightsPathOutput](t)(a.ec2.CreateNetworkInsightsPath(ctx, filtered(&types.PathRequestFilter{
		SourceAddress: aws.String("192.168.0.9"), DestinationPortRange: &types.RequestFilterPortRange{FromPort: aws.Int32(1), ToPort: aws.Int32(600)},
	}))).NetworkInsightsPath
	if n := a.analyze(t, *p.NetworkInsightsPathId); aws.ToBool(n.NetworkPathFound) {
		t.Errorf("answers leave for port 443 only: %+v", n.ForwardPathComponents)
	}
	capitals := ok[*ec2.CreateNetworkInsightsPathOutput](t)(a.ec2.CreateNetworkInsightsPath(ctx, &ec2.CreateNetworkInsightsPathInput{
		Source: &o.gateway, Destination: &o.endpoint, Protocol: "TCP", // as the AWS CLI's own example has it
	})).NetworkInsightsPath
	if capitals.Protocol != types.ProtocolTcp {
		t.Errorf("protocol of a path asked for with TCP: %q", capitals.Protocol)
	}
	wantCode(t, refused(a.ec2.CreateNetworkInsightsPath(ctx, &ec2.CreateNetworkInsightsPathInput{Source: &o.gateway, Destination: &o.endpoint, Protocol: "ICMP"})), "InvalidParameterValue", "Protocol")
	for code, in := range map[string]*ec2.CreateNetworkInsightsPathInput{
		"InvalidVpcEndpointId.NotFound":      {Source: &o.gateway, Destination: aws.String("vpce-00000000000000000"), Protocol: types.ProtocolTcp},
		"InvalidNetworkInterfaceID.NotFound": {Source: aws.String("eni-00000000000000000"), Destination: &o.endpoint, Protocol: types.ProtocolTcp},
		"InvalidGatewayID.NotFound":          {Source: aws.String("vgw-00000000000000000"), Destination: &o.endpoint, Protocol: types.ProtocolTcp},
		"InvalidParameterValue":              {Source: &o.vpc, Destination: &o.endpoint, Protocol: types.ProtocolTcp},
		"MissingParameter":                   {Source: &o.gateway, Protocol: types.ProtocolTcp},
		"InvalidParameterCombination":        {Source: &o.gateway, SourceIp: aws.String("192.168.0.1"), Destination: &o.endpoint, Protocol: types.ProtocolTcp, FilterAtSource: &types.PathRequestFilter{SourceAddress: aws.String("192.168.0.2")}},
	} {
		wantCode(t, refused(a.ec2.CreateNetworkInsightsPath(ctx, in)), code, "")
	}
	dhcp := ok[*ec2.DescribeDhcpOptionsOutput](t)(a.ec2.DescribeDhcpOptions(ctx, &ec2.DescribeDhcpOptionsInput{Filters: []types.Filter{filter("value", "AmazonProvidedDNS")}}))
	vpcs := ok[*ec2.DescribeVpcsOutput](t)(a.ec2.DescribeVpcs(ctx, &ec2.DescribeVpcsInput{VpcIds: []string{o.vpc}}))
	if len(dhcp.DhcpOptions) != 1 || *dhcp.DhcpOptions[0].DhcpOptionsId != *vpcs.Vpcs[0].DhcpOptionsId {
		t.Errorf("DHCP options: %+v, the VPC's are %s", dhcp.DhcpOptions, *vpcs.Vpcs[0].DhcpOptionsId)
	}
}

// TestCLIAnswersWhichRuleBlocks goes the way of docs/reachability.md with Debian's AWS CLI.
func TestCLIAnswersWhichRuleBlocks(t *testing.T) {
	t.Parallel()
	const cli = "/usr/bin/aws"
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: it starts the AWS CLI for every call (make e2e)")
	}
	if _, err := os.Stat(cli); err != nil {
		t.Skipf("the AWS CLI is missing: install Debian's awscli (%v)", err)
	}
	a := serveNetworks(t)
	o := a.office(t)
	run := func(args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, cli, append(append([]string{"ec2"}, args...), "--endpoint-url", a.url)...)
		cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_ACCESS_KEY_ID="+keyID, "AWS_SECRET_ACCESS_KEY="+secret,
			"AWS_DEFAULT_REGION="+region, "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_MAX_ATTEMPTS=1", "AWS_PAGER=")
		out, err := cmd.Output()
		if failed, isExit := errors.AsType[*exec.ExitError](err); isExit {
			t.Fatalf("%v: %s", args, failed.Stderr)
		} else if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	gateway := run("describe-route-tables", "--filters", "Name=vpc-id,Values="+o.vpc, "--query", "RouteTables[0].PropagatingVgws[0].GatewayId", "--output", "text")
	path := run("create-network-insights-path", "--source", gateway, "--source-ip", "172.16.0.5", "--destination", o.endpoint, "--protocol", "TCP", "--destination-port", "1400",
		"--query", "NetworkInsightsPath.NetworkInsightsPathId", "--output", "text")
	ask := func() string {
		t.Helper()
		id := run("start-network-insights-analysis", "--network-insights-path-id", path, "--query", "NetworkInsightsAnalysis.NetworkInsightsAnalysisId", "--output", "text")
		return run("describe-network-insights-analyses", "--network-insights-analysis-ids", id, "--output", "json", "--query",
			"NetworkInsightsAnalyses[0].{found: NetworkPathFound, status: Status, why: Explanations[].[ExplanationCode, MissingComponent]}")
	}
	var answer struct {
		Found  bool
		Status string
		Why    [][2]string
	}
	read := func(text string) {
		t.Helper()
		answer.Why = nil
		if err := json.Unmarshal([]byte(text), &answer); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
	}
	read(ask())
	want := [][2]string{{"ENI_SG_RULES_MISMATCH", "add an inbound rule to " + o.group + ": tcp 1400-1499 from 172.16.0.0/16"}}
	if d := cmp.Diff(want, answer.Why); d != "" || answer.Found || answer.Status != "succeeded" {
		t.Errorf("got %+v %s", answer, d)
	}
	run("authorize-security-group-ingress", "--group-id", o.group, "--protocol", "tcp", "--port", "1400-1499", "--cidr", "172.16.0.0/16")
	if read(ask()); !answer.Found || answer.Why != nil {
		t.Errorf("with the rule: %+v", answer)
	}
}
