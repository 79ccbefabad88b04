package apiserver

import (
	"context"

	"penstock.dev/penstock/internal/control/network"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

func (h *ec2Handlers) createTags(ctx context.Context, _ Caller, in *api.CreateTagsInput) (*api.CreateTagsOutput, error) {
	tags, err := tagsOf(in.Tags)
	if err != nil {
		return nil, err
	}
	return nil, h.net.CreateTags(ctx, in.Resources, tags)
}

func (h *ec2Handlers) deleteTags(ctx context.Context, _ Caller, in *api.DeleteTagsInput) (*api.DeleteTagsOutput, error) {
	selectors := make([]network.TagSelector, 0, len(in.Tags))
	for _, t := range in.Tags {
		selectors = append(selectors, network.TagSelector{Key: deref(t.Key), Value: t.Value})
	}
	return nil, h.net.DeleteTags(ctx, in.Resources, selectors)
}

func (h *ec2Handlers) describeTags(ctx context.Context, _ Caller, in *api.DescribeTagsInput) (*api.DescribeTagsOutput, error) {
	all, err := h.net.DescribeTags(ctx)
	if err != nil {
		return nil, err
	}
	type t = api.TagDescription
	items := make([]t, 0, len(all))
	for _, v := range all {
		items = append(items, t{ResourceId: new(v.ResourceID), ResourceType: new(v.ResourceType), Key: new(v.Key), Value: new(v.Value)})
	}
	f := ec2Filter[t]{
		"key":           one(func(v *t) string { return *v.Key }),
		"value":         one(func(v *t) string { return *v.Value }),
		"resource-id":   one(func(v *t) string { return *v.ResourceId }),
		"resource-type": one(func(v *t) string { return *v.ResourceType }),
	}
	asTags := func(v *t) []api.Tag { return []api.Tag{{Key: v.Key, Value: v.Value}} }
	items, next, err := found(items, f, in.Filters, asTags, func(v *t) string { return *v.ResourceId + "\x00" + *v.Key }, in.MaxResults, in.NextToken)
	return &api.DescribeTagsOutput{Tags: items, NextToken: next}, err
}
