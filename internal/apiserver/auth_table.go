package apiserver

import (
	"slices"
	"strings"
)

// target is one type of resource that policies are asked about for an operation, as AWS's service authorization reference lists it.
type target struct {
	kind     string   // "vpc", as in ARNs; "": the type that the ID or the ARN says
	members  []string // of the input, that name it; a dot leads into a list of structures
	keys     []string // condition keys besides the tags of the resource and those that every request has
	made     bool     // the operation makes it: policies are asked about its type
	optional bool     // it is asked only where the request names it, or gives tags to it
}

// the is a resource that the request names. One that it leaves out is asked for as TYPE/*.
func the(kind, members, keys string) target {
	return target{kind: kind, members: strings.Fields(members), keys: strings.Fields(keys)}
}

// may is a resource that the request can name.
func may(kind, members, keys string) target {
	t := the(kind, members, keys)
	t.optional = true
	return t
}

// made is a resource that the operation makes.
func made(kind, keys string) target {
	return target{kind: kind, keys: strings.Fields(requestTags + " " + keys), made: true}
}

// named is a resource that the operation makes and whose name the request says.
func named(kind, member, keys string) target {
	t := the(kind, member, keys)
	t.made = true
	return t
}

const (
	requestTags = "aws:RequestTag/${TagKey} aws:TagKeys"
	removedTags = "aws:TagKeys"

	vpcKeys   = "ec2:Tenancy ec2:VpcID"
	sgKeys    = "ec2:SecurityGroupID ec2:Vpc"
	aclKeys   = "ec2:NetworkAclID ec2:Vpc"
	tableKeys = "ec2:RouteTableID ec2:Vpc"
	zoneKeys  = "ec2:AvailabilityZone ec2:AvailabilityZoneId ec2:SubnetID ec2:Vpc"
	eniKeys   = "ec2:AvailabilityZone ec2:NetworkInterfaceID ec2:Subnet ec2:Vpc"
	igwKeys   = "ec2:InternetGatewayID"
	attribute = "ec2:Attribute ec2:Attribute/${AttributeName}"
	boundary  = "iam:PermissionsBoundary"

	// defaultVPC is VpcId or, without it, the default VPC.
	defaultVPC = "VpcId?"
)

// authorization is the table of what policies are asked for each operation of a service that is served. It follows the tables "Actions,
// resources, and condition keys" of AWS's service authorization reference, for the types of resources that exist here; operations without
// a target are asked for "*". docs/authorization.md is written from it.
func authorization(s service) map[string][]target {
	switch s {
	case appStream:
		return appstreamAuthorization()
	case ec2:
		return ec2Authorization()
	case iamService:
		return iamAuthorization()
	case sts:
		return map[string][]target{
			"AssumeRole": {the("role", "RoleArn", requestTags+" sts:ExternalId sts:RoleSessionName sts:SourceIdentity sts:TransitiveTagKeys")},
			"AssumeRoleWithSAML": {the("role", "RoleArn", requestTags+" saml:aud saml:doc saml:iss saml:namequalifier saml:sub saml:sub_type "+
				"sts:RoleSessionName sts:SourceIdentity sts:TransitiveTagKeys")},
			"GetAccessKeyInfo": nil, "GetCallerIdentity": nil, "GetSessionToken": nil,
		}
	}
	return nil
}

