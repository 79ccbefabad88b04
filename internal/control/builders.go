package control

import (
	"context"
	"slices"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// Quotas are how many of each the account may have; zero means the default of 10 (facts: 10 image builders; of the others none is
// published).
type Quotas struct{ ImageBuilders, AppBlockBuilders, AppBlocks int }

const defaultQuota = 10

// maxGroups bounds the security groups of a VpcConfig.
const maxGroups = 5

// windowsServer2019 is the only platform of app block builders in the model.
const windowsServer2019 = "WINDOWS_SERVER_2019"

// CreateImageBuilder makes an image builder, which starts by itself.
func (c *Control) CreateImageBuilder(ctx context.Context, b appstream.Builder) (*appstream.Builder, error) {
	b.Kind, b.State = appstream.ImageBuilder, appstream.BuilderPending
	return c.createBuilder(ctx, b, c.Quotas.ImageBuilders)
}

// CreateAppBlockBuilder makes an app block builder, stopped: it starts once it is associated with an app block.
func (c *Control) CreateAppBlockBuilder(ctx context.Context, b appstream.Builder) (*appstream.Builder, error) {
	b.Kind, b.State = appstream.AppBlockBuilder, appstream.BuilderStopped
	return c.createBuilder(ctx, b, c.Quotas.AppBlockBuilders)
}

func (c *Control) createBuilder(ctx context.Context, b appstream.Builder, quota int) (*appstream.Builder, error) {
	if err := appstream.CheckName("name", b.Name); err != nil {
		return nil, err
	}
	b.CreatedTime = c.Now().UTC()
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.Builders.Get(tx, string(b.ID())); err != nil {
			return err
		} else if ok {
			return fault.New(fault.AlreadyExists, b.Kind.Title(), b.Name, "an "+b.Kind.Title()+" with this name exists")
		}
		n, err := tx.Count(appstream.Builders.Kind, state.Key{Name: "kind", Value: string(b.Kind)})
		if err != nil {
			return err
		}
		if err := withinQuota(b.Kind.Title(), b.Name, n, quota); err != nil {
			return err
		}
		if err := c.checkBuilder(tx, &b, changed{true, true, true}); err != nil {
			return err
		}
		return appstream.Builders.Put(tx, &b)
	})
	if err != nil {
		return nil, err
	}
	return &b, nil
}

func withinQuota(resource, name string, have, quota int) error {
	if quota == 0 {
		quota = defaultQuota
	}
	if have < quota {
		return nil
	}
	return fault.Newf(fault.Limit, resource, name, "the account has its quota of %d %ss", quota, resource)
}

// changed is what of a builder is being set.
type changed struct{ network, endpoints, role bool }

// checkBuilder refuses settings that do not fit together. What is elsewhere is looked at when it is being set: network and endpoints as the
// service role, without which no builder can be made.
func (c *Control) checkBuilder(r state.Reader, b *appstream.Builder, ch changed) error {
	if b.Kind == appstream.ImageBuilder && b.ImageName != BaseImage {
		return fault.New(fault.NotFound, "image", b.ImageName, "there is no image with this name")
	}
	if b.Kind == appstream.AppBlockBuilder && b.Platform != windowsServer2019 {
		return fault.Newf(fault.Combination, "platform", "", "%s is no platform of app block builders; %s is the only one", b.Platform, windowsServer2019)
	}
	if ch.network {
		if err := c.asServiceRole(r, ""); err != nil {
			return err
		}
		if err := c.checkBuilderNetwork(r, b); err != nil {
			return err
		}
	}
	if ch.role {
		if err := c.checkMachineRole(r, b.IamRoleArn); err != nil {
			return err
		}
	}
	if !ch.endpoints {
		return nil
	}
	return c.checkAccessEndpoints(r, b.AccessEndpoints)
}

