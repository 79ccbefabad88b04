package awscompat

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"penstock.dev/penstock/internal/penstocktest/terraform"
)

const terraformNetwork = `
variable "both" { default = false }

resource "aws_vpc" "v" {
  cidr_block           = "10.60.0.0/16"
  enable_dns_hostnames = true
  tags                 = { Name = "streams" }
}

resource "aws_subnet" "a" {
  vpc_id            = aws_vpc.v.id
  cidr_block        = "10.60.1.0/24"
  availability_zone = "us-east-1a"
}

resource "aws_subnet" "b" {
  vpc_id            = aws_vpc.v.id
  cidr_block        = "10.60.2.0/24"
  availability_zone = "us-east-1b"
  tags              = { Name = "b" }
}

resource "aws_security_group" "viewers" {
  name        = "viewers"
  description = "streams"
  vpc_id      = aws_vpc.v.id
  ingress {
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["192.168.0.0/16"]
    description = "control and input"
  }
  ingress {
    from_port   = 1400
    to_port     = 1499
    protocol    = "tcp"
    cidr_blocks = ["192.168.0.0/16"]
  }
  egress {
    from_port   = 0
    to_port     = 0
    protocol    = "-1"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

resource "aws_security_group" "ruled" {
  name   = "ruled"
  vpc_id = aws_vpc.v.id
}

resource "aws_vpc_security_group_ingress_rule" "r" {
  security_group_id            = aws_security_group.ruled.id
  referenced_security_group_id = aws_security_group.viewers.id
  ip_protocol                  = "tcp"
  from_port                    = 443
  to_port                      = 443
  tags                         = { Name = "peer" }
}

resource "aws_ec2_managed_prefix_list" "clients" {
  name           = "clients"
  address_family = "IPv4"
  max_entries    = var.both ? 6 : 5
  entry {
    cidr        = "172.16.0.0/16"
    description = "guests" // the provider cannot change it: its second call has the version of before the first (issue 43528)
  }
  dynamic "entry" {
    for_each = var.both ? ["203.0.113.0/24"] : []
    content {
      cidr = entry.value
    }
  }
  tags = { Name = "clients" }
}

resource "aws_ec2_managed_prefix_list" "open" {
  name           = "open"
  address_family = "IPv4"
  max_entries    = 3
}

resource "aws_ec2_managed_prefix_list_entry" "one" {
  cidr           = "198.51.100.0/24"
  description    = "one"
  prefix_list_id = aws_ec2_managed_prefix_list.open.id
}

resource "aws_vpc_security_group_ingress_rule" "listed" {
  security_group_id = aws_security_group.ruled.id
  prefix_list_id    = aws_ec2_managed_prefix_list.clients.id
  ip_protocol       = "tcp"
  from_port         = 1400
  to_port           = 1499
}

resource "aws_network_acl" "acl" {
  vpc_id     = aws_vpc.v.id
  subnet_ids = [aws_subnet.a.id, aws_subnet.b.id]
  ingress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    from_port  = 443
    to_port    = 1499
    cidr_block = "192.168.0.0/16"
  }
  egress {
    rule_no    = 100
    action     = "allow"
    protocol   = "tcp"
    from_port  = 1024
    to_port    = 65535
    cidr_block = "192.168.0.0/16"
  }
  egress {
    rule_no    = 200
    action     = "deny"
    protocol   = "-1"
    from_port  = 0
    to_port    = 0
    cidr_block = "10.0.0.0/8"
  }
}

resource "aws_route_table" "t" {
  vpc_id = aws_vpc.v.id
}

resource "aws_vpc_endpoint" "e" {
  vpc_id              = aws_vpc.v.id
  service_name        = "com.amazonaws.us-east-1.appstream.streaming"
  vpc_endpoint_type   = "Interface"
  private_dns_enabled = true
  subnet_ids          = var.both ? [aws_subnet.a.id, aws_subnet.b.id] : [aws_subnet.a.id]
  security_group_ids  = [aws_security_group.viewers.id]
  tags                = { Name = "endpoint" }
}

output "endpoint" { value = aws_vpc_endpoint.e.id }
output "state" { value = aws_vpc_endpoint.e.state }
`

// TestTerraformNetwork applies a network with Terraform, wants an empty plan after it, changes it, and destroys it.
func TestTerraformNetwork(t *testing.T) {
	t.Parallel()
	terraform.Need(t)
	a := serveNetworks(t)
	run := terraform.Prepare(t, a.url, keyID, secret, terraformNetwork)
	run(0, "init", "-no-color")
	run(0, "apply", "-no-color", "-auto-approve")
	run(0, "plan", "-no-color", "-detailed-exitcode") // 0: nothing to change
	if !a.dials(t, "127.0.0.1", a.onlyVPC(t), "10.60.1.4", 1499) {
		t.Error("the office does not reach the endpoint")
	}
	run(0, "apply", "-no-color", "-auto-approve", "-var", "both=true")
	run(0, "plan", "-no-color", "-detailed-exitcode", "-var", "both=true")
	if !a.dials(t, "127.0.0.1", a.onlyVPC(t), "10.60.2.4", 443) {
		t.Error("the office does not reach the endpoint's second zone")
	}
	run(0, "destroy", "-no-color", "-auto-approve", "-var", "both=true")
	if left := ok[*ec2.DescribeVpcsOutput](t)(a.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("cidr", "10.60.0.0/16")}})); len(left.Vpcs) != 0 {
		t.Errorf("left: %+v", left.Vpcs)
	}
}

// onlyVPC is the VPC that Terraform made.
func (a *netAPI) onlyVPC(t *testing.T) string {
	t.Helper()
	got := ok[*ec2.DescribeVpcsOutput](t)(a.ec2.DescribeVpcs(t.Context(), &ec2.DescribeVpcsInput{Filters: []types.Filter{filter("cidr", "10.60.0.0/16")}}))
	if len(got.Vpcs) != 1 {
		t.Fatalf("%d VPCs", len(got.Vpcs))
	}
	return *got.Vpcs[0].VpcId
}
