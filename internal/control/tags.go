package control

import (
	"context"
	"maps"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// maxTags is the greatest number of tags of one resource.
const maxTags = 50

// Tags returns the tags of the resource with this ARN.
func (c *Control) Tags(ctx context.Context, arn string) (appstream.Tags, error) {
	return state.Read(ctx, c.Store, func(r state.Reader) (appstream.Tags, error) {
		t, err := c.tagged(r, arn)
		if err != nil {
			return nil, err
		}
		return maps.Clone(*t.tags), nil
	})
}

// ChangeTags adds and replaces tags, then removes those with the given keys.
func (c *Control) ChangeTags(ctx context.Context, arn string, add appstream.Tags, remove []string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		t, err := c.tagged(tx, arn)
		if err != nil {
			return err
		}
		if *t.tags == nil {
			*t.tags = appstream.Tags{}
		}
		maps.Copy(*t.tags, add)
		for _, k := range remove {
			delete(*t.tags, k)
		}
		if len(*t.tags) > maxTags {
			return fault.Newf(fault.Limit, "tags", "", "a resource has at most %d tags", maxTags)
		}
		return t.put(tx)
	})
	return err
}

// taggable is a resource's tags and how to write it back.
type taggable struct {
	tags *appstream.Tags
	put  func(state.Tx) error
}

// tagged finds the resource of an ARN.
func (c *Control) tagged(r state.Reader, arn string) (taggable, error) {
	missing := fault.New(fault.NotFound, "resource", arn, "there is no resource with this ARN")
	rest, ok := strings.CutPrefix(arn, strings.TrimSuffix(appstream.ARN(c.Region, c.Account, "", ""), "/"))
	if !ok {
		return taggable{}, missing
	}
	kind, name, _ := strings.Cut(rest, "/")
	switch kind {
	case "stack":
		s, ok, err := appstream.Stacks.Get(r, name)
		if err != nil || !ok {
			return taggable{}, orMissing(err, missing)
		}
		return taggable{&s.Tags, func(tx state.Tx) error { return appstream.Stacks.Put(tx, s) }}, nil
	case "fleet":
		f, ok, err := appstream.Fleets.Get(r, name)
		if err != nil || !ok {
			return taggable{}, orMissing(err, missing)
		}
		return taggable{&f.Tags, func(tx state.Tx) error { return appstream.Fleets.Put(tx, f) }}, nil
	case string(appstream.ImageBuilder), string(appstream.AppBlockBuilder):
		b, ok, err := appstream.Builders.Get(r, rest)
		if err != nil || !ok {
			return taggable{}, orMissing(err, missing)
		}
		return taggable{&b.Tags, func(tx state.Tx) error { return appstream.Builders.Put(tx, b) }}, nil
	case "app-block":
		a, ok, err := appstream.AppBlocks.Get(r, name)
		if err != nil || !ok {
			return taggable{}, orMissing(err, missing)
		}
		return taggable{&a.Tags, func(tx state.Tx) error { return appstream.AppBlocks.Put(tx, a) }}, nil
	default:
		return taggable{}, missing
	}
}

func orMissing(err, missing error) error {
	if err != nil {
		return err
	}
	return missing
}