// checkBuilderNetwork refuses subnets and security groups that instances of a builder cannot be in: an image builder has one subnet, an
// app block builder at least two in different Availability Zones.
func (c *Control) checkBuilderNetwork(r state.Reader, b *appstream.Builder) error {
	const member = "vpcConfig.subnetIds"
	n := len(b.SubnetIDs)
	switch {
	case b.Kind == appstream.ImageBuilder && n == 0 && len(b.SecurityGroupIDs) > 0:
		return fault.New(fault.Combination, member, "", "security groups go with a subnet")
	case b.Kind == appstream.ImageBuilder && n > 1:
		return fault.Newf(fault.Combination, member, "", "an image builder has one subnet, not %d", n)
	case b.Kind == appstream.AppBlockBuilder && n < 2:
		return fault.New(fault.Combination, member, "", "an app block builder needs at least two subnets, in different Availability Zones")
	case len(b.SecurityGroupIDs) > maxGroups:
		return fault.Newf(fault.Combination, "vpcConfig.securityGroupIds", "", "there are %d; at most %d are allowed", len(b.SecurityGroupIDs), maxGroups)
	case n == 0:
		return nil
	}
	if err := c.asServiceRole(r, "ec2:DescribeSubnets"); err != nil {
		return err
	}
	var in vpc.VPCID
	var zones []string
	for _, id := range b.SubnetIDs {
		s, ok, err := vpc.Subnets().Get(r, id)
		switch {
		case err != nil:
			return err
		case !ok:
			return fault.New(fault.NotFound, "subnet", id, "there is no subnet with this ID in this account and region")
		case in != "" && s.VPC != in:
			return fault.Newf(fault.Combination, member, "", "subnet %s is in VPC %s, another one in VPC %s", id, s.VPC, in)
		}
		in, zones = s.VPC, append(zones, s.Zone)
	}
	slices.Sort(zones)
	if b.Kind == appstream.AppBlockBuilder && len(slices.Compact(zones)) < 2 {
		return fault.Newf(fault.Combination, member, "", "all of them are in Availability Zone %s; an app block builder needs two zones", zones[0])
	}
	if len(b.SecurityGroupIDs) == 0 {
		return nil
	}
	if err := c.asServiceRole(r, "ec2:DescribeSecurityGroups"); err != nil {
		return err
	}
	for _, id := range b.SecurityGroupIDs {
		g, ok, err := vpc.SecurityGroups().Get(r, id)
		switch {
		case err != nil:
			return err
		case !ok:
			return fault.New(fault.NotFound, "security group", id, "there is no security group with this ID in this account and region")
		case g.VPC != in:
			return fault.Newf(fault.Combination, "vpcConfig.securityGroupIds", "", "security group %s is in VPC %s, the subnet in VPC %s", id, g.VPC, in)
		}
	}
	return nil
}

// BuilderChange is what UpdateAppBlockBuilder sends: nil members stay as they are.
type BuilderChange struct {
	Description, DisplayName, Platform, InstanceType, IamRoleArn *string
	InternetAccess, DisableIMDSV1                                *bool
	SubnetIDs, SecurityGroupIDs                                  []string
	AccessEndpoints                                              []appstream.AccessEndpoint
	Delete                                                       []string // AttributesToDelete
}

// whileRunning reports whether every sent member may change on a running app block builder.
func (ch *BuilderChange) whileRunning() bool {
	return ch.Platform == nil && ch.InstanceType == nil && ch.IamRoleArn == nil && ch.InternetAccess == nil && ch.DisableIMDSV1 == nil &&
		ch.SubnetIDs == nil && ch.SecurityGroupIDs == nil && ch.AccessEndpoints == nil && len(ch.Delete) == 0
}

// UpdateAppBlockBuilder changes the members that were sent; a running one takes its names alone.
func (c *Control) UpdateAppBlockBuilder(ctx context.Context, name string, ch BuilderChange) (*appstream.Builder, error) {
	if slices.Contains(ch.Delete, "ACCESS_ENDPOINTS") && len(ch.AccessEndpoints) > 0 {
		return nil, fault.New(fault.Combination, "attributesToDelete", "", "ACCESS_ENDPOINTS cannot be deleted and set in one call")
	}
	return c.changeBuilder(ctx, appstream.AppBlockBuilder, name, func(tx state.Tx, b *appstream.Builder) error {
		if err := settled(b); err != nil {
			return err
		}
		if b.State != appstream.BuilderStopped && !ch.whileRunning() {
			return fault.Newf(fault.NotPermitted, b.Kind.Title(), name, "only display name and description can change while it is %s", b.State)
		}
		for _, a := range ch.Delete {
			switch a {
			case "IAM_ROLE_ARN":
				b.IamRoleArn = ""
			case "ACCESS_ENDPOINTS":
				b.AccessEndpoints = nil
			case "VPC_CONFIGURATION_SECURITY_GROUP_IDS":
				b.SecurityGroupIDs = nil
			default:
				return fault.Newf(fault.Invalid, "attributesToDelete", "", "%q is not an attribute that can be deleted", a)
			}
		}
		set(&b.Description, ch.Description)
		set(&b.DisplayName, ch.DisplayName)
		set(&b.Platform, ch.Platform)
		set(&b.InstanceType, ch.InstanceType)
		set(&b.IamRoleArn, ch.IamRoleArn)
		set(&b.InternetAccess, ch.InternetAccess)
		if ch.DisableIMDSV1 != nil {
			b.DisableIMDSV1 = ch.DisableIMDSV1
		}
		setList(&b.SubnetIDs, ch.SubnetIDs)
		setList(&b.SecurityGroupIDs, ch.SecurityGroupIDs)
		setList(&b.AccessEndpoints, ch.AccessEndpoints)
		return c.checkBuilder(tx, b, changed{
			network: ch.SubnetIDs != nil || ch.SecurityGroupIDs != nil, endpoints: len(ch.AccessEndpoints) > 0, role: ch.IamRoleArn != nil,
		})
	})
}

