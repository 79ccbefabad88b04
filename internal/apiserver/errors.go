package apiserver

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/wire/awsjson"
	"penstock.dev/penstock/internal/wire/awsquery"
	"penstock.dev/penstock/internal/wire/ec2query"
	"penstock.dev/penstock/internal/wire/query"
)

// apiError is an error as the caller reads it.
type apiError struct {
	code    string
	message string
	status  int
}

func (e *apiError) Error() string { return e.code + ": " + e.message }

// appstreamCode is the only place where a Kind becomes an AppStream error code.
var appstreamCode = map[fault.Kind]string{
	fault.Internal:      "InternalFailure",
	fault.Invalid:       "ValidationException",
	fault.Missing:       "ValidationException",
	fault.Combination:   "InvalidParameterCombinationException",
	fault.Malformed:     "ValidationException",
	fault.NotFound:      "ResourceNotFoundException",
	fault.AlreadyExists: "ResourceAlreadyExistsException",
	fault.InUse:         "ResourceInUseException",
	fault.NotPermitted:  "OperationNotPermittedException",
	fault.NotAvailable:  "ResourceNotAvailableException",
	fault.Conflict:      "ConcurrentModificationException",
	fault.Limit:         "LimitExceededException",
	fault.InvalidRole:   "InvalidRoleException",
	fault.Denied:        "AccessDeniedException",
	fault.Mismatch:      "InvalidParameterCombinationException",
	fault.Throttled:     "RequestLimitExceededException",
	fault.Unsupported:   "OperationNotPermittedException",
}

// entitlementCode are AppStream's codes for entitlements, which have their own.
var entitlementCode = map[fault.Kind]string{
	fault.NotFound:      "EntitlementNotFoundException",
	fault.AlreadyExists: "EntitlementAlreadyExistsException",
}

// ec2Code is the code of a Kind where the resource does not matter, or has no code of its own.
var ec2Code = map[fault.Kind]string{
	fault.Internal:      "InternalError",
	fault.Invalid:       "InvalidParameterValue",
	fault.Missing:       "MissingParameter",
	fault.Combination:   "InvalidParameterCombination",
	fault.Malformed:     "InvalidID",
	fault.NotFound:      "InvalidParameterValue",
	fault.AlreadyExists: "InvalidParameterValue",
	fault.InUse:         "DependencyViolation",
	fault.NotPermitted:  "OperationNotPermitted",
	fault.NotAvailable:  "IncorrectState",
	fault.Conflict:      "IncorrectState",
	fault.Limit:         "ResourceLimitExceeded",
	fault.InvalidRole:   "InvalidParameterValue",
	fault.Denied:        "UnauthorizedOperation",
	fault.Mismatch:      "IdempotentParameterMismatch",
	fault.Throttled:     "RequestLimitExceeded",
	fault.Unsupported:   "UnsupportedOperation",
}

type kindOf struct {
	kind     fault.Kind
	resource string
}

// ec2ResourceCode are EC2's codes that name the resource.
var ec2ResourceCode = map[kindOf]string{
	{fault.NotFound, "vpc"}:                       "InvalidVpcID.NotFound",
	{fault.NotFound, "subnet"}:                    "InvalidSubnetID.NotFound",
	{fault.NotFound, "security-group"}:            "InvalidGroup.NotFound",
	{fault.NotFound, "security-group-rule"}:       "InvalidSecurityGroupRuleId.NotFound",
	{fault.NotFound, "network-acl"}:               "InvalidNetworkAclID.NotFound",
	{fault.NotFound, "network-acl-entry"}:         "InvalidNetworkAclEntry.NotFound",
	{fault.NotFound, "association"}:               "InvalidAssociationID.NotFound",
	{fault.NotFound, "route-table"}:               "InvalidRouteTableID.NotFound",
	{fault.NotFound, "route"}:                     "InvalidRoute.NotFound",
	{fault.NotFound, "network-interface"}:         "InvalidNetworkInterfaceID.NotFound",
	{fault.NotFound, "vpc-endpoint"}:              "InvalidVpcEndpointId.NotFound",
	{fault.NotFound, "vpc-endpoint-service"}:      "InvalidServiceName",
	{fault.NotFound, "prefix-list"}:               "InvalidPrefixListId.NotFound",
	{fault.NotFound, "network-insights-path"}:     "InvalidNetworkInsightsPathId.NotFound",
	{fault.NotFound, "network-insights-analysis"}: "InvalidNetworkInsightsAnalysisId.NotFound",
	{fault.Malformed, "security-group"}:           "InvalidGroupId.Malformed",
	{fault.Malformed, "vpc-endpoint"}:             "InvalidVpcEndpointId.Malformed",
	{fault.AlreadyExists, "security-group"}:       "InvalidGroup.Duplicate",
	{fault.AlreadyExists, "security-group-rule"}:  "InvalidPermission.Duplicate",
	{fault.AlreadyExists, "network-acl-entry"}:    "NetworkAclEntryAlreadyExists",
	{fault.AlreadyExists, "route"}:                "RouteAlreadyExists",
	{fault.Limit, "vpc"}:                          "VpcLimitExceeded",
	{fault.Limit, "subnet"}:                       "SubnetLimitExceeded",
	{fault.Limit, "security-group"}:               "SecurityGroupLimitExceeded",
	{fault.Limit, "security-group-rule"}:          "RulesPerSecurityGroupLimitExceeded",
	{fault.Limit, "network-acl"}:                  "NetworkAclLimitExceeded",
	{fault.Limit, "network-acl-entry"}:            "NetworkAclEntryLimitExceeded",
	{fault.Limit, "vpc-endpoint"}:                 "VpcEndpointLimitExceeded",
	{fault.InUse, "network-insights-path"}:        "AnalysisExistsForNetworkInsightsPath",
}

