package network

import (
	"cmp"
	"context"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// createInVPC are the parameters of operations that make something empty in a VPC.
type createInVPC struct {
	VPC  vpc.VPCID
	Tags vpc.Tags
}

// CreateNetworkACL makes an ACL that denies everything. A token makes repeats harmless.
func (s *Service) CreateNetworkACL(ctx context.Context, id vpc.VPCID, tags vpc.Tags, token string) (*vpc.NetworkACL, error) {
	if err := s.checkTags(tags); err != nil {
		return nil, err
	}
	return state.Write(ctx, s.store, func(tx state.Tx) (*vpc.NetworkACL, error) {
		return once(s, tx, "CreateNetworkAcl", token, createInVPC{id, tags}, vpc.NetworkACLs(), func() (*vpc.NetworkACL, error) {
			if _, err := get(tx, vpc.VPCs(), id); err != nil {
				return nil, err
			}
			n, err := tx.Count(vpc.KindNetworkACL, state.Key{Name: "vpc", Value: string(id)})
			if err != nil {
				return nil, err
			}
			if n >= s.limits.NetworkACLsPerVPC {
				return nil, limit("NetworkAclLimitExceeded", "The maximum number of network ACLs has been reached.")
			}
			a := &vpc.NetworkACL{ID: newID[vpc.NetworkACLID](vpc.PrefixNetworkACL), OwnerID: s.account, VPC: id, Tags: tags}
			return a, vpc.NetworkACLs().Put(tx, a)
		})
	})
}

// DescribeNetworkACLs returns the named ACLs, or all.
func (s *Service) DescribeNetworkACLs(ctx context.Context, ids []vpc.NetworkACLID) ([]*vpc.NetworkACL, error) {
	return describe(ctx, s.store, vpc.NetworkACLs(), ids)
}

// DeleteNetworkACL removes an ACL that is not the default and has no subnets.
func (s *Service) DeleteNetworkACL(ctx context.Context, id vpc.NetworkACLID) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		a, err := get(tx, vpc.NetworkACLs(), id)
		if err != nil {
			return err
		}
		if a.Default {
			return fault.Newf(fault.Invalid, "", "", "Cannot delete default network ACL %s", id).WithCode("InvalidParameterValue")
		}
		if len(a.Associations) > 0 {
			return dependency("The networkAcl '%s' has dependencies and cannot be deleted.", id)
		}
		return vpc.NetworkACLs().Delete(tx, string(id))
	})
	return err
}

// changeACL is one transaction on an ACL.
func (s *Service) changeACL(ctx context.Context, id vpc.NetworkACLID, change func(*vpc.NetworkACL) error) error {
	_, err := s.store.Update(ctx, func(tx state.Tx) error {
		a, err := get(tx, vpc.NetworkACLs(), id)
		if err != nil {
			return err
		}
		if err := change(a); err != nil {
			return err
		}
		return vpc.NetworkACLs().Put(tx, a)
	})
	return err
}

// CreateNetworkACLEntry adds an entry.
func (s *Service) CreateNetworkACLEntry(ctx context.Context, id vpc.NetworkACLID, e vpc.NetworkACLEntry) error {
	return s.changeACL(ctx, id, func(a *vpc.NetworkACL) error { return a.Add(e, s.limits.EntriesPerNetworkACL) })
}

// ReplaceNetworkACLEntry exchanges the entry with the same number and direction.
func (s *Service) ReplaceNetworkACLEntry(ctx context.Context, id vpc.NetworkACLID, e vpc.NetworkACLEntry) error {
	return s.changeACL(ctx, id, func(a *vpc.NetworkACL) error { return a.Replace(e) })
}

// DeleteNetworkACLEntry removes an entry.
func (s *Service) DeleteNetworkACLEntry(ctx context.Context, id vpc.NetworkACLID, number int, egress bool) error {
	return s.changeACL(ctx, id, func(a *vpc.NetworkACL) error { return a.Remove(number, egress) })
}

// ReplaceNetworkACLAssociation moves a subnet to another ACL of its VPC and returns the new association.
func (s *Service) ReplaceNetworkACLAssociation(ctx context.Context, association vpc.NetworkACLAssociationID, to vpc.NetworkACLID) (vpc.NetworkACLAssociationID, error) {
	return state.Write(ctx, s.store, func(tx state.Tx) (vpc.NetworkACLAssociationID, error) {
		if err := vpc.CheckID(association); err != nil {
			return "", err
		}
		next, err := get(tx, vpc.NetworkACLs(), to)
		if err != nil {
			return "", err
		}
		holders, err := vpc.NetworkACLs().By(tx, "association", string(association))
		if err != nil {
			return "", err
		}
		if len(holders) == 0 {
			return "", vpc.NotFound(association)
		}
		prev := holders[0]
		if prev.VPC != next.VPC {
			return "", invalid("Network ACL %s and the association's network ACL %s belong to different networks", next.ID, prev.ID)
		}
		var subnet vpc.SubnetID
		for _, a := range prev.Associations {
			if a.ID == association {
				subnet = a.Subnet
			}
		}
		if prev.ID == next.ID {
			next = prev
		}
		prev.Associations = without(prev.Associations, func(a vpc.NetworkACLAssociation) bool { return a.ID == association })
		made := newACLAssociation(subnet)
		next.Associations = append(next.Associations, made)
		return made.ID, cmp.Or(vpc.NetworkACLs().Put(tx, prev), vpc.NetworkACLs().Put(tx, next))
	})
}
