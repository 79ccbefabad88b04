package awscompat

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
	"github.com/google/go-cmp/cmp"
)

// entries reads a version of a list, page by page.
func (a *netAPI) entries(t *testing.T, id string, version *int64) []string {
	t.Helper()
	var out []string
	pages := ec2.NewGetManagedPrefixListEntriesPaginator(a.ec2, &ec2.GetManagedPrefixListEntriesInput{PrefixListId: &id, TargetVersion: version, MaxResults: aws.Int32(1)})
	for pages.HasMorePages() {
		page := ok[*ec2.GetManagedPrefixListEntriesOutput](t)(pages.NextPage(t.Context()))
		for _, e := range page.Entries {
			out = append(out, *e.Cidr+" "+aws.ToString(e.Description))
		}
	}
	return out
}

func TestManagedPrefixLists(t *testing.T) {
	t.Parallel()
	a := serveNetworks(t)
	o := a.office(t)
	ctx := t.Context()
	entry := func(cidr, text string) types.AddPrefixListEntry {
		return types.AddPrefixListEntry{Cidr: &cidr, Description: &text}
	}
	create := &ec2.CreateManagedPrefixListInput{
		PrefixListName: aws.String("clients"), AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(3), ClientToken: aws.String("t"),
		Entries:           []types.AddPrefixListEntry{entry("203.0.113.0/24", "far"), entry("172.16.9.9/24", "near")},
		TagSpecifications: []types.TagSpecification{{ResourceType: types.ResourceTypePrefixList, Tags: []types.Tag{{Key: aws.String("k"), Value: aws.String("v")}}}},
	}
	l := ok[*ec2.CreateManagedPrefixListOutput](t)(a.ec2.CreateManagedPrefixList(ctx, create)).PrefixList
	id := l.PrefixListId
	if l.State != types.PrefixListStateCreateComplete || *l.Version != 1 || *l.MaxEntries != 3 || *l.PrefixListArn != "arn:aws:ec2:us-east-1:"+account+":prefix-list/"+*id || len(l.Tags) != 1 {
		t.Errorf("created: %+v", l)
	}
	if again := ok[*ec2.CreateManagedPrefixListOutput](t)(a.ec2.CreateManagedPrefixList(ctx, create)).PrefixList; *again.PrefixListId != *id {
		t.Errorf("the same token made %s and %s", *id, *again.PrefixListId)
	}
	if d := cmp.Diff([]string{"172.16.9.0/24 near", "203.0.113.0/24 far"}, a.entries(t, *id, nil)); d != "" {
		t.Errorf("entries (-want +got):\n%s", d)
	}

	// A rule and a route that name the list follow it.
	ok[*ec2.AuthorizeSecurityGroupIngressOutput](t)(a.ec2.AuthorizeSecurityGroupIngress(ctx, &ec2.AuthorizeSecurityGroupIngressInput{
		GroupId:       &o.group,
		IpPermissions: []types.IpPermission{{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(443), ToPort: aws.Int32(443), PrefixListIds: []types.PrefixListId{{PrefixListId: id}}}},
	}))
	addr := *ok[*ec2.DescribeNetworkInterfacesOutput](t)(a.ec2.DescribeNetworkInterfaces(ctx, &ec2.DescribeNetworkInterfacesInput{Filters: []types.Filter{filter("vpc-id", o.vpc)}})).NetworkInterfaces[0].PrivateIpAddress
	if a.dials(t, "127.1.0.5", o.vpc, addr, 443) {
		t.Error("172.16.0.5 is admitted and not in the list")
	}
	modify := func(version int64, add []types.AddPrefixListEntry, remove ...string) (*ec2.ModifyManagedPrefixListOutput, error) {
		in := &ec2.ModifyManagedPrefixListInput{PrefixListId: id, CurrentVersion: &version, AddEntries: add}
		for _, c := range remove {
			in.RemoveEntries = append(in.RemoveEntries, types.RemovePrefixListEntry{Cidr: &c})
		}
		return a.ec2.ModifyManagedPrefixList(ctx, in)
	}
	if v := ok[*ec2.ModifyManagedPrefixListOutput](t)(modify(1, []types.AddPrefixListEntry{entry("172.16.0.0/24", "guests")}, "203.0.113.0/24")).PrefixList; *v.Version != 2 || v.State != types.PrefixListStateModifyComplete {
		t.Errorf("modified: %+v", v)
	}
	if !a.dials(t, "127.1.0.5", o.vpc, addr, 443) {
		t.Error("172.16.0.5 is in the list and refused")
	}
	wantCode(t, refused(modify(1, []types.AddPrefixListEntry{entry("10.0.0.0/8", "")})), "PrefixListVersionMismatch", "incorrect version")
	wantCode(t, refused(modify(2, nil, "203.0.113.0/24")), "InvalidPrefixListModification", "203.0.113.0/24")
	wantCode(t, refused(modify(2, []types.AddPrefixListEntry{entry("172.16.0.0/24", "")}, "172.16.0.0/24")), "InvalidPrefixListModification", "172.16.0.0/24")
	wantCode(t, refused(modify(2, []types.AddPrefixListEntry{entry("10.0.0.0/8", ""), entry("11.0.0.0/8", "")})), "PrefixListMaxEntriesExceeded", "3 entries")
	wantCode(t, refused(modify(2, []types.AddPrefixListEntry{entry("2001:db8::/32", "")})), "InvalidParameterValue", "IPv4")
	wantCode(t, refused(a.ec2.ModifyManagedPrefixList(ctx, &ec2.ModifyManagedPrefixListInput{PrefixListId: id, MaxEntries: aws.Int32(1)})), "PrefixListMaxEntriesExceeded", "1 entry")
	// The group has two rules and one of 3 entries; 58 of 60 are too many.
	wantCode(t, refused(a.ec2.ModifyManagedPrefixList(ctx, &ec2.ModifyManagedPrefixListInput{PrefixListId: id, MaxEntries: aws.Int32(59)})), "RulesPerSecurityGroupLimitExceeded", "")
	if v := ok[*ec2.ModifyManagedPrefixListOutput](t)(a.ec2.ModifyManagedPrefixList(ctx, &ec2.ModifyManagedPrefixListInput{PrefixListId: id, MaxEntries: aws.Int32(58), PrefixListName: aws.String("all clients")})).PrefixList; *v.MaxEntries != 58 || *v.Version != 2 || *v.PrefixListName != "all clients" {
		t.Errorf("resized: %+v", v)
	}
	restored := ok[*ec2.RestoreManagedPrefixListVersionOutput](t)(a.ec2.RestoreManagedPrefixListVersion(ctx, &ec2.RestoreManagedPrefixListVersionInput{PrefixListId: id, PreviousVersion: aws.Int64(1), CurrentVersion: aws.Int64(2)})).PrefixList
	if *restored.Version != 3 || restored.State != types.PrefixListStateRestoreComplete || a.dials(t, "127.1.0.5", o.vpc, addr, 443) {
		t.Errorf("restored: %+v, and 172.16.0.5 should be refused again", restored)
	}
	if d := cmp.Diff([]string{"172.16.0.0/24 guests", "172.16.9.0/24 near"}, a.entries(t, *id, aws.Int64(2))); d != "" {
		t.Errorf("version 2 (-want +got):\n%s", d)
	}
	wantCode(t, refused(a.ec2.RestoreManagedPrefixListVersion(ctx, &ec2.RestoreManagedPrefixListVersionInput{PrefixListId: id, PreviousVersion: aws.Int64(9), CurrentVersion: aws.Int64(3)})), "InvalidParameterValue", "PreviousVersion")

	uses := ok[*ec2.GetManagedPrefixListAssociationsOutput](t)(a.ec2.GetManagedPrefixListAssociations(ctx, &ec2.GetManagedPrefixListAssociationsInput{PrefixListId: id}))
	if len(uses.PrefixListAssociations) != 1 || *uses.PrefixListAssociations[0].ResourceId != o.group || *uses.PrefixListAssociations[0].ResourceOwner != account {
		t.Errorf("associations: %+v", uses.PrefixListAssociations)
	}
	wantCode(t, refused(a.ec2.DeleteManagedPrefixList(ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: id})), "DependencyViolation", "1 security group")
	ok[*ec2.RevokeSecurityGroupIngressOutput](t)(a.ec2.RevokeSecurityGroupIngress(ctx, &ec2.RevokeSecurityGroupIngressInput{
		GroupId:       &o.group,
		IpPermissions: []types.IpPermission{{IpProtocol: aws.String("tcp"), FromPort: aws.Int32(443), ToPort: aws.Int32(443), PrefixListIds: []types.PrefixListId{{PrefixListId: id}}}},
	}))
	found := ok[*ec2.DescribeManagedPrefixListsOutput](t)(a.ec2.DescribeManagedPrefixLists(ctx, &ec2.DescribeManagedPrefixListsInput{Filters: []types.Filter{filter("prefix-list-name", "all *"), filter("owner-id", account)}}))
	if len(found.PrefixLists) != 1 || *found.PrefixLists[0].PrefixListId != *id {
		t.Errorf("by name: %+v", found.PrefixLists)
	}
	if gone := ok[*ec2.DeleteManagedPrefixListOutput](t)(a.ec2.DeleteManagedPrefixList(ctx, &ec2.DeleteManagedPrefixListInput{PrefixListId: id})).PrefixList; gone.State != types.PrefixListStateDeleteComplete {
		t.Errorf("deleted: %+v", gone)
	}
	wantCode(t, refused(a.ec2.DescribeManagedPrefixLists(ctx, &ec2.DescribeManagedPrefixListsInput{PrefixListIds: []string{*id}})), "InvalidPrefixListID.NotFound", *id)
	wantCode(t, refused(a.ec2.GetManagedPrefixListEntries(ctx, &ec2.GetManagedPrefixListEntriesInput{PrefixListId: aws.String("pl-x")})), "InvalidPrefixListId.Malformed", "pl-x")
	for _, in := range []*ec2.CreateManagedPrefixListInput{
		{PrefixListName: aws.String("com.amazonaws.x"), AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(1)},
		{PrefixListName: aws.String("x"), AddressFamily: aws.String("ipv4"), MaxEntries: aws.Int32(1)},
		{PrefixListName: aws.String("x"), AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(0)},
		{PrefixListName: aws.String("x"), AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(1001)},
		{PrefixListName: aws.String("x"), AddressFamily: aws.String("IPv4"), MaxEntries: aws.Int32(2), Entries: []types.AddPrefixListEntry{entry("10.0.0.0/8", ""), entry("10.1.0.0/8", "")}},
	} {
		wantCode(t, refused(a.ec2.CreateManagedPrefixList(ctx, in)), "InvalidParameterValue", "")
	}
}