// identityCode is the only place where a Kind becomes an error code of IAM or STS.
var identityCode = map[fault.Kind]string{
	fault.Internal:      "ServiceFailure",
	fault.Invalid:       "ValidationError",
	fault.Missing:       "ValidationError",
	fault.Combination:   "InvalidParameterCombination",
	fault.Malformed:     "ValidationError",
	fault.NotFound:      "NoSuchEntity",
	fault.AlreadyExists: "EntityAlreadyExists",
	fault.InUse:         "DeleteConflict",
	fault.NotPermitted:  "UnmodifiableEntity",
	fault.NotAvailable:  "EntityTemporarilyUnmodifiable",
	fault.Conflict:      "ConcurrentModification",
	fault.Limit:         "LimitExceeded",
	fault.InvalidRole:   "InvalidInput",
	fault.Denied:        "AccessDenied",
	fault.Mismatch:      "InvalidInput",
	fault.Throttled:     "Throttling",
	fault.Unsupported:   "UnsupportedOperation",
}

// commonStatus are the HTTP statuses of codes that no model lists; others are 400.
var commonStatus = map[string]int{
	"AccessDenied":          http.StatusForbidden,
	"UnauthorizedOperation": http.StatusForbidden,
	"DryRunOperation":       http.StatusPreconditionFailed,
	"InternalFailure":       http.StatusInternalServerError,
	"InternalError":         http.StatusInternalServerError,
	"ServiceFailure":        http.StatusInternalServerError,
	"RequestLimitExceeded":  http.StatusServiceUnavailable,
	"ServiceUnavailable":    http.StatusServiceUnavailable,
}

func (x *exchange) status(code string) int {
	if f := x.service.model().errorStatus; f != nil {
		if st := f(code); st != 0 {
			return st
		}
	}
	if st, ok := commonStatus[code]; ok {
		return st
	}
	return http.StatusBadRequest
}

// faultCode is the error code of a fault in the request's service.
func (x *exchange) faultCode(f *fault.Error) string {
	switch x.service {
	case appStream:
		// A fault of the network tables may carry EC2's code, which AppStream's callers do not know.
		if strings.HasSuffix(f.Code, "Exception") {
			return f.Code
		}
		if code, ok := entitlementCode[f.Kind]; ok && f.Resource == "entitlement" {
			return code
		}
		return appstreamCode[f.Kind]
	case ec2:
		if f.Code != "" {
			return f.Code
		}
		if code, ok := ec2ResourceCode[kindOf{f.Kind, f.Resource}]; ok {
			return code
		}
		return ec2Code[f.Kind]
	case iamService, sts:
		if f.Code != "" {
			return f.Code
		}
	}
	return identityCode[f.Kind]
}

// fail renders an error. What is not a fault or a refusal of this package is internal: it is logged under the request's
// ID and its text stays here.
func (x *exchange) fail(err error) answer {
	if e, ok := errors.AsType[*apiError](err); ok {
		return x.refuse(e)
	}
	if e, ok := errors.AsType[*awsjson.SerializationError](err); ok {
		return x.refuse(&apiError{"SerializationException", e.Error(), http.StatusBadRequest})
	}
	if e, ok := errors.AsType[*query.Error](err); ok {
		err = awsquery.Refused(e)
		if x.protocol == ec2Protocol {
			err = ec2query.Refused(e)
		}
	}
	if e, ok := errors.AsType[*ec2query.RequestError](err); ok {
		return x.refuse(&apiError{e.Code, e.Message, http.StatusBadRequest})
	}
	if e, ok := errors.AsType[*awsquery.RequestError](err); ok {
		return x.refuse(&apiError{e.Code, e.Message, http.StatusBadRequest})
	}
	if f, ok := errors.AsType[*fault.Error](err); ok && f.Kind != fault.Internal {
		code := x.faultCode(f)
		return x.refuse(&apiError{code, f.Error(), x.status(code)})
	}
	if x.request.Context().Err() != nil {
		x.server.log.Debug("client went away", "request", x.requestID, "operation", x.operation)
		return x.refuse(x.unavailable())
	}
	x.server.log.Error("request failed", "request", x.requestID, "service", x.service.signingName(), "operation", x.operation, "error", err)
	if errors.Is(err, context.DeadlineExceeded) {
		return x.refuse(x.unavailable())
	}
	return x.refuse(x.internal())
}

