package access

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
)

// Managed is a managed policy.
type Managed struct {
	Path        string
	Name        string
	ID          string // ANPA…
	AWS         bool   `json:"-"` // one of AWS's, which nobody changes
	Created     time.Time
	Updated     time.Time
	Description string            `json:",omitempty"`
	Default     string            // a version's ID
	Next        int               // number of the next version
	Versions    []Version         // oldest first
	Tags        map[string]string `json:",omitempty"`
}

// Version is one version of a managed policy.
type Version struct {
	ID       string // "v1"
	Document string
	Created  time.Time
}

// ARN is the policy's name.
func (m *Managed) ARN(account string) string {
	if m.AWS {
		account = "aws"
	}
	return "arn:aws:iam::" + account + ":policy" + m.Path + m.Name
}

// Document is the default version's document.
func (m *Managed) Document() string {
	for _, v := range m.Versions {
		if v.ID == m.Default {
			return v.Document
		}
	}
	return ""
}

var managedPolicies = state.Table[Managed]{Kind: "iam-policy", ID: func(m *Managed) string { return strings.ToLower(m.Name) }}

const serviceAccessPolicy = "arn:aws:iam::aws:policy/service-role/AmazonAppStreamServiceAccess"

// awsManaged are the policies of AWS that matter here, with their published documents' meaning.
func awsManaged() []*Managed {
	policy := func(path, name, id, document string) *Managed {
		at := time.Date(2016, 11, 19, 4, 17, 37, 0, time.UTC)
		return &Managed{
			Path: path, Name: name, ID: id, AWS: true, Created: at, Updated: at, Default: "v1",
			Versions: []Version{{"v1", document, at}},
		}
	}
	return []*Managed{
		policy("/", "AdministratorAccess", "ANPAIWMBCKSKIEE64ZLYK",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`),
		policy("/", "AmazonAppStreamFullAccess", "ANPAJLZZXU2YQVGL4QDNC",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["appstream:*"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":["application-autoscaling:DeleteScalingPolicy","application-autoscaling:DescribeScalableTargets",`+
				`"application-autoscaling:DescribeScalingPolicies","application-autoscaling:PutScalingPolicy","application-autoscaling:RegisterScalableTarget"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":["cloudwatch:DeleteAlarms","cloudwatch:DescribeAlarms","cloudwatch:GetMetricStatistics","cloudwatch:PutMetricAlarm"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":["ec2:DescribeRouteTables","ec2:DescribeSecurityGroups","ec2:DescribeSubnets","ec2:DescribeVpcs","ec2:DescribeVpcEndpoints"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":"iam:ListRoles","Resource":"*"},`+
				`{"Effect":"Allow","Action":"iam:PassRole","Resource":"arn:aws:iam::*:role/service-role/ApplicationAutoScalingForAmazonAppStreamAccess",`+
				`"Condition":{"StringLike":{"iam:PassedToService":"application-autoscaling.amazonaws.com"}}}]}`),
		policy("/", "AmazonAppStreamReadOnlyAccess", "ANPAJXIFDGB4VBX23DX7K",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["appstream:List*","appstream:Describe*"],"Resource":"*"}]}`),
		policy("/service-role/", "ApplicationAutoScalingForAmazonAppStreamAccess", "ANPAIEL3HJCCWFVHA6KPG",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["appstream:UpdateFleet","appstream:DescribeFleets"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":["cloudwatch:DescribeAlarms"],"Resource":"*"}]}`),
		policy("/aws-service-role/", "AWSApplicationAutoscalingAppStreamFleetPolicy", "ANPAIRI724HWKP56ZG62A",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["appstream:UpdateFleet","appstream:DescribeFleets","cloudwatch:PutMetricAlarm",`+
				`"cloudwatch:DescribeAlarms","cloudwatch:DeleteAlarms"],"Resource":["*"]}]}`),
		policy("/service-role/", "AmazonAppStreamServiceAccess", "ANPAISBRZ7LMMCBYEF3SE",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["ec2:DescribeVpcs","ec2:DescribeImages","ec2:DescribeAvailabilityZones",`+
				`"ec2:CreateNetworkInterface","ec2:DescribeNetworkInterfaces","ec2:DeleteNetworkInterface","ec2:DescribeSubnets","ec2:AssociateAddress",`+
				`"ec2:DisassociateAddress","ec2:DescribeRouteTables","ec2:DescribeSecurityGroups","ec2:DescribeVpcEndpoints","s3:ListAllMyBuckets","ds:DescribeDirectories"],"Resource":"*"},`+
				`{"Effect":"Allow","Action":["s3:CreateBucket","s3:ListBucket","s3:GetObject","s3:PutObject","s3:DeleteObject","s3:GetObjectVersion","s3:DeleteObjectVersion",`+
				`"s3:GetBucketPolicy","s3:PutBucketPolicy","s3:PutEncryptionConfiguration"],`+
				`"Resource":["arn:aws:s3:::appstream2-36fb080bb8-*","arn:aws:s3:::appstream-app-settings-*","arn:aws:s3:::appstream-logs-*"]}]}`),
	}
}

