package appstream

import (
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/state"
)

// BuilderKind is what a builder is for. It is also the type of resource in its ARN.
type BuilderKind string

// Kinds of builders.
const (
	ImageBuilder    BuilderKind = "image-builder"
	AppBlockBuilder BuilderKind = "app-block-builder"
)

// BuilderID is a builder's kind and name, as in its ARN: "image-builder/office".
type BuilderID string

// ID is the builder of this kind with a name.
func (k BuilderKind) ID(name string) BuilderID { return BuilderID(string(k) + "/" + name) }

// Split is the kind and the name.
func (id BuilderID) Split() (BuilderKind, string) {
	kind, name, _ := strings.Cut(string(id), "/")
	return BuilderKind(kind), name
}

// Title is the kind in words, for texts.
func (k BuilderKind) Title() string { return strings.ReplaceAll(string(k), "-", " ") }

// Starting is the state of a builder of this kind that has no instance yet.
func (k BuilderKind) Starting() BuilderState {
	if k == ImageBuilder {
		return BuilderPending
	}
	return BuilderStarting
}

// Administrator is the user whose session a builder's is.
func (k BuilderKind) Administrator() string {
	if k == ImageBuilder {
		return "ImageBuilderAdmin"
	}
	return "AppBlockBuilderAdmin"
}

// BuilderState is as in the API.
type BuilderState string

// States of builders. Image builders are PENDING where app block builders are STARTING, and they alone are DELETING and FAILED: an app
// block builder that cannot start is STOPPED again.
const (
	BuilderPending  BuilderState = "PENDING"
	BuilderStarting BuilderState = "STARTING"
	BuilderRunning  BuilderState = "RUNNING"
	BuilderStopping BuilderState = "STOPPING"
	BuilderStopped  BuilderState = "STOPPED"
	BuilderDeleting BuilderState = "DELETING"
	BuilderFailed   BuilderState = "FAILED"
)

// Changing reports whether the builder is on its way to another state, in which nothing may be asked of it.
func (s BuilderState) Changing() bool {
	return s == BuilderPending || s == BuilderStarting || s == BuilderStopping || s == BuilderDeleting
}

// Builder is an image builder or an app block builder: one instance on whose desktop an administrator works.
type Builder struct {
	Kind             BuilderKind
	Name             string
	Description      string `json:",omitempty"`
	DisplayName      string `json:",omitempty"`
	ImageName        string `json:",omitempty"` // of image builders
	AgentVersion     string `json:",omitempty"` // as it was asked for; image builders
	Platform         string `json:",omitempty"` // of app block builders
	InstanceType     string
	SubnetIDs        []string         `json:",omitempty"` // in the order in which they were sent
	SecurityGroupIDs []string         `json:",omitempty"`
	InternetAccess   bool             `json:",omitempty"`
	IamRoleArn       string           `json:",omitempty"`
	AccessEndpoints  []AccessEndpoint `json:",omitempty"`
	DisableIMDSV1    *bool            `json:",omitempty"` // as it was sent; there is no metadata service here
	AppBlock         string           `json:",omitempty"` // name of the app block that it is associated with
	CreatedTime      time.Time
	Tags             Tags `json:",omitempty"`

	State         BuilderState
	StartFailures int            `json:",omitempty"` // instances that failed to start, in a row
	RetryAt       time.Time      `json:",omitzero"`  // no new instance before that
	Errors        []BuilderError `json:",omitempty"`
}

// BuilderError is why a builder cannot reach its desired state, with a code of FleetErrorCode.
type BuilderError struct {
	Code, Message string
	Time          time.Time
}

// ID is the builder's kind and name.
func (b *Builder) ID() BuilderID { return b.Kind.ID(b.Name) }

// Builders is the table of builders.
var Builders = state.Table[Builder]{
	Kind: "builder",
	ID:   func(b *Builder) string { return string(b.ID()) },
	Keys: func(b *Builder) []state.Key {
		k := []state.Key{{Name: "kind", Value: string(b.Kind)}}
		if b.AppBlock != "" {
			k = append(k, state.Key{Name: "app-block", Value: b.AppBlock})
		}
		return k
	},
}

// AppBlock is an application package that app block builders make. Nothing is in it yet: its state is INACTIVE.
type AppBlock struct {
	Name        string
	Description string `json:",omitempty"`
	DisplayName string `json:",omitempty"`
	S3Bucket    string // where the package is to go
	CreatedTime time.Time
	Tags        Tags `json:",omitempty"`
}

// AppBlocks is the table of app blocks.
var AppBlocks = state.Table[AppBlock]{
	Kind: "app-block",
	ID:   func(a *AppBlock) string { return a.Name },
}

// StreamingEndpoint is where sessions with these access endpoints stream from.
func StreamingEndpoint(es []AccessEndpoint) EndpointID {
	i := slices.IndexFunc(es, func(e AccessEndpoint) bool { return e.EndpointType == "STREAMING" && e.VpceID != "" })
	if i < 0 {
		return InternetEndpoint
	}
	return EndpointID(es[i].VpceID)
}
