package apiserver

import (
	"cmp"
	"context"
	"encoding/base64"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

// builderOperations are those of image builders, app block builders and app blocks.
func (h *appstreamHandlers) builderOperations() []operation {
	return []operation{
		appstreamOp("CreateImageBuilder", h.createImageBuilder),
		appstreamOp("DescribeImageBuilders", h.describeImageBuilders),
		appstreamOp("StartImageBuilder", h.startImageBuilder),
		appstreamOp("StopImageBuilder", h.stopImageBuilder),
		appstreamOp("DeleteImageBuilder", h.deleteImageBuilder),
		appstreamOp("CreateImageBuilderStreamingURL", h.createImageBuilderStreamingURL),
		appstreamOp("CreateAppBlockBuilder", h.createAppBlockBuilder),
		appstreamOp("DescribeAppBlockBuilders", h.describeAppBlockBuilders),
		appstreamOp("UpdateAppBlockBuilder", h.updateAppBlockBuilder),
		appstreamOp("StartAppBlockBuilder", h.startAppBlockBuilder),
		appstreamOp("StopAppBlockBuilder", h.stopAppBlockBuilder),
		appstreamOp("DeleteAppBlockBuilder", h.deleteAppBlockBuilder),
		appstreamOp("CreateAppBlockBuilderStreamingURL", h.createAppBlockBuilderStreamingURL),
		appstreamOp("AssociateAppBlockBuilderAppBlock", h.associateAppBlock),
		appstreamOp("DisassociateAppBlockBuilderAppBlock", h.disassociateAppBlock),
		appstreamOp("DescribeAppBlockBuilderAppBlockAssociations", h.describeAppBlockAssociations),
		appstreamOp("CreateAppBlock", h.createAppBlock),
		appstreamOp("DescribeAppBlocks", h.describeAppBlocks),
		appstreamOp("DeleteAppBlock", h.deleteAppBlock),
	}
}

// latestAgent is what AppstreamAgentVersion may say: builders run the server's own agent.
const latestAgent = "LATEST"

func checkAgentVersion(v *string) error {
	return unsupported(v != nil && *v != latestAgent, "appstreamAgentVersion")
}

func (h *appstreamHandlers) createImageBuilder(ctx context.Context, _ Caller, in *api.CreateImageBuilderInput) (*api.CreateImageBuilderOutput, error) {
	err := cmp.Or(
		unsupported(in.DomainJoinInfo != nil, "domainJoinInfo"), unsupported(in.RootVolumeConfig != nil, "rootVolumeConfig"),
		unsupported(len(in.SoftwaresToInstall) > 0, "softwaresToInstall"), unsupported(len(in.SoftwaresToUninstall) > 0, "softwaresToUninstall"),
		checkAgentVersion(in.AppstreamAgentVersion),
	)
	if err != nil {
		return nil, err
	}
	image, err := h.imageName(in.ImageName, in.ImageArn)
	if err != nil {
		return nil, err
	}
	if image == nil {
		return nil, fault.New(fault.Combination, "imageName", "", "either imageName or imageArn is needed")
	}
	b := appstream.Builder{
		Name: deref(in.Name), Description: deref(in.Description), DisplayName: deref(in.DisplayName), ImageName: *image,
		AgentVersion: deref(in.AppstreamAgentVersion), InstanceType: deref(in.InstanceType), InternetAccess: deref(in.EnableDefaultInternetAccess),
		IamRoleArn: deref(in.IamRoleArn), AccessEndpoints: accessEndpoints(in.AccessEndpoints), DisableIMDSV1: in.DisableIMDSV1, Tags: in.Tags,
	}
	if in.VpcConfig != nil {
		b.SubnetIDs, b.SecurityGroupIDs = in.VpcConfig.SubnetIds, in.VpcConfig.SecurityGroupIds
	}
	out, err := h.control.CreateImageBuilder(ctx, b)
	return &api.CreateImageBuilderOutput{ImageBuilder: h.imageBuilder(out)}, err
}

func (h *appstreamHandlers) describeImageBuilders(ctx context.Context, _ Caller, in *api.DescribeImageBuildersInput) (*api.DescribeImageBuildersOutput, error) {
	bs, next, err := h.builders(ctx, appstream.ImageBuilder, in.Names, in.MaxResults, in.NextToken)
	out := &api.DescribeImageBuildersOutput{ImageBuilders: make([]api.ImageBuilder, 0, len(bs)), NextToken: next}
	for _, b := range bs {
		out.ImageBuilders = append(out.ImageBuilders, *h.imageBuilder(b))
	}
	return out, err
}

func (h *appstreamHandlers) startImageBuilder(ctx context.Context, _ Caller, in *api.StartImageBuilderInput) (*api.StartImageBuilderOutput, error) {
	if err := checkAgentVersion(in.AppstreamAgentVersion); err != nil {
		return nil, err
	}
	b, err := h.control.StartBuilder(ctx, appstream.ImageBuilder, deref(in.Name))
	return &api.StartImageBuilderOutput{ImageBuilder: h.imageBuilder(b)}, err
}

func (h *appstreamHandlers) stopImageBuilder(ctx context.Context, _ Caller, in *api.StopImageBuilderInput) (*api.StopImageBuilderOutput, error) {
	b, err := h.control.StopBuilder(ctx, appstream.ImageBuilder, deref(in.Name))
	return &api.StopImageBuilderOutput{ImageBuilder: h.imageBuilder(b)}, err
}

func (h *appstreamHandlers) deleteImageBuilder(ctx context.Context, _ Caller, in *api.DeleteImageBuilderInput) (*api.DeleteImageBuilderOutput, error) {
	b, err := h.control.DeleteImageBuilder(ctx, deref(in.Name))
	return &api.DeleteImageBuilderOutput{ImageBuilder: h.imageBuilder(b)}, err
}

func (h *appstreamHandlers) createImageBuilderStreamingURL(ctx context.Context, _ Caller, in *api.CreateImageBuilderStreamingURLInput) (*api.CreateImageBuilderStreamingURLOutput, error) {
	u, expires, err := h.control.CreateBuilderStreamingURL(ctx, appstream.ImageBuilder, deref(in.Name), in.Validity)
	return &api.CreateImageBuilderStreamingURLOutput{StreamingURL: &u, Expires: &expires}, err
}

func (h *appstreamHandlers) createAppBlockBuilder(ctx context.Context, _ Caller, in *api.CreateAppBlockBuilderInput) (*api.CreateAppBlockBuilderOutput, error) {
	b := appstream.Builder{
		Name: deref(in.Name), Description: deref(in.Description), DisplayName: deref(in.DisplayName), Platform: deref(in.Platform),
		InstanceType: deref(in.InstanceType), InternetAccess: deref(in.EnableDefaultInternetAccess), IamRoleArn: deref(in.IamRoleArn),
		SubnetIDs: in.VpcConfig.SubnetIds, SecurityGroupIDs: in.VpcConfig.SecurityGroupIds,
		AccessEndpoints: accessEndpoints(in.AccessEndpoints), DisableIMDSV1: in.DisableIMDSV1, Tags: in.Tags,
	}
	out, err := h.control.CreateAppBlockBuilder(ctx, b)
	return &api.CreateAppBlockBuilderOutput{AppBlockBuilder: h.appBlockBuilder(out)}, err
}

func (h *appstreamHandlers) describeAppBlockBuilders(ctx context.Context, _ Caller, in *api.DescribeAppBlockBuildersInput) (*api.DescribeAppBlockBuildersOutput, error) {
	bs, next, err := h.builders(ctx, appstream.AppBlockBuilder, in.Names, in.MaxResults, in.NextToken)
	out := &api.DescribeAppBlockBuildersOutput{AppBlockBuilders: make([]api.AppBlockBuilder, 0, len(bs)), NextToken: next}
	for _, b := range bs {
		out.AppBlockBuilders = append(out.AppBlockBuilders, *h.appBlockBuilder(b))
	}
	return out, err
}

func (h *appstreamHandlers) updateAppBlockBuilder(ctx context.Context, _ Caller, in *api.UpdateAppBlockBuilderInput) (*api.UpdateAppBlockBuilderOutput, error) {
	ch := control.BuilderChange{
		Description: in.Description, DisplayName: in.DisplayName, Platform: in.Platform, InstanceType: in.InstanceType, IamRoleArn: in.IamRoleArn,
		InternetAccess: in.EnableDefaultInternetAccess, DisableIMDSV1: in.DisableIMDSV1, AccessEndpoints: accessEndpoints(in.AccessEndpoints),
		Delete: in.AttributesToDelete,
	}
	if in.VpcConfig != nil {
		ch.SubnetIDs, ch.SecurityGroupIDs = in.VpcConfig.SubnetIds, in.VpcConfig.SecurityGroupIds
	}
	b, err := h.control.UpdateAppBlockBuilder(ctx, deref(in.Name), ch)
	return &api.UpdateAppBlockBuilderOutput{AppBlockBuilder: h.appBlockBuilder(b)}, err
}

func (h *appstreamHandlers) startAppBlockBuilder(ctx context.Context, _ Caller, in *api.StartAppBlockBuilderInput) (*api.StartAppBlockBuilderOutput, error) {
	b, err := h.control.StartBuilder(ctx, appstream.AppBlockBuilder, deref(in.Name))
	return &api.StartAppBlockBuilderOutput{AppBlockBuilder: h.appBlockBuilder(b)}, err
}

func (h *appstreamHandlers) stopAppBlockBuilder(ctx context.Context, _ Caller, in *api.StopAppBlockBuilderInput) (*api.StopAppBlockBuilderOutput, error) {
	b, err := h.control.StopBuilder(ctx, appstream.AppBlockBuilder, deref(in.Name))
	return &api.StopAppBlockBuilderOutput{AppBlockBuilder: h.appBlockBuilder(b)}, err
}

func (h *appstreamHandlers) deleteAppBlockBuilder(ctx context.Context, _ Caller, in *api.DeleteAppBlockBuilderInput) (*api.DeleteAppBlockBuilderOutput, error) {
	return nil, h.control.DeleteAppBlockBuilder(ctx, deref(in.Name))
}

func (h *appstreamHandlers) createAppBlockBuilderStreamingURL(ctx context.Context, _ Caller, in *api.CreateAppBlockBuilderStreamingURLInput) (*api.CreateAppBlockBuilderStreamingURLOutput, error) {
	u, expires, err := h.control.CreateBuilderStreamingURL(ctx, appstream.AppBlockBuilder, deref(in.AppBlockBuilderName), in.Validity)
	return &api.CreateAppBlockBuilderStreamingURLOutput{StreamingURL: &u, Expires: &expires}, err
}

func (h *appstreamHandlers) associateAppBlock(ctx context.Context, _ Caller, in *api.AssociateAppBlockBuilderAppBlockInput) (*api.AssociateAppBlockBuilderAppBlockOutput, error) {
	b, err := h.control.AssociateAppBlock(ctx, deref(in.AppBlockBuilderName), deref(in.AppBlockArn))
	if err != nil {
		return nil, err
	}
	return &api.AssociateAppBlockBuilderAppBlockOutput{AppBlockBuilderAppBlockAssociation: h.association(b)}, nil
}

func (h *appstreamHandlers) disassociateAppBlock(ctx context.Context, _ Caller, in *api.DisassociateAppBlockBuilderAppBlockInput) (*api.DisassociateAppBlockBuilderAppBlockOutput, error) {
	return nil, h.control.DisassociateAppBlock(ctx, deref(in.AppBlockBuilderName), deref(in.AppBlockArn))
}

func (h *appstreamHandlers) describeAppBlockAssociations(ctx context.Context, _ Caller, in *api.DescribeAppBlockBuilderAppBlockAssociationsInput) (*api.DescribeAppBlockBuilderAppBlockAssociationsOutput, error) {
	bs, err := h.control.AssociatedBuilders(ctx, deref(in.AppBlockArn), deref(in.AppBlockBuilderName))
	if err != nil {
		return nil, err
	}
	bs, next, err := builderPage(bs, func(b *appstream.Builder) string { return b.Name }, in.MaxResults, in.NextToken)
	out := &api.DescribeAppBlockBuilderAppBlockAssociationsOutput{
		AppBlockBuilderAppBlockAssociations: make([]api.AppBlockBuilderAppBlockAssociation, 0, len(bs)), NextToken: next,
	}
	for _, b := range bs {
		out.AppBlockBuilderAppBlockAssociations = append(out.AppBlockBuilderAppBlockAssociations, *h.association(b))
	}
	return out, err
}

func (h *appstreamHandlers) association(b *appstream.Builder) *api.AppBlockBuilderAppBlockAssociation {
	return &api.AppBlockBuilderAppBlockAssociation{AppBlockArn: h.arn("app-block", b.AppBlock), AppBlockBuilderName: &b.Name}
}

// createAppBlock makes app blocks that app block builders are to fill. Those that bring their content need a bucket to read it from.
func (h *appstreamHandlers) createAppBlock(ctx context.Context, _ Caller, in *api.CreateAppBlockInput) (*api.CreateAppBlockOutput, error) {
	switch {
	case deref(in.PackagingType) != api.PackagingTypeAppstream2:
		return nil, fault.New(fault.Unsupported, "packagingType", "", "CUSTOM, the default, reads its virtual hard disk from S3, which this version does not; use APPSTREAM2")
	case in.SetupScriptDetails != nil:
		return nil, fault.New(fault.Combination, "setupScriptDetails", "", "it goes with packagingType CUSTOM, not with APPSTREAM2")
	case in.PostSetupScriptDetails != nil:
		return nil, unsupported(true, "postSetupScriptDetails")
	case in.SourceS3Location.S3Key != nil:
		return nil, fault.New(fault.Combination, "sourceS3Location.s3Key", "", "it goes with packagingType CUSTOM, not with APPSTREAM2")
	}
	a, err := h.control.CreateAppBlock(ctx, appstream.AppBlock{
		Name: deref(in.Name), Description: deref(in.Description), DisplayName: deref(in.DisplayName), S3Bucket: deref(in.SourceS3Location.S3Bucket), Tags: in.Tags,
	})
	if err != nil {
		return nil, err
	}
	return &api.CreateAppBlockOutput{AppBlock: h.appBlock(a)}, nil
}

func (h *appstreamHandlers) describeAppBlocks(ctx context.Context, _ Caller, in *api.DescribeAppBlocksInput) (*api.DescribeAppBlocksOutput, error) {
	as, err := h.control.AppBlocks(ctx, in.Arns)
	if err != nil {
		return nil, err
	}
	as, next, err := builderPage(as, func(a *appstream.AppBlock) string { return a.Name }, in.MaxResults, in.NextToken)
	out := &api.DescribeAppBlocksOutput{AppBlocks: make([]api.AppBlock, 0, len(as)), NextToken: next}
	for _, a := range as {
		out.AppBlocks = append(out.AppBlocks, *h.appBlock(a))
	}
	return out, err
}

func (h *appstreamHandlers) deleteAppBlock(ctx context.Context, _ Caller, in *api.DeleteAppBlockInput) (*api.DeleteAppBlockOutput, error) {
	return nil, h.control.DeleteAppBlock(ctx, deref(in.Name))
}

func (h *appstreamHandlers) appBlock(a *appstream.AppBlock) *api.AppBlock {
	return &api.AppBlock{
		Name: &a.Name, Arn: h.arn("app-block", a.Name), Description: optional(a.Description), DisplayName: optional(a.DisplayName),
		SourceS3Location: &api.S3Location{S3Bucket: &a.S3Bucket}, CreatedTime: &a.CreatedTime,
		PackagingType: new(api.PackagingTypeAppstream2), State: new(api.AppBlockStateInactive), AppBlockErrors: []api.ErrorDetails{},
	}
}

// builders is one page of the builders of a kind.
func (h *appstreamHandlers) builders(ctx context.Context, kind appstream.BuilderKind, names []string, maxResults *int32, token *string) ([]*appstream.Builder, *string, error) {
	bs, err := h.control.Builders(ctx, kind, names)
	if err != nil {
		return nil, nil, err
	}
	return builderPage(bs, func(b *appstream.Builder) string { return b.Name }, maxResults, token)
}

// imageBuilder is the shape of an image builder; nil of none.
func (h *appstreamHandlers) imageBuilder(b *appstream.Builder) *api.ImageBuilder {
	if b == nil {
		return nil
	}
	return &api.ImageBuilder{
		Name: &b.Name, Arn: h.arn(string(b.Kind), b.Name), ImageArn: h.arn("image", b.ImageName), Description: optional(b.Description),
		DisplayName: optional(b.DisplayName), VpcConfig: builderVPC(b), InstanceType: &b.InstanceType, IamRoleArn: optional(b.IamRoleArn),
		State: new(string(b.State)), CreatedTime: &b.CreatedTime, EnableDefaultInternetAccess: &b.InternetAccess,
		ImageBuilderErrors: builderErrors(b), AppstreamAgentVersion: optional(b.AgentVersion),
		AccessEndpoints: accessEndpointShapes(b.AccessEndpoints), DisableIMDSV1: b.DisableIMDSV1,
		StateChangeReason: stateChange(b, func(text *string) *api.ImageBuilderStateChangeReason {
			return &api.ImageBuilderStateChangeReason{Code: new(api.ImageBuilderStateChangeReasonCodeInternalError), Message: text}
		}),
	}
}

// appBlockBuilder is the shape of an app block builder; nil of none.
func (h *appstreamHandlers) appBlockBuilder(b *appstream.Builder) *api.AppBlockBuilder {
	if b == nil {
		return nil
	}
	return &api.AppBlockBuilder{
		Name: &b.Name, Arn: h.arn(string(b.Kind), b.Name), Description: optional(b.Description), DisplayName: optional(b.DisplayName),
		Platform: &b.Platform, InstanceType: &b.InstanceType, EnableDefaultInternetAccess: &b.InternetAccess, IamRoleArn: optional(b.IamRoleArn),
		VpcConfig: builderVPC(b), State: new(string(b.State)), CreatedTime: &b.CreatedTime, AppBlockBuilderErrors: builderErrors(b),
		AccessEndpoints: accessEndpointShapes(b.AccessEndpoints), DisableIMDSV1: b.DisableIMDSV1,
		StateChangeReason: stateChange(b, func(text *string) *api.AppBlockBuilderStateChangeReason {
			return &api.AppBlockBuilderStateChangeReason{Code: new(api.AppBlockBuilderStateChangeReasonCodeInternalError), Message: text}
		}),
	}
}

// stateChange says why a builder that was to start does not; nothing of one that does.
func stateChange[T any](b *appstream.Builder, reason func(*string) *T) *T {
	if len(b.Errors) == 0 || b.State == appstream.BuilderRunning {
		return nil
	}
	return reason(&b.Errors[0].Message)
}

func builderVPC(b *appstream.Builder) *api.VpcConfig {
	if len(b.SubnetIDs) == 0 {
		return nil
	}
	return &api.VpcConfig{SubnetIds: b.SubnetIDs, SecurityGroupIds: b.SecurityGroupIDs}
}

func builderErrors(b *appstream.Builder) []api.ResourceError {
	out := make([]api.ResourceError, 0, len(b.Errors))
	for i := range b.Errors {
		e := &b.Errors[i]
		out = append(out, api.ResourceError{ErrorCode: &e.Code, ErrorMessage: &e.Message, ErrorTimestamp: &e.Time})
	}
	return out
}

// maxBuilders is the greatest and the default size of a page of builders and app blocks (DescribeAppBlockBuilders: 25).
const maxBuilders = 25

// builderPage is page for AppStream: sizes are refused by the member's name, and tokens do not show what is in them.
func builderPage[T any](items []*T, name func(*T) string, maxResults *int32, token *string) ([]*T, *string, error) {
	size := int32(maxBuilders)
	if maxResults != nil {
		size = *maxResults
	}
	if size < 1 || size > maxBuilders {
		return nil, nil, fault.Newf(fault.Invalid, "maxResults", "", "%d is not between 1 and %d", size, maxBuilders)
	}
	if token != nil {
		after, err := base64.RawURLEncoding.DecodeString(*token)
		if err != nil {
			return nil, nil, fault.New(fault.Invalid, "nextToken", "", "it was not made by this operation")
		}
		token = new(string(after))
	}
	items, next, err := page(items, func(v **T) string { return name(*v) }, &size, token)
	if next != nil {
		next = new(base64.RawURLEncoding.EncodeToString([]byte(*next)))
	}
	return items, next, err
}
