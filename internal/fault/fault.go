// Package fault says what a caller can do about a failure.
//
// A fault is the only kind of error whose text reaches an API caller; every other error is internal.
// The API front door turns a Kind (and a Code where a service has many codes for one kind) into the
// service's error code; nothing else does.
package fault

import (
	"errors"
	"fmt"
)

// Kind is what the caller can do about it.
type Kind int

// The kinds. Each service's front door maps each of them to one of its error codes.
const (
	// Internal is an unexpected failure; the caller may retry.
	Internal Kind = iota
	// Invalid is a member with a value that cannot be used.
	Invalid
	// Missing is a required member that is absent.
	Missing
	// Combination is members that exclude each other or a resource that does not fit the request.
	Combination
	// Malformed is an identifier with a wrong form.
	Malformed
	// NotFound is a resource that does not exist.
	NotFound
	// AlreadyExists is a resource that exists already.
	AlreadyExists
	// InUse is a resource that others depend on.
	InUse
	// NotPermitted is an operation that the resource's state does not allow.
	NotPermitted
	// NotAvailable is a resource that exists but cannot serve now.
	NotAvailable
	// Conflict is a concurrent change; read again and retry.
	Conflict
	// Limit is a quota that is used up.
	Limit
	// InvalidRole is a service role that is missing or lacks an action.
	InvalidRole
	// Denied is a principal that may not do this.
	Denied
	// Mismatch is an idempotency token used again with other parameters.
	Mismatch
	// Throttled asks the caller to slow down.
	Throttled
	// Unsupported is an operation that cannot mean anything here.
	Unsupported
)

// Error is a failure that the caller is told about.
type Error struct {
	Kind     Kind
	Resource string // what it is about, in the words of the API: "stack", "vpc", "security-group"; or the member's name
	ID       string // which one; empty when the failure is about a member
	Reason   string // one sentence, lower case, no full stop
	Code     string // the service's exact error code where Kind and Resource do not determine it
}

// Error names the resource and the reason.
func (e *Error) Error() string {
	switch {
	case e.Resource != "" && e.ID != "":
		return fmt.Sprintf("%s %s: %s", e.Resource, e.ID, e.Reason)
	case e.Resource != "":
		return fmt.Sprintf("%s: %s", e.Resource, e.Reason)
	default:
		return e.Reason
	}
}

// New makes a fault about one resource.
func New(kind Kind, resource, id, reason string) *Error {
	return &Error{Kind: kind, Resource: resource, ID: id, Reason: reason}
}

// Newf makes a fault about one resource with a formatted reason.
func Newf(kind Kind, resource, id, format string, args ...any) *Error {
	return &Error{Kind: kind, Resource: resource, ID: id, Reason: fmt.Sprintf(format, args...)}
}

// WithCode sets the service's exact error code.
func (e *Error) WithCode(code string) *Error {
	c := *e
	c.Code = code
	return &c
}

// KindOf is the kind of the first fault in err's chain, Internal when there is none.
func KindOf(err error) Kind {
	if f, ok := errors.AsType[*Error](err); ok {
		return f.Kind
	}
	return Internal
}

// Is reports whether err carries a fault of kind.
func Is(err error, kind Kind) bool {
	f, ok := errors.AsType[*Error](err)
	return ok && f.Kind == kind
}