// StartBuilder asks for RUNNING. Starting what starts or runs is not an error; a failed image builder is tried again.
func (c *Control) StartBuilder(ctx context.Context, kind appstream.BuilderKind, name string) (*appstream.Builder, error) {
	return c.changeBuilder(ctx, kind, name, func(_ state.Tx, b *appstream.Builder) error {
		switch b.State {
		case appstream.BuilderPending, appstream.BuilderStarting, appstream.BuilderRunning:
			return nil
		case appstream.BuilderStopped, appstream.BuilderFailed:
		case appstream.BuilderStopping, appstream.BuilderDeleting:
			return settled(b)
		}
		if kind == appstream.AppBlockBuilder && b.AppBlock == "" {
			return fault.New(fault.NotPermitted, kind.Title(), name, "it is not associated with an app block; associate it first")
		}
		b.State, b.Errors, b.StartFailures, b.RetryAt = kind.Starting(), nil, 0, time.Time{}
		return nil
	})
}

// StopBuilder asks for STOPPED; a session on it ends. Stopping what stops or is stopped is not an error.
func (c *Control) StopBuilder(ctx context.Context, kind appstream.BuilderKind, name string) (*appstream.Builder, error) {
	return c.changeBuilder(ctx, kind, name, func(_ state.Tx, b *appstream.Builder) error {
		switch b.State {
		case appstream.BuilderStopping, appstream.BuilderStopped:
			return nil
		case appstream.BuilderRunning:
			b.State = appstream.BuilderStopping
			return nil
		case appstream.BuilderFailed:
			return fault.New(fault.NotPermitted, kind.Title(), name, "it is FAILED: nothing of it runs; start it again or delete it")
		case appstream.BuilderPending, appstream.BuilderStarting, appstream.BuilderDeleting:
		}
		return settled(b)
	})
}

// DeleteImageBuilder asks for its end, running or not; a session on it ends. Repeating it is not an error.
func (c *Control) DeleteImageBuilder(ctx context.Context, name string) (*appstream.Builder, error) {
	return c.changeBuilder(ctx, appstream.ImageBuilder, name, func(_ state.Tx, b *appstream.Builder) error {
		if b.State == appstream.BuilderDeleting {
			return nil
		}
		if err := settled(b); err != nil {
			return err
		}
		b.State = appstream.BuilderDeleting
		return nil
	})
}

// DeleteAppBlockBuilder removes an app block builder that is stopped and not associated.
func (c *Control) DeleteAppBlockBuilder(ctx context.Context, name string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		b, err := builder(tx, appstream.AppBlockBuilder.ID(name))
		if err != nil {
			return err
		}
		if err := settled(b); err != nil {
			return err
		}
		switch {
		case b.State != appstream.BuilderStopped:
			return fault.Newf(fault.NotPermitted, b.Kind.Title(), name, "it is %s; delete it when it is STOPPED", b.State)
		case b.AppBlock != "":
			return fault.Newf(fault.InUse, b.Kind.Title(), name, "it is associated with app block %s", b.AppBlock)
		}
		return appstream.Builders.Delete(tx, string(b.ID()))
	})
	return err
}

// Builders returns the named builders of a kind, all when no name is given, in order of their names.
func (c *Control) Builders(ctx context.Context, kind appstream.BuilderKind, names []string) ([]*appstream.Builder, error) {
	return state.Read(ctx, c.Store, func(r state.Reader) ([]*appstream.Builder, error) {
		if len(names) == 0 {
			return appstream.Builders.By(r, "kind", string(kind))
		}
		names = slices.Compact(slices.Sorted(slices.Values(names)))
		out := make([]*appstream.Builder, 0, len(names))
		for _, n := range names {
			b, err := builder(r, kind.ID(n))
			if err != nil {
				return nil, err
			}
			out = append(out, b)
		}
		return out, nil
	})
}

// settled refuses a builder that is on its way to another state.
func settled(b *appstream.Builder) error {
	if !b.State.Changing() {
		return nil
	}
	return fault.Newf(fault.Conflict, b.Kind.Title(), b.Name, "it is %s; try again when that is over", b.State)
}

func (c *Control) changeBuilder(ctx context.Context, kind appstream.BuilderKind, name string, change func(state.Tx, *appstream.Builder) error) (*appstream.Builder, error) {
	var out *appstream.Builder
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		b, err := builder(tx, kind.ID(name))
		if err != nil {
			return err
		}
		if err := change(tx, b); err != nil {
			return err
		}
		out = b
		return appstream.Builders.Put(tx, b)
	})
	return out, err
}

// builder gets a builder, or says that there is none.
func builder(r state.Reader, id appstream.BuilderID) (*appstream.Builder, error) {
	b, ok, err := appstream.Builders.Get(r, string(id))
	if err != nil || ok {
		return b, err
	}
	kind, name := id.Split()
	return nil, fault.Newf(fault.NotFound, kind.Title(), name, "there is no %s with this name", kind.Title())
}
