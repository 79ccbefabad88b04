package apiserver

import (
	"cmp"
	"context"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

func (h *appstreamHandlers) createFleet(ctx context.Context, _ Caller, in *api.CreateFleetInput) (*api.CreateFleetOutput, error) {
	err := unsupportedOfFleet(in.DomainJoinInfo, in.MaxConcurrentSessions, in.UsbDeviceFilterStrings, in.SessionScriptS3Location, in.MaxSessionsPerInstance, in.RootVolumeConfig)
	if err != nil {
		return nil, err
	}
	image, err := h.imageName(in.ImageName, in.ImageArn)
	if err != nil {
		return nil, err
	}
	f := appstream.Fleet{
		Name: deref(in.Name), Description: deref(in.Description), DisplayName: deref(in.DisplayName), ImageName: deref(image),
		InstanceType: deref(in.InstanceType), FleetType: deref(in.FleetType), InternetAccess: deref(in.EnableDefaultInternetAccess),
		MaxUserDuration: deref(seconds(in.MaxUserDurationInSeconds)), DisconnectTimeout: deref(seconds(in.DisconnectTimeoutInSeconds)),
		IdleTimeout: deref(seconds(in.IdleDisconnectTimeoutInSeconds)), IamRoleArn: deref(in.IamRoleArn),
		StreamView: deref(in.StreamView), Tags: in.Tags,
	}
	switch {
	case in.MaxUserDurationInSeconds != nil && *in.MaxUserDurationInSeconds == 0:
		return nil, fault.New(fault.Invalid, "maxUserDurationInSeconds", "", "0 is not between 600 and 432000")
	case in.DisconnectTimeoutInSeconds != nil && *in.DisconnectTimeoutInSeconds == 0:
		return nil, fault.New(fault.Invalid, "disconnectTimeoutInSeconds", "", "0 is not between 60 and 36000")
	case image == nil:
		return nil, fault.New(fault.Combination, "imageName", "", "either imageName or imageArn is needed")
	case in.ComputeCapacity == nil:
		return nil, fault.New(fault.Combination, "computeCapacity", "", "it is needed for this fleet type")
	}
	desired, err := desiredInstances(in.ComputeCapacity)
	if err != nil {
		return nil, err
	}
	f.DesiredInstances = deref(desired)
	if in.VpcConfig != nil {
		f.SubnetIDs, f.SecurityGroupIDs = in.VpcConfig.SubnetIds, in.VpcConfig.SecurityGroupIds
	}
	out, err := h.control.CreateFleet(ctx, f)
	if err != nil {
		return nil, err
	}
	shape, err := h.fleet(ctx, out)
	return &api.CreateFleetOutput{Fleet: &shape}, err
}

func (h *appstreamHandlers) describeFleets(ctx context.Context, _ Caller, in *api.DescribeFleetsInput) (*api.DescribeFleetsOutput, error) {
	fs, err := h.control.Fleets(ctx, in.Names)
	if err != nil {
		return nil, err
	}
	out := &api.DescribeFleetsOutput{Fleets: make([]api.Fleet, 0, len(fs))}
	for _, f := range fs {
		shape, err := h.fleet(ctx, f)
		if err != nil {
			return nil, err
		}
		out.Fleets = append(out.Fleets, shape)
	}
	return out, nil
}

func (h *appstreamHandlers) updateFleet(ctx context.Context, _ Caller, in *api.UpdateFleetInput) (*api.UpdateFleetOutput, error) {
	err := unsupportedOfFleet(in.DomainJoinInfo, in.MaxConcurrentSessions, in.UsbDeviceFilterStrings, in.SessionScriptS3Location, in.MaxSessionsPerInstance, in.RootVolumeConfig)
	if err != nil {
		return nil, err
	}
	if in.Name == nil {
		return nil, fault.New(fault.Missing, "name", "", "the fleet's name is missing")
	}
	ch := control.FleetChange{
		Description: in.Description, DisplayName: in.DisplayName, InstanceType: in.InstanceType, StreamView: in.StreamView,
		IamRoleArn: in.IamRoleArn, MaxUserDuration: seconds(in.MaxUserDurationInSeconds),
		DisconnectTimeout: seconds(in.DisconnectTimeoutInSeconds), IdleTimeout: seconds(in.IdleDisconnectTimeoutInSeconds),
		InternetAccess: in.EnableDefaultInternetAccess,
	}
	if ch.ImageName, err = h.imageName(in.ImageName, in.ImageArn); err != nil {
		return nil, err
	}
	if in.ComputeCapacity != nil {
		if ch.DesiredInstances, err = desiredInstances(in.ComputeCapacity); err != nil {
			return nil, err
		}
	}
	if in.VpcConfig != nil {
		ch.SubnetIDs, ch.SecurityGroupIDs = in.VpcConfig.SubnetIds, in.VpcConfig.SecurityGroupIds
	}
	if deref(in.DeleteVpcConfig) {
		ch.SubnetIDs, ch.SecurityGroupIDs = []string{}, []string{}
	}
	for _, a := range in.AttributesToDelete {
		switch a {
		case api.FleetAttributeVpcConfiguration:
			ch.SubnetIDs, ch.SecurityGroupIDs = []string{}, []string{}
		case api.FleetAttributeVpcConfigurationSecurityGroupIds:
			ch.SecurityGroupIDs = []string{}
		case api.FleetAttributeIamRoleArn:
			ch.IamRoleArn = new("")
		default: // never set here, so deleted already
		}
	}
	out, err := h.control.UpdateFleet(ctx, *in.Name, ch)
	if err != nil {
		return nil, err
	}
	shape, err := h.fleet(ctx, out)
	return &api.UpdateFleetOutput{Fleet: &shape}, err
}

func (h *appstreamHandlers) startFleet(ctx context.Context, _ Caller, in *api.StartFleetInput) (*api.StartFleetOutput, error) {
	return nil, h.control.StartFleet(ctx, deref(in.Name))
}

func (h *appstreamHandlers) stopFleet(ctx context.Context, _ Caller, in *api.StopFleetInput) (*api.StopFleetOutput, error) {
	return nil, h.control.StopFleet(ctx, deref(in.Name))
}

func (h *appstreamHandlers) deleteFleet(ctx context.Context, _ Caller, in *api.DeleteFleetInput) (*api.DeleteFleetOutput, error) {
	return nil, h.control.DeleteFleet(ctx, deref(in.Name))
}

func (h *appstreamHandlers) associateFleet(ctx context.Context, _ Caller, in *api.AssociateFleetInput) (*api.AssociateFleetOutput, error) {
	return nil, h.control.AssociateFleet(ctx, deref(in.FleetName), deref(in.StackName))
}

func (h *appstreamHandlers) disassociateFleet(ctx context.Context, _ Caller, in *api.DisassociateFleetInput) (*api.DisassociateFleetOutput, error) {
	return nil, h.control.DisassociateFleet(ctx, deref(in.FleetName), deref(in.StackName))
}

func (h *appstreamHandlers) listAssociatedFleets(ctx context.Context, _ Caller, in *api.ListAssociatedFleetsInput) (*api.ListAssociatedFleetsOutput, error) {
	names, err := h.control.AssociatedFleets(ctx, deref(in.StackName))
	return &api.ListAssociatedFleetsOutput{Names: names}, err
}

func (h *appstreamHandlers) listAssociatedStacks(ctx context.Context, _ Caller, in *api.ListAssociatedStacksInput) (*api.ListAssociatedStacksOutput, error) {
	names, err := h.control.AssociatedStacks(ctx, deref(in.FleetName))
	return &api.ListAssociatedStacksOutput{Names: names}, err
}

func (h *appstreamHandlers) fleet(ctx context.Context, f *appstream.Fleet) (api.Fleet, error) {
	n, err := h.control.FleetCapacity(ctx, f.Name)
	out := api.Fleet{
		Arn: h.arn("fleet", f.Name), Name: &f.Name, DisplayName: optional(f.DisplayName), Description: optional(f.Description),
		ImageName: &f.ImageName, ImageArn: h.arn("image", f.ImageName), InstanceType: &f.InstanceType, FleetType: &f.FleetType,
		ComputeCapacityStatus:    &api.ComputeCapacityStatus{Desired: &f.DesiredInstances, Running: &n.Running, InUse: &n.InUse, Available: &n.Available},
		MaxUserDurationInSeconds: wholeSeconds(f.MaxUserDuration), DisconnectTimeoutInSeconds: wholeSeconds(f.DisconnectTimeout),
		IdleDisconnectTimeoutInSeconds: wholeSeconds(f.IdleTimeout), State: new(string(f.State)), CreatedTime: &f.CreatedTime,
		EnableDefaultInternetAccess: &f.InternetAccess, IamRoleArn: optional(f.IamRoleArn), StreamView: optional(f.StreamView),
		FleetErrors: []api.FleetError{},
	}
	if len(f.SubnetIDs)+len(f.SecurityGroupIDs) > 0 {
		out.VpcConfig = &api.VpcConfig{SubnetIds: f.SubnetIDs, SecurityGroupIds: f.SecurityGroupIDs}
	}
	for _, e := range f.Errors {
		out.FleetErrors = append(out.FleetErrors, api.FleetError{ErrorCode: &e.Code, ErrorMessage: &e.Message})
	}
	return out, err
}

// unsupportedOfFleet refuses the members of fleets that this version cannot honour, in CreateFleet and UpdateFleet alike.
func unsupportedOfFleet(domain *api.DomainJoinInfo, sessions *int32, usb []string, script *api.S3Location, perInstance *int32, volume *api.VolumeConfig) error {
	return cmp.Or(
		unsupported(domain != nil, "domainJoinInfo"), unsupported(sessions != nil, "maxConcurrentSessions"),
		unsupported(usb != nil, "usbDeviceFilterStrings"), unsupported(script != nil, "sessionScriptS3Location"),
		unsupported(perInstance != nil, "maxSessionsPerInstance"), unsupported(volume != nil, "rootVolumeConfig"),
	)
}

// imageName reads the image by name or ARN; nil when neither was sent.
func (h *appstreamHandlers) imageName(name, arn *string) (*string, error) {
	if arn == nil {
		return name, nil
	}
	got, ok := strings.CutPrefix(*arn, *h.arn("image", ""))
	if !ok {
		return nil, fault.New(fault.NotFound, "image", *arn, "there is no image with this ARN")
	}
	if name != nil && *name != got {
		return nil, fault.New(fault.Combination, "imageArn", "", "imageName and imageArn name different images")
	}
	return &got, nil
}

func desiredInstances(c *api.ComputeCapacity) (*int32, error) {
	if c.DesiredSessions != nil {
		return nil, fault.New(fault.Combination, "computeCapacity.desiredSessions", "", "it goes with multi-session fleets only; set desiredInstances")
	}
	if c.DesiredInstances == nil {
		return nil, fault.New(fault.Combination, "computeCapacity", "", "desiredInstances is needed")
	}
	return c.DesiredInstances, nil
}
