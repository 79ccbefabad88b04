package vpc

import "strings"

// Service is a service that endpoints can be made for.
type Service struct {
	Name         string // "com.amazonaws.us-east-1.appstream.streaming"
	ID           string // "vpce-svc-…"
	BaseDNSName  string // "streaming.appstream.us-east-1.vpce.amazonaws.com"
	PrivateNames []string
	Ports        []PortRange
}

// Services are the services of a region: AppStream's streaming and API endpoints. Both accept at once and support no policy.
func Services(region string) []Service {
	return []Service{
		{
			Name:         "com.amazonaws." + region + ".appstream.api",
			ID:           "vpce-svc-0a9957ea9a0000001",
			BaseDNSName:  "api.appstream." + region + ".vpce.amazonaws.com",
			PrivateNames: []string{"appstream2." + region + ".amazonaws.com"},
			Ports:        []PortRange{{From: 443, To: 443}},
		},
		{
			Name:         "com.amazonaws." + region + ".appstream.streaming",
			ID:           "vpce-svc-0a9957ea9a0000002",
			BaseDNSName:  "streaming.appstream." + region + ".vpce.amazonaws.com",
			PrivateNames: []string{"*.streaming." + region + ".appstream2.amazonappstream.com"},
			Ports:        []PortRange{{From: 443, To: 443}, {From: 1400, To: 1499}},
		},
	}
}

// IsStreaming says whether the service's name is that of AppStream's streaming endpoints.
func IsStreaming(service string) bool { return strings.HasSuffix(service, ".appstream.streaming") }

// FindService returns the region's service of that name.
func FindService(region, name string) (Service, bool) {
	for _, s := range Services(region) {
		if s.Name == name {
			return s, true
		}
	}
	return Service{}, false
}

// Zone is an Availability Zone.
type Zone struct{ Name, ID string }

// Zones are the Availability Zones of a region.
func Zones(region string) []Zone {
	// Zone IDs shorten the region: us-east-1 is use1, ap-southeast-2 is apse2.
	parts := strings.Split(region, "-")
	short := region
	if len(parts) == 3 {
		directions := map[string]string{
			"east": "e", "west": "w", "north": "n", "south": "s", "central": "c",
			"northeast": "ne", "northwest": "nw", "southeast": "se", "southwest": "sw",
		}
		short = parts[0] + directions[parts[1]] + parts[2]
	}
	out := make([]Zone, 0, 3)
	for i, letter := range []string{"a", "b", "c"} {
		out = append(out, Zone{Name: region + letter, ID: short + "-az" + string(rune('1'+i))})
	}
	return out
}

// FindZone returns the zone with this name or ID.
func FindZone(region, nameOrID string) (Zone, bool) {
	for _, z := range Zones(region) {
		if z.Name == nameOrID || z.ID == nameOrID {
			return z, true
		}
	}
	return Zone{}, false
}

// Hosted zones of the names of endpoints: one for the service's names, one a VPC for private names.
const regionalHostedZone = "Z7HUB22UULQXV"

// DNSEntries are the names of an endpoint: the regional one, with two zones or more one a zone, and the private ones.
// suffix is the eight characters that make the name unlike the ID.
func DNSEntries(e *Endpoint, s Service, zones []string) []DNSEntry {
	label := string(e.ID) + "-" + e.DNSSuffix
	out := []DNSEntry{{Name: label + "." + s.BaseDNSName, HostedZone: regionalHostedZone}}
	if len(zones) > 1 {
		for _, z := range zones {
			out = append(out, DNSEntry{Name: label + "-" + z + "." + s.BaseDNSName, HostedZone: regionalHostedZone})
		}
	}
	if e.PrivateDNS {
		for _, n := range s.PrivateNames {
			out = append(out, DNSEntry{Name: n, HostedZone: "Z" + strings.ToUpper(strings.TrimPrefix(string(e.ID), PrefixEndpoint+"-"))})
		}
	}
	return out
}
