package control

import (
	"context"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

// CreateAppBlock makes an app block that an app block builder can be associated with.
func (c *Control) CreateAppBlock(ctx context.Context, a appstream.AppBlock) (*appstream.AppBlock, error) {
	if err := appstream.CheckName("name", a.Name); err != nil {
		return nil, err
	}
	a.CreatedTime = c.Now().UTC()
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if _, ok, err := appstream.AppBlocks.Get(tx, a.Name); err != nil {
			return err
		} else if ok {
			return fault.New(fault.AlreadyExists, "app block", a.Name, "an app block with this name exists")
		}
		n, err := tx.Count(appstream.AppBlocks.Kind, state.Key{})
		if err != nil {
			return err
		}
		if err := withinQuota("app block", a.Name, n, c.Quotas.AppBlocks); err != nil {
			return err
		}
		return appstream.AppBlocks.Put(tx, &a)
	})
	if err != nil {
		return nil, err
	}
	return &a, nil
}

// DeleteAppBlock removes an app block that no builder is associated with.
func (c *Control) DeleteAppBlock(ctx context.Context, name string) error {
	_, err := c.Store.Update(ctx, func(tx state.Tx) error {
		if err := haveAppBlock(tx, name); err != nil {
			return err
		}
		bs, err := appstream.Builders.By(tx, "app-block", name)
		if err != nil {
			return err
		}
		if len(bs) > 0 {
			return fault.Newf(fault.InUse, "app block", name, "app block builder %s is associated with it", bs[0].Name)
		}
		return appstream.AppBlocks.Delete(tx, name)
	})
	return err
}

// AppBlocks returns the app blocks with the given ARNs, all when none is given, in order of their names.
func (c *Control) AppBlocks(ctx context.Context, arns []string) ([]*appstream.AppBlock, error) {
	names := make([]string, 0, len(arns))
	for _, arn := range arns {
		name, err := c.appBlockName(arn)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return named(ctx, c.Store, appstream.AppBlocks, "app block", names)
}

// AssociateAppBlock says which app block an app block builder makes: one. Repeating it is not an error.
func (c *Control) AssociateAppBlock(ctx context.Context, builderName, arn string) (*appstream.Builder, error) {
	name, err := c.appBlockName(arn)
	if err != nil {
		return nil, err
	}
	return c.changeBuilder(ctx, appstream.AppBlockBuilder, builderName, func(tx state.Tx, b *appstream.Builder) error {
		if err := haveAppBlock(tx, name); err != nil {
			return err
		}
		if b.AppBlock == name {
			return nil
		}
		if b.AppBlock != "" {
			return fault.Newf(fault.Limit, b.Kind.Title(), b.Name, "it is associated with app block %s; it can be with one only", b.AppBlock)
		}
		b.AppBlock = name
		return nil
	})
}

// DisassociateAppBlock undoes AssociateAppBlock; the builder must be stopped.
func (c *Control) DisassociateAppBlock(ctx context.Context, builderName, arn string) error {
	name, err := c.appBlockName(arn)
	if err != nil {
		return err
	}
	_, err = c.changeBuilder(ctx, appstream.AppBlockBuilder, builderName, func(_ state.Tx, b *appstream.Builder) error {
		if b.AppBlock != name {
			return fault.Newf(fault.NotFound, b.Kind.Title(), b.Name, "it is not associated with app block %s", name)
		}
		if err := settled(b); err != nil {
			return err
		}
		if b.State != appstream.BuilderStopped {
			return fault.Newf(fault.NotPermitted, b.Kind.Title(), b.Name, "it is %s; stop it first", b.State)
		}
		b.AppBlock = ""
		return nil
	})
	return err
}

// AssociatedBuilders returns the app block builders that are associated with an app block, in order of their names: those with the ARN of
// the app block and the name of the builder where these are not empty.
func (c *Control) AssociatedBuilders(ctx context.Context, arn, name string) ([]*appstream.Builder, error) {
	block := ""
	if arn != "" {
		var err error
		if block, err = c.appBlockName(arn); err != nil {
			return nil, nil // nothing is associated with what does not exist
		}
	}
	return state.Read(ctx, c.Store, func(r state.Reader) ([]*appstream.Builder, error) {
		bs, err := appstream.Builders.By(r, "kind", string(appstream.AppBlockBuilder))
		return slices.DeleteFunc(bs, func(b *appstream.Builder) bool {
			return b.AppBlock == "" || block != "" && b.AppBlock != block || name != "" && b.Name != name
		}), err
	})
}

// appBlockName is the name in an app block's ARN.
func (c *Control) appBlockName(arn string) (string, error) {
	name, ok := strings.CutPrefix(arn, appstream.ARN(c.Region, c.Account, "app-block", ""))
	if !ok || name == "" {
		return "", fault.New(fault.NotFound, "app block", arn, "there is no app block with this ARN")
	}
	return name, nil
}

// haveAppBlock refuses an app block that does not exist.
func haveAppBlock(r state.Reader, name string) error {
	_, ok, err := appstream.AppBlocks.Get(r, name)
	if err == nil && !ok {
		err = fault.New(fault.NotFound, "app block", name, "there is no app block with this name")
	}
	return err
}