func appstreamAuthorization() map[string][]target {
	stack, fleet := the("stack", "Name", ""), the("fleet", "Name", "")
	ofStack, ofFleet := the("stack", "StackName", ""), the("fleet", "FleetName", "")
	imageBuilder, builder, block := the("image-builder", "Name", ""), the("app-block-builder", "Name", ""), the("app-block", "Name", "")
	ofBuilder, ofBlock := the("app-block-builder", "AppBlockBuilderName", ""), the("app-block", "AppBlockArn", "")
	return map[string][]target{
		"AssociateAppBlockBuilderAppBlock":            {ofBlock, ofBuilder},
		"AssociateApplicationToEntitlement":           {ofStack},
		"AssociateFleet":                              {ofFleet, ofStack},
		"BatchAssociateUserStack":                     {the("stack", "UserStackAssociations.StackName", "")},
		"BatchDisassociateUserStack":                  {the("stack", "UserStackAssociations.StackName", "")},
		"CreateAppBlock":                              {named("app-block", "Name", requestTags)},
		"CreateAppBlockBuilder":                       {named("app-block-builder", "Name", requestTags)},
		"CreateAppBlockBuilderStreamingURL":           {ofBuilder},
		"CreateEntitlement":                           {ofStack},
		"CreateFleet":                                 {named("fleet", "Name", requestTags), may("image", "ImageName ImageArn", requestTags)},
		"CreateImageBuilder":                          {named("image-builder", "Name", requestTags), may("image", "ImageName ImageArn", requestTags)},
		"CreateImageBuilderStreamingURL":              {imageBuilder},
		"CreateStack":                                 {named("stack", "Name", requestTags)},
		"CreateStreamingURL":                          {ofFleet, ofStack},
		"CreateUser":                                  nil,
		"DeleteAppBlock":                              {block},
		"DeleteAppBlockBuilder":                       {builder},
		"DeleteEntitlement":                           {ofStack},
		"DeleteFleet":                                 {fleet},
		"DeleteImageBuilder":                          {imageBuilder},
		"DeleteStack":                                 {stack},
		"DeleteUser":                                  nil,
		"DescribeAppBlockBuilderAppBlockAssociations": nil,
		"DescribeAppBlockBuilders":                    nil,
		"DescribeAppBlocks":                           nil,
		"DescribeEntitlements":                        {ofStack},
		"DescribeFleets":                              nil,
		"DescribeImageBuilders":                       nil,
		"DescribeImages":                              nil,
		"DescribeSessions":                            {ofFleet, ofStack},
		"DescribeStacks":                              nil,
		"DescribeUserStackAssociations":               nil,
		"DescribeUsers":                               nil,
		"DisableUser":                                 nil,
		"DisassociateAppBlockBuilderAppBlock":         {ofBlock, ofBuilder},
		"DisassociateApplicationFromEntitlement":      {ofStack},
		"DisassociateFleet":                           {ofFleet, ofStack},
		"EnableUser":                                  nil,
		"ExpireSession":                               nil,
		"ListAssociatedFleets":                        {ofStack},
		"ListAssociatedStacks":                        {ofFleet},
		"ListEntitledApplications":                    {ofStack},
		"ListTagsForResource":                         nil,
		"StartAppBlockBuilder":                        {builder},
		"StartFleet":                                  {fleet},
		"StartImageBuilder":                           {imageBuilder},
		"StopAppBlockBuilder":                         {builder},
		"StopFleet":                                   {fleet},
		"StopImageBuilder":                            {imageBuilder},
		"TagResource":                                 {the("", "ResourceArn", requestTags)},
		"UntagResource":                               {the("", "ResourceArn", removedTags)},
		"UpdateAppBlockBuilder":                       {builder},
		"UpdateEntitlement":                           {ofStack},
		"UpdateFleet":                                 {fleet, may("image", "ImageName ImageArn", "")},
		"UpdateStack":                                 {stack},
	}
}

