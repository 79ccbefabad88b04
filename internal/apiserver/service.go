package apiserver

import (
	"penstock.dev/penstock/internal/wire/appstreamapi"
	"penstock.dev/penstock/internal/wire/ec2api"
	"penstock.dev/penstock/internal/wire/iamapi"
	"penstock.dev/penstock/internal/wire/stsapi"
)

// service is one of the services behind the front door.
type service int

const (
	appStream service = iota + 1
	ec2
	iamService
	sts
)

// protocol is how requests and answers are written.
type protocol int

const (
	jsonProtocol  protocol = iota + 1 // AWS JSON 1.1: AppStream
	ec2Protocol                       // EC2 Query
	queryProtocol                     // AWS Query: IAM, STS
)

// signingName is the service's name in credential scopes and before the colon of an action.
func (s service) signingName() string {
	switch s {
	case appStream:
		return "appstream"
	case ec2:
		return "ec2"
	case iamService:
		return "iam"
	case sts:
		return "sts"
	}
	return ""
}

// serviceOf is the service with that signing name; 0 for another name.
func serviceOf(signingName string) service {
	for _, s := range []service{appStream, ec2, iamService, sts} {
		if s.signingName() == signingName {
			return s
		}
	}
	return 0
}

// serviceOfVersion is the Query service with that API version; 0 for another version.
func serviceOfVersion(version string) service {
	for _, s := range []service{ec2, iamService, sts} {
		if s.model().version == version {
			return s
		}
	}
	return 0
}

// regional reports whether credentials must be scoped to our region. IAM and STS take any, since clients with an
// endpoint of their own sign them with the region that they are configured for.
func (s service) regional() bool { return s == appStream || s == ec2 }

// apiModel is what the generated package says about a service.
type apiModel struct {
	version     string
	namespace   string
	operations  func() []string
	enumValues  func(name string) []string
	hasResult   func(operation string) bool
	errorStatus func(code string) int
}

func (s service) model() apiModel {
	switch s {
	case appStream:
		return apiModel{
			version: appstreamapi.Version, operations: appstreamapi.Operations,
			enumValues: appstreamapi.EnumValues, errorStatus: appstreamapi.ErrorStatus,
		}
	case ec2:
		return apiModel{
			version: ec2api.Version, namespace: ec2api.Namespace, operations: ec2api.Operations,
			enumValues: ec2api.EnumValues,
		}
	case iamService:
		return apiModel{
			version: iamapi.Version, namespace: iamapi.Namespace, operations: iamapi.Operations,
			enumValues: iamapi.EnumValues, hasResult: iamapi.HasResult, errorStatus: iamapi.ErrorStatus,
		}
	case sts:
		return apiModel{
			version: stsapi.Version, namespace: stsapi.Namespace, operations: stsapi.Operations,
			enumValues: stsapi.EnumValues, hasResult: stsapi.HasResult, errorStatus: stsapi.ErrorStatus,
		}
	}
	return apiModel{}
}
