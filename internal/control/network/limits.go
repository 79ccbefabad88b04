package network

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"

	"penstock.dev/penstock/internal/vpc"
)

// Limits are the quotas of the account, whose defaults are EC2's. Zero means the default; in a file it is refused.
type Limits struct {
	VPCs                    int `json:"vpcs"`                    // in the Region; 5
	SubnetsPerVPC           int `json:"subnetsPerVpc"`           // 200
	EndpointsPerVPC         int `json:"endpointsPerVpc"`         // interface endpoints; 50
	SecurityGroups          int `json:"securityGroups"`          // in the Region; 2500
	RulesPerGroup           int `json:"rulesPerGroup"`           // of each direction and IP family; 60
	GroupsPerInterface      int `json:"groupsPerInterface"`      // 5, at most 16; with RulesPerGroup at most 1000 rules
	NetworkACLsPerVPC       int `json:"networkAclsPerVpc"`       // 200
	EntriesPerNetworkACL    int `json:"entriesPerNetworkAcl"`    // of each direction and IP family; 20, at most 40
	RouteTablesPerVPC       int `json:"routeTablesPerVpc"`       // 200
	RoutesPerTable          int `json:"routesPerTable"`          // of a table's own; 50
	PrefixLists             int `json:"prefixLists"`             // in the Region; 100
	EntriesPerPrefixList    int `json:"entriesPerPrefixList"`    // 1000
	TagsPerResource         int `json:"tagsPerResource"`         // 50
	NetworkInsightsPaths    int `json:"networkInsightsPaths"`    // in the Region; 100
	NetworkInsightsAnalyses int `json:"networkInsightsAnalyses"` // in the Region; 1000

	// These are AppStream's. They stand here so that one file has all quotas.
	Users            int `json:"users"`            // of the user pool; 50
	ImageBuilders    int `json:"imageBuilders"`    // 10
	AppBlockBuilders int `json:"appBlockBuilders"` // 10
	AppBlocks        int `json:"appBlocks"`        // 10
}

// DefaultLimits are EC2's quotas of a new account.
func DefaultLimits() Limits {
	return Limits{
		VPCs: 5, SubnetsPerVPC: 200, EndpointsPerVPC: 50, SecurityGroups: 2500, RulesPerGroup: vpc.RulesPerGroup, GroupsPerInterface: 5,
		NetworkACLsPerVPC: 200, EntriesPerNetworkACL: vpc.ACLEntriesPerDirection, RouteTablesPerVPC: 200, RoutesPerTable: 50,
		PrefixLists: 100, EntriesPerPrefixList: 1000, TagsPerResource: 50, NetworkInsightsPaths: 100, NetworkInsightsAnalyses: 1000, Users: 50,
		ImageBuilders: 10, AppBlockBuilders: 10, AppBlocks: 10,
	}
}

// ReadLimits reads a JSON object of limits over the defaults. A key that is no limit, or a value that cannot be one, is refused.
func ReadLimits(r io.Reader) (Limits, error) {
	l := DefaultLimits()
	text, err := io.ReadAll(io.LimitReader(r, 1<<16))
	if err != nil {
		return l, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&l); err != nil {
		return l, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return l, errors.New("there is more after the object")
	}
	return l, l.check()
}

// check says what no account can have. The upper bounds are those that EC2 raises a quota to.
func (l Limits) check() error {
	v := reflect.ValueOf(l)
	most := map[string]int{"groupsPerInterface": 16, "entriesPerNetworkAcl": 40, "tagsPerResource": 50, "users": 100_000}
	for f, n := range v.Fields() {
		name := f.Tag.Get("json")
		switch top := most[name]; {
		case n.Int() < 1:
			return fmt.Errorf("%s is %d; it is at least 1", name, n.Int())
		case top > 0 && n.Int() > int64(top):
			return fmt.Errorf("%s is %d; it is at most %d", name, n.Int(), top)
		case n.Int() > 1_000_000:
			return fmt.Errorf("%s is %d; it is at most 1000000", name, n.Int())
		}
	}
	if n := l.GroupsPerInterface * l.RulesPerGroup; n > 1000 {
		return fmt.Errorf("groupsPerInterface times rulesPerGroup is %d; it is at most 1000", n)
	}
	return nil
}

func (l Limits) withDefaults() Limits {
	v, d := reflect.ValueOf(&l).Elem(), reflect.ValueOf(DefaultLimits())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			v.Field(i).Set(d.Field(i))
		}
	}
	return l
}

// Limits are the quotas in force.
func (s *Service) Limits() Limits { return s.limits }
