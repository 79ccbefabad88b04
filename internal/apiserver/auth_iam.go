package apiserver

import (
	"context"
	"reflect"
	"strings"

	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
)

// identity is what policies may ask of a user, a role or a managed policy that a request names.
type identity struct {
	arn, boundary string
	tags          map[string]string
	isEntity      bool // a user or a role
}

// iamResources are the users, roles and policies of a request to IAM. One that exists has the path that it was made with.
func (x *exchange) iamResources(ctx context.Context, c Caller, targets []target, in reflect.Value) (out []asked, err error) {
	tags := requestTagsOf(in)
	for i := range targets {
		t := &targets[i]
		of, err := x.identityOf(ctx, c, t, in)
		if err != nil {
			return nil, err
		}
		if of.arn == "" {
			continue
		}
		keys := t.tagKeys(tags, textFields(in, "TagKeys"))
		if !t.made {
			addTagKeys(keys, of.tags, "aws:resourcetag/")
			if of.isEntity {
				addTagKeys(keys, of.tags, "iam:resourcetag/")
			}
		}
		for _, key := range t.keys {
			value := ""
			switch key {
			case "iam:PolicyARN":
				value = textField(in, "PolicyArn")
			case boundary: // that the request sets or, where it sets none, that is in force
				if value = textField(in, "PermissionsBoundary"); value == "" && !t.made {
					value = of.boundary
				}
			case "iam:AWSServiceName":
				value = textField(in, "AWSServiceName")
			}
			if value != "" {
				keys[iam.LowerKey(key)] = []string{value}
			}
		}
		out = append(out, asked{of.arn, keys})
	}
	return out, nil
}

// identityOf finds what a target's member names. A member that the request leaves out means the caller, for users, or else every one.
func (x *exchange) identityOf(ctx context.Context, c Caller, t *target, in reflect.Value) (identity, error) {
	value := textField(in, t.members[0])
	kind := access.User
	if t.kind == "role" {
		kind = access.Role
	}
	switch t.members[0] {
	case "UserName", "RoleName":
		if value == "" && kind == access.User {
			if c.Principal.Kind != iam.User {
				return identity{arn: c.Principal.ARN()}, nil
			}
			return x.entity(ctx, c, kind, c.Principal.Name, c.Principal.Path)
		}
		return x.entity(ctx, c, kind, value, textField(in, "Path"))
	case "NewUserName": // and NewPath: what the user will be
		if value == "" && textField(in, "NewPath") == "" {
			return identity{}, nil
		}
		e := access.Entity{Kind: kind, Name: textField(in, "UserName"), Path: "/"}
		if known, err := x.server.options.Access.Get(ctx, kind, e.Name); err == nil {
			e.Path = known.Path
		} else if !fault.Is(err, fault.NotFound) {
			return identity{}, err
		}
		if value != "" {
			e.Name = value
		}
		if p := textField(in, "NewPath"); p != "" {
			e.Path = p
		}
		return identity{arn: e.ARN(c.AccountID), isEntity: true}, nil
	case "AccessKeyId":
		used, err := x.server.options.Access.KeyLastUsed(ctx, value)
		if fault.Is(err, fault.NotFound) || err == nil && used.User == "" {
			return identity{arn: iam.UserARN(c.AccountID, "/", "*")}, nil
		} else if err != nil {
			return identity{}, err
		}
		return x.entity(ctx, c, access.User, used.User, "")
	case "AWSServiceName":
		return identity{arn: iam.RoleARN(c.AccountID, "/aws-service-role/"+value+"/", access.LinkedRoleName(value, textField(in, "CustomSuffix"))), isEntity: true}, nil
	case "DeletionTaskId":
		task, _ := strings.CutPrefix(value, "task/")
		return identity{arn: iam.RoleARN(c.AccountID, "/", task[:max(0, strings.LastIndexByte(task, '/'))]), isEntity: true}, nil
	case "PolicyName":
		return identity{arn: (&access.Managed{Path: pathOrRoot(textField(in, "Path")), Name: value}).ARN(c.AccountID)}, nil
	case "PolicySourceArn":
		if _, resource, ok := strings.Cut(value, "::"+c.AccountID+":"); ok {
			of := access.User
			if strings.HasPrefix(resource, "role/") {
				of = access.Role
			}
			known, err := x.entity(ctx, c, of, value[strings.LastIndexByte(value, '/')+1:], "")
			if err != nil || known.arn == value {
				return known, err
			}
		}
	case "PolicyArn":
		m, _, err := x.server.options.Access.Policy(ctx, value)
		if fault.Is(err, fault.NotFound) {
			return identity{arn: value}, nil
		} else if err != nil {
			return identity{}, err
		}
		return identity{arn: value, tags: m.Tags}, nil
	}
	return identity{arn: value}, nil
}

func (x *exchange) entity(ctx context.Context, c Caller, k access.Kind, name, path string) (identity, error) {
	e, err := x.server.options.Access.Get(ctx, k, name)
	if fault.Is(err, fault.NotFound) {
		e = &access.Entity{Kind: k, Name: name, Path: pathOrRoot(path)}
		if name == "" {
			e.Name = "*"
		}
	} else if err != nil {
		return identity{}, err
	}
	return identity{arn: e.ARN(c.AccountID), boundary: e.Boundary, tags: e.Tags, isEntity: true}, nil
}
