package awscompat

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// boto3Script walks what boto3 does by itself: paginators, waiters, tokens, errors. It prints "done" at its end.
const boto3Script = `
import sys, boto3
from botocore.exceptions import ClientError
url, key, secret = sys.argv[1:4]
ec2 = boto3.client("ec2", endpoint_url=url, region_name="us-east-1", aws_access_key_id=key, aws_secret_access_key=secret)

def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as e:
        got = e.response["Error"]["Code"]
        assert got == code, (got, code, e)
        return
    raise AssertionError("%s was not refused with %s" % (arguments, code))

vpc = ec2.create_vpc(CidrBlock="10.50.7.9/16")["Vpc"]
assert vpc["CidrBlock"] == "10.50.0.0/16", vpc
ec2.get_waiter("vpc_available").wait(VpcIds=[vpc["VpcId"]])
made = set()
for n in range(12):
    made.add(ec2.create_subnet(VpcId=vpc["VpcId"], CidrBlock="10.50.%d.0/24" % n)["Subnet"]["SubnetId"])
pages = list(ec2.get_paginator("describe_subnets").paginate(
    Filters=[{"Name": "vpc-id", "Values": [vpc["VpcId"]]}], PaginationConfig={"PageSize": 5}))
assert [len(p["Subnets"]) for p in pages] == [5, 5, 2], pages
assert {s["SubnetId"] for p in pages for s in p["Subnets"]} == made
ec2.get_waiter("subnet_available").wait(SubnetIds=sorted(made))
refused("DryRunOperation", ec2.create_subnet, VpcId=vpc["VpcId"], CidrBlock="10.50.99.0/24", DryRun=True)
refused("InvalidSubnet.Conflict", ec2.create_subnet, VpcId=vpc["VpcId"], CidrBlock="10.50.3.128/25")
refused("InvalidSubnet.Range", ec2.create_subnet, VpcId=vpc["VpcId"], CidrBlock="10.51.0.0/24")
refused("InvalidVpc.Range", ec2.create_vpc, CidrBlock="198.19.0.0/20")
refused("InvalidSubnetID.NotFound", ec2.describe_subnets, SubnetIds=[sorted(made)[0], "subnet-0ffffffffffffffff"])
refused("InvalidParameterCombination", ec2.describe_subnets, SubnetIds=[sorted(made)[0]], MaxResults=5)
refused("InvalidParameterValue", ec2.describe_subnets, Filters=[{"Name": "colour", "Values": ["red"]}])
refused("InvalidNextToken", ec2.describe_subnets, NextToken="nonsense")
refused("DependencyViolation", ec2.delete_vpc, VpcId=vpc["VpcId"])

cidrs = ["10.%d.0.0/16" % n for n in range(9)]
pl = ec2.create_managed_prefix_list(PrefixListName="l", AddressFamily="IPv4", MaxEntries=20, Entries=[{"Cidr": c} for c in cidrs])["PrefixList"]
got = [e["Cidr"] for p in ec2.get_paginator("get_managed_prefix_list_entries").paginate(
    PrefixListId=pl["PrefixListId"], PaginationConfig={"PageSize": 4}) for e in p["Entries"]]
assert sorted(got) == sorted(cidrs), got
ec2.modify_managed_prefix_list(PrefixListId=pl["PrefixListId"], CurrentVersion=1, RemoveEntries=[{"Cidr": c} for c in cidrs])
refused("PrefixListVersionMismatch", ec2.modify_managed_prefix_list, PrefixListId=pl["PrefixListId"], CurrentVersion=1, AddEntries=[{"Cidr": "10.0.0.0/8"}])
ec2.delete_managed_prefix_list(PrefixListId=pl["PrefixListId"])
refused("InvalidPrefixListID.NotFound", ec2.describe_managed_prefix_lists, PrefixListIds=[pl["PrefixListId"]])

group = ec2.create_security_group(GroupName="g", Description="g", VpcId=vpc["VpcId"],
    TagSpecifications=[{"ResourceType": "security-group", "Tags": [{"Key": "k", "Value": "v"}]}])["GroupId"]
ec2.get_waiter("security_group_exists").wait(GroupIds=[group])
for n in range(59):
    ec2.authorize_security_group_egress(GroupId=group, IpPermissions=[{"IpProtocol": "tcp", "FromPort": n, "ToPort": n, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}])
refused("RulesPerSecurityGroupLimitExceeded", ec2.authorize_security_group_egress, GroupId=group,
    IpPermissions=[{"IpProtocol": "tcp", "FromPort": 99, "ToPort": 99, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}])
rules = [r for p in ec2.get_paginator("describe_security_group_rules").paginate(
    Filters=[{"Name": "group-id", "Values": [group]}], PaginationConfig={"PageSize": 25}) for r in p["SecurityGroupRules"]]
assert len(rules) == 60, len(rules)
for s in made:
    ec2.delete_subnet(SubnetId=s)
ec2.delete_security_group(GroupId=group)
ec2.delete_vpc(VpcId=vpc["VpcId"])
refused("InvalidVpcID.NotFound", ec2.describe_vpcs, VpcIds=[vpc["VpcId"]])
print("done")
`

// TestBoto3: Debian's boto3, whose model is of 2022.
func TestBoto3(t *testing.T) {
	t.Parallel()
	const python = "/usr/bin/python3"
	if os.Getenv("PENSTOCK_E2E") != "1" {
		t.Skip("needs PENSTOCK_E2E=1: it starts Python (make e2e)")
	}
	if err := exec.CommandContext(t.Context(), python, "-c", "import boto3").Run(); err != nil {
		t.Skipf("boto3 is missing: install Debian's python3-boto3 (%v)", err)
	}
	a := serveNetworks(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, python, "-", a.url, keyID, secret)
	cmd.Stdin = strings.NewReader(boto3Script)
	cmd.Env = append(os.Environ(), "AWS_EC2_METADATA_DISABLED=true", "AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_MAX_ATTEMPTS=1")
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}