// managed finds a managed policy by its ARN.
func (s *Service) managed(r state.Reader, arn string) (*Managed, error) {
	if strings.HasPrefix(arn, "arn:aws:iam::aws:policy/") {
		for _, m := range awsManaged() {
			if m.ARN("") == arn {
				return m, nil
			}
		}
		return nil, notFound("Policy %s does not exist or is not attachable.", arn)
	}
	name := arn[strings.LastIndexByte(arn, '/')+1:]
	m, ok, err := managedPolicies.Get(r, strings.ToLower(name))
	if err != nil {
		return nil, err
	}
	if !ok || m.ARN(s.options.AccountID) != arn {
		return nil, notFound("Policy %s was not found.", arn)
	}
	return m, nil
}

func checkManaged(document string) error {
	if sizeOf(document) > maxManagedSize {
		return limit("PolicySize", maxManagedSize)
	}
	_, err := parse(iam.IdentityPolicy, document)
	return err
}

// CreatePolicy makes a managed policy with version v1.
func (s *Service) CreatePolicy(ctx context.Context, m Managed, document string) (*Managed, error) {
	if err := checkManaged(document); err != nil {
		return nil, err
	}
	if m.Path == "" {
		m.Path = "/"
	}
	if len(m.Tags) > maxTags {
		return nil, limit("TagsPerPolicy", maxTags)
	}
	now := s.now()
	m.ID, m.Created, m.Updated, m.Default, m.Next = newID("ANPA"), now, now, "v1", 2
	m.Versions = []Version{{"v1", document, now}}
	_, err := s.update(ctx, func(tx state.Tx) error {
		if _, ok, err := managedPolicies.Get(tx, managedPolicies.ID(&m)); err != nil || ok {
			return orExists(err, "A policy called %s already exists. Duplicate names are not allowed.", m.Name)
		}
		if n, err := tx.Count(managedPolicies.Kind, state.Key{}); err != nil || n >= maxManaged {
			return orLimit(err, "PoliciesPerAccount", maxManaged)
		}
		return managedPolicies.Put(tx, &m)
	})
	if err != nil {
		return nil, err
	}
	return &m, nil
}

// Usage is how many entities a managed policy is attached to, and how many it bounds.
type Usage struct {
	Users, Roles []*Entity // that it is attached to
	Bounds       []*Entity
}

// Policy finds a managed policy and who uses it.
func (s *Service) Policy(ctx context.Context, arn string) (m *Managed, u Usage, err error) {
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		if m, err = s.managed(r, arn); err != nil {
			return err
		}
		u, err = usage(r, arn)
		return err
	})
	return m, u, err
}

func usage(r state.Reader, arn string) (u Usage, err error) {
	var e1, e2, e3, e4 error
	var bounds []*Entity
	u.Users, e1 = table(User).By(r, "policy", arn)
	u.Roles, e2 = table(Role).By(r, "policy", arn)
	u.Bounds, e3 = table(User).By(r, "boundary", arn)
	bounds, e4 = table(Role).By(r, "boundary", arn)
	u.Bounds = append(u.Bounds, bounds...)
	return u, errors.Join(e1, e2, e3, e4)
}

// Policies lists the managed policies in order of their names, the account's after AWS's.
func (s *Service) Policies(ctx context.Context) (out []*Managed, uses map[string]Usage, err error) {
	uses = map[string]Usage{}
	err = s.options.Store.View(ctx, func(r state.Reader) error {
		own, err := managedPolicies.List(r, state.Query{})
		if err != nil {
			return err
		}
		out = append(awsManaged(), own...)
		for _, m := range out {
			arn := m.ARN(s.options.AccountID)
			if uses[arn], err = usage(r, arn); err != nil {
				return err
			}
		}
		return nil
	})
	return out, uses, err
}

