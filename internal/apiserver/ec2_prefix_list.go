package apiserver

import (
	"cmp"
	"context"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/vpc"
	api "penstock.dev/penstock/internal/wire/ec2api"
)

func (h *ec2Handlers) prefixListShape(l *vpc.PrefixList) api.ManagedPrefixList {
	return api.ManagedPrefixList{
		PrefixListId: new(string(l.ID)), PrefixListArn: new(h.ec2ARN("prefix-list", string(l.ID))), PrefixListName: new(l.Name), OwnerId: new(l.OwnerID),
		AddressFamily: new(string(l.AddressFamily)), MaxEntries: i32(l.MaxEntries), Version: new(l.Version), State: new(string(l.State)), Tags: ec2Tags(l.Tags),
	}
}

func addedEntries(list []api.AddPrefixListEntry) []network.PrefixListEntry {
	out := make([]network.PrefixListEntry, 0, len(list))
	for _, e := range list {
		out = append(out, network.PrefixListEntry{CIDR: deref(e.Cidr), Description: deref(e.Description)})
	}
	return out
}

func (h *ec2Handlers) createManagedPrefixList(ctx context.Context, _ Caller, in *api.CreateManagedPrefixListInput) (*api.CreateManagedPrefixListOutput, error) {
	tags, err := specifiedTags(in.TagSpecifications, "prefix-list")
	if err != nil {
		return nil, err
	}
	l, err := h.net.CreatePrefixList(ctx, network.CreatePrefixList{
		Name: deref(in.PrefixListName), AddressFamily: deref(in.AddressFamily), MaxEntries: int(deref(in.MaxEntries)), Entries: addedEntries(in.Entries), Tags: tags,
	}, deref(in.ClientToken))
	if err != nil {
		return nil, err
	}
	return &api.CreateManagedPrefixListOutput{PrefixList: new(h.prefixListShape(l))}, nil
}

func (h *ec2Handlers) modifyManagedPrefixList(ctx context.Context, _ Caller, in *api.ModifyManagedPrefixListInput) (*api.ModifyManagedPrefixListOutput, error) {
	if err := ec2Unsupported(in.IpamPrefixListResolverSyncEnabled != nil, "IpamPrefixListResolverSyncEnabled", "there is no IPAM"); err != nil {
		return nil, err
	}
	m := network.ModifyPrefixList{
		ID: vpc.PrefixListID(deref(in.PrefixListId)), CurrentVersion: in.CurrentVersion, Name: in.PrefixListName, MaxEntries: intp(in.MaxEntries), Add: addedEntries(in.AddEntries),
	}
	for _, e := range in.RemoveEntries {
		m.Remove = append(m.Remove, deref(e.Cidr))
	}
	l, err := h.net.ModifyPrefixList(ctx, m)
	if err != nil {
		return nil, err
	}
	return &api.ModifyManagedPrefixListOutput{PrefixList: new(h.prefixListShape(l))}, nil
}

func (h *ec2Handlers) restoreManagedPrefixListVersion(ctx context.Context, _ Caller, in *api.RestoreManagedPrefixListVersionInput) (*api.RestoreManagedPrefixListVersionOutput, error) {
	l, err := h.net.RestorePrefixList(ctx, vpc.PrefixListID(deref(in.PrefixListId)), deref(in.PreviousVersion), deref(in.CurrentVersion))
	if err != nil {
		return nil, err
	}
	return &api.RestoreManagedPrefixListVersionOutput{PrefixList: new(h.prefixListShape(l))}, nil
}

func (h *ec2Handlers) deleteManagedPrefixList(ctx context.Context, _ Caller, in *api.DeleteManagedPrefixListInput) (*api.DeleteManagedPrefixListOutput, error) {
	l, err := h.net.DeletePrefixList(ctx, vpc.PrefixListID(deref(in.PrefixListId)))
	if err != nil {
		return nil, err
	}
	shape := h.prefixListShape(l)
	shape.State = new("delete-complete")
	return &api.DeleteManagedPrefixListOutput{PrefixList: &shape}, nil
}

func (h *ec2Handlers) describeManagedPrefixLists(ctx context.Context, _ Caller, in *api.DescribeManagedPrefixListsInput) (*api.DescribeManagedPrefixListsOutput, error) {
	type l = api.ManagedPrefixList
	all, err := h.net.DescribePrefixLists(ctx, ec2IDs[vpc.PrefixListID](in.PrefixListIds))
	if err != nil {
		return nil, err
	}
	items := make([]l, 0, len(all))
	for _, v := range all {
		items = append(items, h.prefixListShape(v))
	}
	f := ec2Filter[l]{
		"owner-id":         one(func(v *l) string { return *v.OwnerId }),
		"prefix-list-id":   one(func(v *l) string { return *v.PrefixListId }),
		"prefix-list-name": one(func(v *l) string { return *v.PrefixListName }),
	}
	items, next, err := found(items, f, in.Filters, func(v *l) []api.Tag { return v.Tags }, func(v *l) string { return *v.PrefixListId }, in.MaxResults, in.NextToken)
	return &api.DescribeManagedPrefixListsOutput{PrefixLists: items, NextToken: next}, err
}

func (h *ec2Handlers) getManagedPrefixListEntries(ctx context.Context, _ Caller, in *api.GetManagedPrefixListEntriesInput) (*api.GetManagedPrefixListEntriesOutput, error) {
	type e = api.PrefixListEntry
	all, err := h.net.PrefixListEntries(ctx, vpc.PrefixListID(deref(in.PrefixListId)), in.TargetVersion)
	if err != nil {
		return nil, err
	}
	items := make([]e, 0, len(all))
	for _, v := range all {
		items = append(items, e{Cidr: new(v.CIDR.String()), Description: strOrNil(v.Description)})
	}
	items, next, err := page(items, func(v *e) string { return *v.Cidr }, in.MaxResults, in.NextToken)
	return &api.GetManagedPrefixListEntriesOutput{Entries: items, NextToken: next}, err
}

func (h *ec2Handlers) getManagedPrefixListAssociations(ctx context.Context, _ Caller, in *api.GetManagedPrefixListAssociationsInput) (*api.GetManagedPrefixListAssociationsOutput, error) {
	type a = api.PrefixListAssociation
	all, err := h.net.PrefixListAssociations(ctx, vpc.PrefixListID(deref(in.PrefixListId)))
	if err != nil {
		return nil, err
	}
	items := make([]a, 0, len(all))
	for _, id := range all {
		items = append(items, a{ResourceId: new(id), ResourceOwner: new(h.account)})
	}
	items, next, err := page(items, func(v *a) string { return *v.ResourceId }, in.MaxResults, in.NextToken)
	return &api.GetManagedPrefixListAssociationsOutput{PrefixListAssociations: items, NextToken: next}, err
}

// describePrefixLists is about the lists of AWS's own services, as gateway endpoints have them: there are none here.
func (h *ec2Handlers) describePrefixLists(_ context.Context, _ Caller, in *api.DescribePrefixListsInput) (*api.DescribePrefixListsOutput, error) {
	type l = api.PrefixList
	for _, id := range in.PrefixListIds {
		return nil, cmp.Or(vpc.CheckID(vpc.PrefixListID(id)), vpc.NotFound(vpc.PrefixListID(id)))
	}
	f := ec2Filter[l]{"prefix-list-id": never[l], "prefix-list-name": never[l]}
	items, next, err := found([]l{}, f, in.Filters, nil, func(v *l) string { return *v.PrefixListId }, in.MaxResults, in.NextToken)
	return &api.DescribePrefixListsOutput{PrefixLists: items, NextToken: next}, err
}