// awsFault is the XML namespace of errors that no service owns.
const awsFault = "http://webservices.amazon.com/AWSFault/2005-15-09"

// refuse renders an error in the request's protocol.
func (x *exchange) refuse(e *apiError) answer {
	x.refusalText = e.message
	switch x.protocol {
	case jsonProtocol:
		return answer{e.status, awsjson.ContentType, awsjson.AppendError(nil, e.code, e.message), e.code, false}
	case ec2Protocol:
		return answer{e.status, query.ContentType, ec2query.Error(e.code, e.message, x.requestID), e.code, false}
	case queryProtocol:
	}
	namespace := x.service.model().namespace
	if namespace == "" {
		namespace = awsFault
	}
	return answer{e.status, query.ContentType, awsquery.Error(namespace, e.code, e.message, x.requestID, e.status), e.code, false}
}

// byProtocol picks the error of the request's protocol.
func (x *exchange) byProtocol(json, ec2, query apiError) *apiError {
	switch x.protocol {
	case jsonProtocol:
		return &json
	case ec2Protocol:
		return &ec2
	case queryProtocol:
	}
	return &query
}

func (x *exchange) internal() *apiError {
	const message = "An internal error has occurred. Its cause is in the server's log under this request ID."
	return x.byProtocol(
		apiError{"InternalFailure", message, http.StatusInternalServerError},
		apiError{"InternalError", message, http.StatusInternalServerError},
		apiError{"InternalFailure", message, http.StatusInternalServerError})
}

func (x *exchange) unavailable() *apiError {
	const message = "The request could not be completed in time. Try again."
	return x.byProtocol(
		apiError{"ServiceUnavailableException", message, http.StatusServiceUnavailable},
		apiError{"ServiceUnavailable", message, http.StatusServiceUnavailable},
		apiError{"ServiceUnavailable", message, http.StatusServiceUnavailable})
}

func (x *exchange) throttled() *apiError {
	const message = "Too many requests are being answered. Try again."
	return x.byProtocol(
		apiError{"ThrottlingException", message, http.StatusBadRequest},
		apiError{"RequestLimitExceeded", message, http.StatusServiceUnavailable},
		apiError{"Throttling", message, http.StatusBadRequest})
}

func (x *exchange) tooLarge() *apiError {
	message := fmt.Sprintf("The request's body is larger than %d bytes.", x.server.options.MaxBodyBytes)
	return x.byProtocol(
		apiError{"RequestEntityTooLargeException", message, http.StatusRequestEntityTooLarge},
		apiError{"RequestEntityTooLarge", message, http.StatusRequestEntityTooLarge},
		apiError{"RequestEntityTooLarge", message, http.StatusRequestEntityTooLarge})
}

func (x *exchange) cutShort() *apiError {
	const message = "The request's body ended early or took too long."
	return x.byProtocol(
		apiError{"RequestTimeoutException", message, http.StatusBadRequest},
		apiError{"RequestTimeout", message, http.StatusBadRequest},
		apiError{"RequestTimeout", message, http.StatusBadRequest})
}

// unknownOperation is the answer to an operation that is not in the service's model.
func (x *exchange) unknownOperation() *apiError {
	if x.operation == "" && x.protocol != jsonProtocol {
		return &apiError{"MissingAction", "The request must contain the parameter Action", http.StatusBadRequest}
	}
	name := strings.ToValidUTF8(fmt.Sprintf("%.100s", x.operation), "\uFFFD")
	return x.byProtocol(
		apiError{"UnknownOperationException", "The operation is not known. X-Amz-Target must be " + targetPrefix + "Operation.", http.StatusBadRequest},
		apiError{"InvalidAction", fmt.Sprintf("The action %s is not valid for this web service.", name), http.StatusBadRequest},
		apiError{"InvalidAction", fmt.Sprintf("Could not find operation %s.", name), http.StatusBadRequest})
}

func (x *exchange) wrongVersion(version string) *apiError {
	want := x.service.model().version
	message := fmt.Sprintf("The API version %.40q of the request is not known; use %s.", version, want)
	return x.byProtocol(
		apiError{"ValidationException", message, http.StatusBadRequest},
		apiError{"NoSuchVersion", message, http.StatusBadRequest},
		apiError{"NoSuchVersion", message, http.StatusBadRequest})
}

// notImplemented is the answer to an operation of the model that has no handler. Clients do not repeat a 501.
func (x *exchange) notImplemented() *apiError {
	return &apiError{
		"NotImplemented",
		fmt.Sprintf("Penstock knows the operation %s:%s but does not serve it yet.", x.service.signingName(), x.operation),
		http.StatusNotImplemented,
	}
}

// dryRun is EC2's answer to a request that would have succeeded.
func (x *exchange) dryRun() *apiError {
	return &apiError{"DryRunOperation", "Request would have succeeded, but DryRun flag is set.", http.StatusPreconditionFailed}
}