func ec2Authorization() map[string][]target {
	v := the("vpc", "VpcId", vpcKeys)
	subnet := the("subnet", "SubnetId", zoneKeys)
	acl := the("network-acl", "NetworkAclId", aclKeys)
	table := the("route-table", "RouteTableId", tableKeys)
	list := the("prefix-list", "PrefixListId", "")
	group := the("security-group", "GroupId GroupName", sgKeys)
	rule := target{kind: "security-group-rule", keys: strings.Fields(requestTags), made: true, optional: true}
	v4pool, v6pool := may("ipam-pool", "Ipv4IpamPoolId Ipv6IpamPoolId", ""), may("ipv6pool-ec2", "Ipv6Pool", "")
	const pools = "ec2:Ipv4IpamPoolId ec2:Ipv6IpamPoolId"
	all := map[string][]target{
		"AssociateRouteTable": {
			table, may("subnet", "SubnetId", zoneKeys), may("", "GatewayId", igwKeys), may("ipv4pool-ec2", "PublicIpv4Pool", ""),
		},
		"AssociateVpcCidrBlock":         {the("vpc", "VpcId", vpcKeys+" "+pools), v4pool, v6pool},
		"AuthorizeSecurityGroupEgress":  {the("security-group", "GroupId", sgKeys), rule},
		"AuthorizeSecurityGroupIngress": {group, rule},
		"CreateManagedPrefixList":       {made("prefix-list", "")},
		"CreateNetworkAcl":              {made("network-acl", ""), v},
		"CreateNetworkAclEntry":         {acl},
		"CreateNetworkInsightsPath":     {made("network-insights-path", ""), may("", "Source Destination", igwKeys+" "+eniKeys)},
		"CreateRoute":                   {table},
		"CreateRouteTable":              {made("route-table", ""), v},
		"CreateSecurityGroup":           {made("security-group", ""), may("vpc", defaultVPC, vpcKeys)},
		"CreateSubnet":                  {made("subnet", pools), v, v4pool},
		"CreateTags":                    {the("", "Resources", requestTags+" ec2:DhcpOptionsID "+strings.Join([]string{igwKeys, eniKeys, aclKeys, tableKeys, sgKeys, zoneKeys, vpcKeys}, " "))},
		"CreateVpc":                     {made("vpc", pools), v4pool, v6pool},
		"CreateVpcEndpoint": {
			the("vpc", "VpcId", "ec2:VpcID"),
			made("vpc-endpoint", "ec2:VpceServiceName ec2:VpceServiceOwner ec2:VpceServiceRegion ec2:VpcePrivateDnsPreference ec2:VpcePrivateDnsSpecifiedDomains"),
			may("route-table", "RouteTableIds", "ec2:RouteTableID"), may("security-group", "SecurityGroupIds", "ec2:SecurityGroupID"),
			may("subnet", "SubnetIds SubnetConfigurations.SubnetId", "ec2:SubnetID"),
		},
		"DeleteManagedPrefixList":          {list},
		"DeleteNetworkAcl":                 {acl},
		"DeleteNetworkAclEntry":            {acl},
		"DeleteNetworkInsightsAnalysis":    {the("network-insights-analysis", "NetworkInsightsAnalysisId", "")},
		"DeleteNetworkInsightsPath":        {the("network-insights-path", "NetworkInsightsPathId", "")},
		"DeleteRoute":                      {table},
		"DeleteRouteTable":                 {table},
		"DeleteSecurityGroup":              {group},
		"DeleteSubnet":                     {subnet},
		"DeleteTags":                       {the("", "Resources", requestTags)},
		"DeleteVpc":                        {v},
		"DeleteVpcEndpoints":               {the("vpc-endpoint", "VpcEndpointIds", "ec2:VpceServiceName ec2:VpceServiceRegion")},
		"DescribeSecurityGroupReferences":  {the("security-group", "GroupId", sgKeys)},
		"DescribeVpcAttribute":             {v},
		"DisassociateRouteTable":           {may("route-table", "AssociationId", tableKeys), may("subnet", "AssociationId", zoneKeys)},
		"DisassociateVpcCidrBlock":         {the("vpc", "AssociationId", vpcKeys)},
		"GetManagedPrefixListAssociations": {list},
		"GetManagedPrefixListEntries":      {list},
		"ModifyManagedPrefixList":          {the("prefix-list", "PrefixListId", attribute)},
		"ModifySecurityGroupRules": {
			the("security-group", "GroupId", sgKeys), the("security-group-rule", "SecurityGroupRules.SecurityGroupRuleId", ""),
			may("prefix-list", "SecurityGroupRules.SecurityGroupRule.PrefixListId", ""),
		},
		"ModifySubnetAttribute": {the("subnet", "SubnetId", zoneKeys+" "+attribute)},
		"ModifyVpcAttribute":    {the("vpc", "VpcId", vpcKeys+" "+attribute)},
		"ModifyVpcEndpoint": {
			the("vpc-endpoint", "VpcEndpointId", attribute+" ec2:VpceServiceRegion"),
			may("route-table", "AddRouteTableIds RemoveRouteTableIds", "ec2:RouteTableID"),
			may("security-group", "AddSecurityGroupIds RemoveSecurityGroupIds", sgKeys),
			may("subnet", "AddSubnetIds RemoveSubnetIds SubnetConfigurations.SubnetId", zoneKeys),
		},
		// The table or list of before is asked, too: it loses the subnet.
		"ReplaceNetworkAclAssociation":               {the("network-acl", "NetworkAclId AssociationId", aclKeys), the("subnet", "AssociationId", zoneKeys)},
		"ReplaceNetworkAclEntry":                     {acl},
		"ReplaceRoute":                               {table},
		"ReplaceRouteTableAssociation":               {the("route-table", "RouteTableId AssociationId", tableKeys), may("subnet", "AssociationId", zoneKeys)},
		"RestoreManagedPrefixListVersion":            {list},
		"RevokeSecurityGroupEgress":                  {the("security-group", "GroupId", sgKeys)},
		"RevokeSecurityGroupIngress":                 {group},
		"StartNetworkInsightsAnalysis":               {made("network-insights-analysis", ""), the("network-insights-path", "NetworkInsightsPathId", "")},
		"UpdateSecurityGroupRuleDescriptionsEgress":  {group},
		"UpdateSecurityGroupRuleDescriptionsIngress": {group},
	}
	for _, noun := range []string{
		"AccountAttributes", "AvailabilityZones", "DhcpOptions", "InternetGateways", "ManagedPrefixLists", "NetworkAcls", "NetworkInsightsAnalyses",
		"NetworkInsightsPaths", "NetworkInterfaces", "PrefixLists", "Regions", "RouteTables", "SecurityGroupRules", "SecurityGroups",
		"StaleSecurityGroups", "Subnets", "Tags", "VpcEndpointAssociations", "VpcEndpointServices", "VpcEndpoints", "VpcPeeringConnections", "Vpcs",
	} {
		all["Describe"+noun] = nil
	}
	return all
}

