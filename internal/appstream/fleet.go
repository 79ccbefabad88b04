package appstream

import (
	"time"

	"penstock.dev/penstock/internal/state"
)

// FleetState is as in the API.
type FleetState string

// Fleet states.
const (
	FleetStarting FleetState = "STARTING"
	FleetRunning  FleetState = "RUNNING"
	FleetStopping FleetState = "STOPPING"
	FleetStopped  FleetState = "STOPPED"
)

// Fleet types that are served.
const (
	AlwaysOn = "ALWAYS_ON"
	OnDemand = "ON_DEMAND"
	Elastic  = "ELASTIC"
)

// Fleet is a set of instances of one image.
type Fleet struct {
	Name              string
	Description       string `json:",omitempty"`
	DisplayName       string `json:",omitempty"`
	ImageName         string
	InstanceType      string
	FleetType         string
	DesiredInstances  int32
	MaxUserDuration   time.Duration
	DisconnectTimeout time.Duration
	IdleTimeout       time.Duration
	SubnetIDs         []string `json:",omitempty"` // in the order in which they were sent
	SecurityGroupIDs  []string `json:",omitempty"`
	InternetAccess    bool
	IamRoleArn        string `json:",omitempty"`
	StreamView        string `json:",omitempty"`
	CreatedTime       time.Time
	Tags              Tags `json:",omitempty"`

	State         FleetState
	StartFailures int          `json:",omitempty"` // instances that failed to start, in a row
	RetryAt       time.Time    `json:",omitzero"`  // no new instance before that
	Errors        []FleetError `json:",omitempty"`
}

// FleetError is why a fleet cannot reach its desired state, as DescribeFleets shows it.
type FleetError struct{ Code, Message string }

// Fleets is the table of fleets.
var Fleets = state.Table[Fleet]{
	Kind: "fleet",
	ID:   func(f *Fleet) string { return f.Name },
}

// Association lets users of a stack use a fleet.
type Association struct{ FleetName, StackName string }

// Associations is the table of associations between fleets and stacks.
var Associations = state.Table[Association]{
	Kind: "fleet-stack-association",
	ID:   func(a *Association) string { return a.FleetName + " " + a.StackName },
	Keys: func(a *Association) []state.Key {
		return []state.Key{{Name: "fleet", Value: a.FleetName}, {Name: "stack", Value: a.StackName}}
	},
}

// InstanceState is where an instance is in its one-way life.
type InstanceState string

// Instance states. An instance serves one session and is then replaced.
const (
	InstanceStarting InstanceState = "starting"
	InstanceReady    InstanceState = "ready"   // can take a session
	InstanceClaimed  InstanceState = "claimed" // has its session
	InstanceEnding   InstanceState = "ending"  // must end; its record goes when nothing is left of it
)

// Instance is one machine-like unit that runs one session.
type Instance struct {
	ID        InstanceID
	Fleet     string    `json:",omitempty"` // whose it is: a fleet's or a builder's
	Builder   BuilderID `json:",omitempty"`
	State     InstanceState
	Session   SessionID `json:",omitempty"`
	Created   time.Time
	PublicKey []byte  `json:",omitempty"` // Ed25519; signs the session's own tickets
	Local     *Local  `json:",omitempty"` // for compute on this machine
	Failure   string  `json:",omitempty"`
	EndCode   EndCode `json:",omitempty"` // why it must end, told to its viewer
	EndReason string  `json:",omitempty"`
}

// Local is where an instance on this machine is found.
type Local struct {
	Display    string `json:"display"`    // ":100"
	Xauthority string `json:"xauthority"` // path of the cookie file
	PID        int    `json:"pid"`        // the agent's
}

// Instances is the table of instances.
var Instances = state.Table[Instance]{
	Kind: "instance",
	ID:   func(i *Instance) string { return string(i.ID) },
	Keys: func(i *Instance) []state.Key {
		if i.Builder != "" {
			return []state.Key{{Name: "builder", Value: string(i.Builder)}}
		}
		return []state.Key{{Name: "fleet", Value: i.Fleet}, {Name: "state", Value: i.Fleet + " " + string(i.State)}}
	},
}