// changePolicy changes one of the account's managed policies.
func (s *Service) changePolicy(ctx context.Context, arn string, fn func(state.Tx, *Managed) error) error {
	_, err := s.update(ctx, func(tx state.Tx) error {
		m, err := s.managed(tx, arn)
		if err != nil {
			return err
		}
		if m.AWS {
			return fault.New(fault.Denied, "", "", "Policy is outside your own account.")
		}
		return fn(tx, m)
	})
	return err
}

// DeletePolicy removes a managed policy that nobody uses and that has no other version.
func (s *Service) DeletePolicy(ctx context.Context, arn string) error {
	return s.changePolicy(ctx, arn, func(tx state.Tx, m *Managed) error {
		u, err := usage(tx, arn)
		switch {
		case err != nil:
			return err
		case len(u.Users)+len(u.Roles)+len(u.Bounds) > 0:
			return fault.New(fault.InUse, "", "", "Cannot delete a policy attached to entities.")
		case len(m.Versions) > 1:
			return fault.New(fault.InUse, "", "", "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "+
				"The default version is deleted with the policy.")
		}
		return managedPolicies.Delete(tx, managedPolicies.ID(m))
	})
}

// CreateVersion adds a version, and makes it the default when asked to.
func (s *Service) CreateVersion(ctx context.Context, arn, document string, setDefault bool) (v Version, err error) {
	if err := checkManaged(document); err != nil {
		return v, err
	}
	err = s.changePolicy(ctx, arn, func(tx state.Tx, m *Managed) error {
		if len(m.Versions) >= maxVersions {
			return fault.Newf(fault.Limit, "", "", "A managed policy can have up to %d versions. Before you create a new version, you must delete an existing version.", maxVersions)
		}
		v = Version{"v" + strconv.Itoa(m.Next), document, s.now()}
		m.Next++
		m.Versions = append(m.Versions, v)
		if setDefault {
			m.Default = v.ID
		}
		m.Updated = v.Created
		return managedPolicies.Put(tx, m)
	})
	return v, err
}

// DeleteVersion removes a version that is not the default.
func (s *Service) DeleteVersion(ctx context.Context, arn, id string) error {
	return s.changePolicy(ctx, arn, func(tx state.Tx, m *Managed) error {
		i := slices.IndexFunc(m.Versions, func(v Version) bool { return v.ID == id })
		if i < 0 {
			return noVersion(arn, id)
		}
		if m.Default == id {
			return fault.New(fault.InUse, "", "", "Cannot delete the default version of a policy.")
		}
		m.Versions = slices.Delete(m.Versions, i, i+1)
		return managedPolicies.Put(tx, m)
	})
}

func noVersion(arn, id string) error {
	return notFound("Policy %s version %s does not exist or is not attachable.", arn, id)
}

// SetDefaultVersion makes a version the one that counts.
func (s *Service) SetDefaultVersion(ctx context.Context, arn, id string) error {
	return s.changePolicy(ctx, arn, func(tx state.Tx, m *Managed) error {
		if !slices.ContainsFunc(m.Versions, func(v Version) bool { return v.ID == id }) {
			return noVersion(arn, id)
		}
		m.Default, m.Updated = id, s.now()
		return managedPolicies.Put(tx, m)
	})
}

// PolicyVersion finds one version of a managed policy.
func (s *Service) PolicyVersion(ctx context.Context, arn, id string) (Version, *Managed, error) {
	m, _, err := s.Policy(ctx, arn)
	if err != nil {
		return Version{}, nil, err
	}
	for _, v := range m.Versions {
		if v.ID == id {
			return v, m, nil
		}
	}
	return Version{}, nil, noVersion(arn, id)
}

// TagPolicy adds and replaces tags of a managed policy, then removes those with the given keys.
func (s *Service) TagPolicy(ctx context.Context, arn string, add map[string]string, remove []string) error {
	return s.changePolicy(ctx, arn, func(tx state.Tx, m *Managed) error {
		if err := changeTags(&m.Tags, add, remove, "Policy"); err != nil {
			return err
		}
		return managedPolicies.Put(tx, m)
	})
}