func iamAuthorization() map[string][]target {
	user, role, policy := the("user", "UserName", ""), the("role", "RoleName", ""), the("policy", "PolicyArn", "")
	with := func(t target, keys string) []target {
		t.keys = strings.Fields(keys)
		return []target{t}
	}
	const attachment = "iam:PolicyARN " + boundary
	all := map[string][]target{
		"AttachRolePolicy":                   with(role, attachment),
		"AttachUserPolicy":                   with(user, attachment),
		"CreatePolicy":                       {named("policy", "PolicyName", requestTags)},
		"CreateRole":                         {named("role", "RoleName", requestTags+" "+boundary)},
		"CreateServiceLinkedRole":            {named("role", "AWSServiceName", "iam:AWSServiceName")},
		"CreateUser":                         {named("user", "UserName", requestTags+" "+boundary)},
		"DeleteRole":                         with(role, boundary),
		"DeleteRolePermissionsBoundary":      with(role, boundary),
		"DeleteRolePolicy":                   with(role, boundary),
		"DeleteUserPolicy":                   with(user, boundary),
		"DetachRolePolicy":                   with(role, attachment),
		"DetachUserPolicy":                   with(user, attachment),
		"GetAccessKeyLastUsed":               {the("user", "AccessKeyId", "")},
		"GetRole":                            with(role, boundary),
		"GetServiceLinkedRoleDeletionStatus": {the("role", "DeletionTaskId", "")},
		"PutRolePermissionsBoundary":         with(role, boundary),
		"PutRolePolicy":                      with(role, boundary),
		"PutUserPolicy":                      with(user, boundary),
		"SimulatePrincipalPolicy":            {the("", "PolicySourceArn", "")},
		"TagPolicy":                          with(policy, requestTags),
		"TagRole":                            with(role, requestTags),
		"TagUser":                            with(user, requestTags),
		"UntagPolicy":                        with(policy, removedTags),
		"UntagRole":                          with(role, removedTags),
		"UntagUser":                          with(user, removedTags),
		"UpdateAssumeRolePolicy":             with(role, boundary),
		"UpdateRole":                         with(role, boundary),
		"UpdateRoleDescription":              with(role, boundary),
		"UpdateUser":                         {user, may("user", "NewUserName NewPath", "")}, // under both names
	}
	for t, operations := range map[*target]string{
		nil: "GetAccountSummary ListAccountAliases ListPolicies ListRoles ListUsers ListVirtualMFADevices SimulateCustomPolicy",
		&user: "CreateAccessKey DeleteAccessKey DeleteLoginProfile DeleteUser GetLoginProfile GetUser GetUserPolicy ListAccessKeys ListAttachedUserPolicies " +
			"ListGroupsForUser ListMFADevices ListSSHPublicKeys ListServiceSpecificCredentials ListSigningCertificates ListUserPolicies ListUserTags UpdateAccessKey",
		&role: "DeleteServiceLinkedRole GetRolePolicy ListAttachedRolePolicies ListInstanceProfilesForRole ListRolePolicies ListRoleTags",
		&policy: "CreatePolicyVersion DeletePolicy DeletePolicyVersion GetPolicy GetPolicyVersion ListEntitiesForPolicy ListPolicyTags ListPolicyVersions " +
			"SetDefaultPolicyVersion",
	} {
		for name := range strings.FieldsSeq(operations) {
			all[name] = nil
			if t != nil {
				all[name] = []target{*t}
			}
		}
	}
	return all
}

// has reports whether policies of the target may ask for the condition key.
func (t *target) has(key string) bool { return slices.Contains(t.keys, key) }
