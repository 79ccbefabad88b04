package apiserver

import (
	"context"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/fault"
	api "penstock.dev/penstock/internal/wire/appstreamapi"
)

// describeImages shows the base image: this machine's own applications.
func (h *appstreamHandlers) describeImages(ctx context.Context, _ Caller, in *api.DescribeImagesInput) (*api.DescribeImagesOutput, error) {
	arn := h.arn("image", control.BaseImage)
	for _, n := range in.Names {
		if n != control.BaseImage {
			return nil, fault.New(fault.NotFound, "image", n, "there is no image with this name")
		}
	}
	if len(in.Arns) > 0 && !slices.Contains(in.Arns, *arn) {
		return nil, fault.New(fault.NotFound, "image", in.Arns[0], "there is no image with this ARN")
	}
	if t := deref(in.Type); t != "" && t != api.VisibilityTypePublic {
		return &api.DescribeImagesOutput{Images: []api.Image{}}, nil
	}
	apps, err := h.control.Applications(ctx)
	if err != nil {
		return nil, err
	}
	image := api.Image{
		Name: new(control.BaseImage), Arn: arn, DisplayName: new("Penstock base"), State: new(api.ImageStateAvailable),
		Visibility: new(api.VisibilityTypePublic), ImageBuilderSupported: new(true),
		Description: new("The applications that are installed on this machine"),
	}
	for _, a := range apps {
		image.Applications = append(image.Applications, imageApplication(a))
	}
	return &api.DescribeImagesOutput{Images: []api.Image{image}}, nil
}

func imageApplication(a appstream.Application) api.Application {
	out := api.Application{
		Name: &a.Name, DisplayName: &a.DisplayName, Description: optional(a.Description),
		WorkingDirectory: optional(a.WorkingDir), Enabled: new(true),
	}
	if len(a.Command) > 0 {
		out.LaunchPath, out.LaunchParameters = &a.Command[0], optional(strings.Join(a.Command[1:], " "))
	}
	return out
}

func (h *appstreamHandlers) tagResource(ctx context.Context, _ Caller, in *api.TagResourceInput) (*api.TagResourceOutput, error) {
	return nil, h.control.ChangeTags(ctx, deref(in.ResourceArn), in.Tags, nil)
}

func (h *appstreamHandlers) untagResource(ctx context.Context, _ Caller, in *api.UntagResourceInput) (*api.UntagResourceOutput, error) {
	return nil, h.control.ChangeTags(ctx, deref(in.ResourceArn), nil, in.TagKeys)
}

func (h *appstreamHandlers) listTagsForResource(ctx context.Context, _ Caller, in *api.ListTagsForResourceInput) (*api.ListTagsForResourceOutput, error) {
	tags, err := h.control.Tags(ctx, deref(in.ResourceArn))
	return &api.ListTagsForResourceOutput{Tags: tags}, err
}
