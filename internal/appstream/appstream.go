// Package appstream holds the rules of stacks, fleets, images and sessions as AppStream 2.0 has them.
//
// It is pure: no I/O, no goroutines, no clock. Values are stored by internal/control through the tables of this package.
package appstream

import (
	"fmt"
	"regexp"
	"time"

	"penstock.dev/penstock/internal/fault"
)

// Identifiers.
type (
	// SessionID is a session's UUID.
	SessionID string
	// InstanceID is "i-" and 17 hex digits.
	InstanceID string
	// EndpointID is a VPC endpoint's ID ("vpce-…") or InternetEndpoint.
	EndpointID string
)

// InternetEndpoint is where stacks without an interface endpoint stream from.
const InternetEndpoint EndpointID = "internet"

var namePattern = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,100}$`)

// CheckName refuses names that AppStream does not allow for resources.
func CheckName(member, name string) error {
	if !namePattern.MatchString(name) {
		return fault.Newf(fault.Invalid, member, "", "%q must match %s", name, namePattern)
	}
	return nil
}

// ARN of an AppStream resource: arn:aws:appstream:REGION:ACCOUNT:KIND/NAME.
func ARN(region, account, kind, name string) string {
	return fmt.Sprintf("arn:aws:appstream:%s:%s:%s/%s", region, account, kind, name)
}

// Tags are a resource's tags.
type Tags map[string]string

// Limits of the API, in seconds unless said.
const (
	MinValidity     = 1
	MaxValidity     = 604800
	DefaultValidity = 60
	BuilderValidity = 3600 // default of builders' URLs

	MinUserDuration     = 600
	MaxUserDuration     = 432000
	DefaultUserDuration = 57600

	MinDisconnectTimeout     = 60
	MaxDisconnectTimeout     = 36000
	DefaultDisconnectTimeout = 900

	MinIdleTimeout = 60
	MaxIdleTimeout = 36000
)

// RoundIdle rounds an idle timeout to the nearest minute, half up, as CreateFleet does. Zero stays off.
func RoundIdle(d time.Duration) time.Duration {
	return (d + 30*time.Second) / time.Minute * time.Minute
}
