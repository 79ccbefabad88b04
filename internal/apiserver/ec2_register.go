package apiserver

import (
	"penstock.dev/penstock/internal/control/network"
)

// ec2Handlers answers EC2 operations: wire shapes in, calls of the network service, wire shapes out.
type ec2Handlers struct {
	net             *network.Service
	region, account string
}

// ec2Operations lists the EC2 operations that this server answers, each with its handler.
// An operation of the model that is not listed is refused as not implemented.
func (s *Server) ec2Operations() []operation {
	if s.options.Network == nil {
		return nil
	}
	h := &ec2Handlers{net: s.options.Network, region: s.options.Region, account: s.options.AccountID}
	return []operation{
		ec2Op("CreateVpc", h.createVpc),
		ec2Op("DescribeVpcs", h.describeVpcs),
		ec2Op("DeleteVpc", h.deleteVpc),
		ec2Op("ModifyVpcAttribute", h.modifyVpcAttribute),
		ec2Op("DescribeVpcAttribute", h.describeVpcAttribute),
		ec2Op("AssociateVpcCidrBlock", h.associateVpcCidrBlock),
		ec2Op("DisassociateVpcCidrBlock", h.disassociateVpcCidrBlock),
		ec2Op("CreateSubnet", h.createSubnet),
		ec2Op("DescribeSubnets", h.describeSubnets),
		ec2Op("DeleteSubnet", h.deleteSubnet),
		ec2Op("ModifySubnetAttribute", h.modifySubnetAttribute),
		ec2Op("CreateSecurityGroup", h.createSecurityGroup),
		ec2Op("DescribeSecurityGroups", h.describeSecurityGroups),
		ec2Op("DeleteSecurityGroup", h.deleteSecurityGroup),
		ec2Op("AuthorizeSecurityGroupIngress", h.authorizeIngress),
		ec2Op("AuthorizeSecurityGroupEgress", h.authorizeEgress),
		ec2Op("RevokeSecurityGroupIngress", h.revokeIngress),
		ec2Op("RevokeSecurityGroupEgress", h.revokeEgress),
		ec2Op("DescribeSecurityGroupRules", h.describeSecurityGroupRules),
		ec2Op("ModifySecurityGroupRules", h.modifySecurityGroupRules),
		ec2Op("UpdateSecurityGroupRuleDescriptionsIngress", h.updateIngressDescriptions),
		ec2Op("UpdateSecurityGroupRuleDescriptionsEgress", h.updateEgressDescriptions),
		ec2Op("DescribeSecurityGroupReferences", h.describeSecurityGroupReferences),
		ec2Op("DescribeStaleSecurityGroups", h.describeStaleSecurityGroups),
		ec2Op("CreateNetworkAcl", h.createNetworkACL),
		ec2Op("DescribeNetworkAcls", h.describeNetworkACLs),
		ec2Op("DeleteNetworkAcl", h.deleteNetworkACL),
		ec2Op("CreateNetworkAclEntry", h.createNetworkACLEntry),
		ec2Op("ReplaceNetworkAclEntry", h.replaceNetworkACLEntry),
		ec2Op("DeleteNetworkAclEntry", h.deleteNetworkACLEntry),
		ec2Op("ReplaceNetworkAclAssociation", h.replaceNetworkACLAssociation),
		ec2Op("CreateRouteTable", h.createRouteTable),
		ec2Op("DescribeRouteTables", h.describeRouteTables),
		ec2Op("DeleteRouteTable", h.deleteRouteTable),
		ec2Op("AssociateRouteTable", h.associateRouteTable),
		ec2Op("DisassociateRouteTable", h.disassociateRouteTable),
		ec2Op("ReplaceRouteTableAssociation", h.replaceRouteTableAssociation),
		ec2Op("CreateRoute", h.createRoute),
		ec2Op("ReplaceRoute", h.replaceRoute),
		ec2Op("DeleteRoute", h.deleteRoute),
		ec2Op("DescribeNetworkInterfaces", h.describeNetworkInterfaces),
		ec2Op("CreateVpcEndpoint", h.createVpcEndpoint),
		ec2Op("DescribeVpcEndpoints", h.describeVpcEndpoints),
		ec2Op("ModifyVpcEndpoint", h.modifyVpcEndpoint),
		ec2Op("DeleteVpcEndpoints", h.deleteVpcEndpoints),
		ec2Op("DescribeVpcEndpointServices", h.describeVpcEndpointServices),
		ec2Op("DescribeVpcEndpointAssociations", h.describeVpcEndpointAssociations),
		ec2Op("DescribeAvailabilityZones", h.describeAvailabilityZones),
		ec2Op("DescribeRegions", h.describeRegions),
		ec2Op("DescribeAccountAttributes", h.describeAccountAttributes),
		ec2Op("DescribePrefixLists", h.describePrefixLists),
		ec2Op("DescribeManagedPrefixLists", h.describeManagedPrefixLists),
		ec2Op("GetManagedPrefixListEntries", h.getManagedPrefixListEntries),
		ec2Op("GetManagedPrefixListAssociations", h.getManagedPrefixListAssociations),
		ec2Op("CreateManagedPrefixList", h.createManagedPrefixList),
		ec2Op("ModifyManagedPrefixList", h.modifyManagedPrefixList),
		ec2Op("RestoreManagedPrefixListVersion", h.restoreManagedPrefixListVersion),
		ec2Op("DeleteManagedPrefixList", h.deleteManagedPrefixList),
		ec2Op("DescribeInternetGateways", h.describeInternetGateways),
		ec2Op("DescribeVpcPeeringConnections", h.describeVpcPeeringConnections),
		ec2Op("DescribeDhcpOptions", h.describeDhcpOptions),
		tidied(ec2Op("CreateNetworkInsightsPath", h.createNetworkInsightsPath), lowerPathProtocol),
		ec2Op("DescribeNetworkInsightsPaths", h.describeNetworkInsightsPaths),
		ec2Op("DeleteNetworkInsightsPath", h.deleteNetworkInsightsPath),
		ec2Op("StartNetworkInsightsAnalysis", h.startNetworkInsightsAnalysis),
		ec2Op("DescribeNetworkInsightsAnalyses", h.describeNetworkInsightsAnalyses),
		ec2Op("DeleteNetworkInsightsAnalysis", h.deleteNetworkInsightsAnalysis),
		ec2Op("CreateTags", h.createTags),
		ec2Op("DeleteTags", h.deleteTags),
		ec2Op("DescribeTags", h.describeTags),
	}
}

// ec2ARN is the ARN of a resource of this account.
func (h *ec2Handlers) ec2ARN(kind, id string) string {
	return "arn:aws:ec2:" + h.region + ":" + h.account + ":" + kind + "/" + id
}
