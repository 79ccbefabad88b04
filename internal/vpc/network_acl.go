package vpc

import (
	"cmp"
	"net/netip"
	"slices"

	"penstock.dev/penstock/internal/fault"
)

// NetworkACL is a stateless, ordered list of rules at the border of the subnets that it is associated with.
type NetworkACL struct {
	ID           NetworkACLID            `json:"id"`
	OwnerID      string                  `json:"ownerId"`
	VPC          VPCID                   `json:"vpc"`
	Default      bool                    `json:"default,omitzero"`
	Entries      []NetworkACLEntry       `json:"entries,omitzero"` // without the fixed last rule; ordered by Egress, then Number
	Associations []NetworkACLAssociation `json:"associations,omitzero"`
	Tags         Tags                    `json:"tags,omitzero"`
}

// NetworkACLEntry is one rule.
type NetworkACLEntry struct {
	Number   int          `json:"number"` // 1 to 32766
	Egress   bool         `json:"egress,omitzero"`
	Allow    bool         `json:"allow,omitzero"`
	Protocol Protocol     `json:"protocol"`
	CIDR     netip.Prefix `json:"cidr"`  // IPv4 or IPv6, masked
	Ports    PortRange    `json:"ports"` // TCP and UDP; otherwise {-1,-1}
	ICMPType int          `json:"icmpType,omitzero"`
	ICMPCode int          `json:"icmpCode,omitzero"`
}

// Numbers of an ACL's fixed last rules, which deny everything and cannot be changed.
const (
	MaxACLEntryNumber  = 32766
	FixedDenyNumber    = 32767
	FixedDenyNumberIP6 = 32768
)

// NetworkACLAssociation ties a subnet to an ACL.
type NetworkACLAssociation struct {
	ID     NetworkACLAssociationID `json:"id"`
	Subnet SubnetID                `json:"subnet"`
}

// ACLEntriesPerDirection is how many entries an ACL may have for each direction and IP family, unless the account has another quota.
const ACLEntriesPerDirection = 20

// Check applies the rules for an entry: its number, and ports for TCP and UDP.
func (e *NetworkACLEntry) Check() error {
	switch {
	case e.Number < 1 || e.Number > MaxACLEntryNumber:
		return fault.Newf(fault.Invalid, "", "", "Value (%d) for parameter ruleNumber is invalid. Rule numbers are between 1 and %d.", e.Number, MaxACLEntryNumber).WithCode("InvalidParameterValue")
	case !e.CIDR.IsValid():
		return fault.New(fault.Missing, "", "", "The request must contain the parameter cidrBlock or ipv6CidrBlock").WithCode("MissingParameter")
	case e.Protocol.HasPorts() && (e.Ports.From < 0 || e.Ports.To > 65535 || e.Ports.From > e.Ports.To):
		return fault.Newf(fault.Invalid, "", "", "Value (%s) for parameter portRange is invalid. Ports are between 0 and 65535, the first not above the last.", e.Ports).WithCode("InvalidParameterValue")
	case e.ICMPType < -1 || e.ICMPType > 255 || e.ICMPCode < -1 || e.ICMPCode > 255:
		return fault.New(fault.Invalid, "", "", "Value for parameter icmpTypeCode is invalid. Type and code are between -1 and 255.").WithCode("InvalidParameterValue")
	}
	return nil
}

func (a *NetworkACL) find(number int, egress bool) int {
	return slices.IndexFunc(a.Entries, func(e NetworkACLEntry) bool { return e.Number == number && e.Egress == egress })
}

// Add puts an entry into the ACL, up to most for each direction and IP family; its number must be free in its direction.
func (a *NetworkACL) Add(e NetworkACLEntry, most int) error {
	if err := e.Check(); err != nil {
		return err
	}
	if a.find(e.Number, e.Egress) >= 0 {
		return fault.Newf(fault.AlreadyExists, "", "", "The network acl entry identified by %d already exists.", e.Number).WithCode("NetworkAclEntryAlreadyExists")
	}
	n := 0
	for _, o := range a.Entries {
		if o.Egress == e.Egress && o.CIDR.Addr().Is6() == e.CIDR.Addr().Is6() {
			n++
		}
	}
	if n >= most {
		return fault.Newf(fault.Limit, "", "", "The maximum number of network acl entries has been reached.").WithCode("NetworkAclEntryLimitExceeded")
	}
	a.Entries = append(slices.Clone(a.Entries), e)
	a.sort()
	return nil
}

// Replace exchanges the entry with the same number and direction.
func (a *NetworkACL) Replace(e NetworkACLEntry) error {
	if err := e.Check(); err != nil {
		return err
	}
	i := a.find(e.Number, e.Egress)
	if i < 0 {
		return noEntry(e.Number, a.ID)
	}
	a.Entries = slices.Clone(a.Entries)
	a.Entries[i] = e
	return nil
}

// Remove takes the entry out.
func (a *NetworkACL) Remove(number int, egress bool) error {
	i := a.find(number, egress)
	if i < 0 {
		return noEntry(number, a.ID)
	}
	a.Entries = slices.Delete(slices.Clone(a.Entries), i, i+1)
	return nil
}

func noEntry(number int, id NetworkACLID) error {
	return fault.Newf(fault.NotFound, "", "", "There is no entry in acl %s identified by %d", id, number).WithCode("InvalidNetworkAclEntry.NotFound")
}

func (a *NetworkACL) sort() {
	slices.SortFunc(a.Entries, func(x, y NetworkACLEntry) int {
		if x.Egress != y.Egress {
			if y.Egress {
				return -1
			}
			return 1
		}
		return cmp.Compare(x.Number, y.Number)
	})
}
