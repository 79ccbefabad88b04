package network

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// writeLimit bounds the writing of an analysis's findings, which goes on when its caller has gone.
const writeLimit = 10 * time.Second

// CreateInsightsPath are the parameters of CreateNetworkInsightsPath. Ends are IDs or ARNs.
type CreateInsightsPath struct {
	Source, Destination     string
	SourceIP, DestinationIP string
	Protocol                string
	DestinationPort         *int
	AtSource, AtDestination *vpc.InsightsFilter
	Tags                    vpc.Tags
}

// CreateInsightsPath stores a question about reachability. Both of its ends must exist.
func (s *Service) CreateInsightsPath(ctx context.Context, c CreateInsightsPath, token string) (*vpc.InsightsPath, error) {
	p, err := s.readPath(c)
	if err != nil {
		return nil, err
	}
	return state.Write(ctx, s.raw, func(tx state.Tx) (*vpc.InsightsPath, error) {
		return once(s, tx, "CreateNetworkInsightsPath", token, c, vpc.InsightsPaths(), func() (*vpc.InsightsPath, error) {
			n, err := tx.Count(vpc.KindInsightsPath, state.Key{})
			if err != nil {
				return nil, err
			}
			if n >= s.limits.NetworkInsightsPaths {
				return nil, limit("NetworkInsightsPathLimitExceeded", "The maximum number of network insights paths has been reached.")
			}
			if err := checkEnd(tx, "Source", p.Source); err != nil {
				return nil, err
			}
			if p.Destination != "" {
				if err := checkEnd(tx, "Destination", p.Destination); err != nil {
					return nil, err
				}
			}
			made := *p
			made.ID, made.Created = newID[vpc.InsightsPathID](vpc.PrefixInsightsPath), s.now().UTC()
			return &made, vpc.InsightsPaths().Put(tx, &made)
		})
	})
}

// readPath applies the rules that need no state.
func (s *Service) readPath(c CreateInsightsPath) (*vpc.InsightsPath, error) {
	p := &vpc.InsightsPath{OwnerID: s.account, DestinationPort: c.DestinationPort, AtSource: c.AtSource, AtDestination: c.AtDestination, Tags: c.Tags}
	if err := s.checkTags(c.Tags); err != nil {
		return nil, err
	}
	switch c.Protocol {
	case "tcp":
		p.Protocol = vpc.TCP
	case "udp":
		p.Protocol = vpc.UDP
	default:
		return nil, invalid("Value (%.40s) for parameter Protocol is invalid. It is tcp or udp.", c.Protocol)
	}
	var err error
	if p.Source, err = s.endID("Source", c.Source); err != nil {
		return nil, err
	}
	if c.Destination != "" {
		if p.Destination, err = s.endID("Destination", c.Destination); err != nil {
			return nil, err
		}
	}
	for _, a := range []struct {
		name, text string
		into       *netip.Addr
	}{{"SourceIp", c.SourceIP, &p.SourceIP}, {"DestinationIp", c.DestinationIP, &p.DestinationIP}} {
		if a.text == "" {
			continue
		}
		if *a.into, err = netip.ParseAddr(a.text); err != nil {
			return nil, invalid("Value (%.60s) for parameter %s is invalid. This is not an IP address.", a.text, a.name)
		}
	}
	for _, f := range []struct {
		name string
		f    *vpc.InsightsFilter
	}{{"FilterAtSource", c.AtSource}, {"FilterAtDestination", c.AtDestination}} {
		if f.f == nil {
			continue
		}
		for _, r := range []*vpc.PortRange{f.f.SourcePorts, f.f.DestinationPorts} {
			if r != nil && (r.From < 0 || r.To > 65535 || r.From > r.To) {
				return nil, invalid("Value (%s) for parameter %s is invalid. Ports are between 0 and 65535, the first not above the last.", r, f.name)
			}
		}
	}
	switch {
	case p.AtSource != nil && p.SourceIP.IsValid():
		return nil, combination("The parameter %s cannot be used with the parameter %s", "FilterAtSource", "SourceIp")
	case p.AtSource != nil && p.DestinationPort != nil:
		return nil, combination("The parameter %s cannot be used with the parameter %s", "FilterAtSource", "DestinationPort")
	case p.AtDestination != nil && p.DestinationIP.IsValid():
		return nil, combination("The parameter %s cannot be used with the parameter %s", "FilterAtDestination", "DestinationIp")
	case p.Destination == "" && !p.DestinationIP.IsValid() && (p.AtSource == nil || !p.AtSource.Destination.IsValid()) && (p.AtDestination == nil || !p.AtDestination.Destination.IsValid()):
		return nil, missing("Destination or DestinationIp")
	case p.Source == p.Destination:
		return nil, invalid("Value (%s) for parameter Destination is invalid. It is the source.", p.Destination)
	case p.DestinationPort != nil && (*p.DestinationPort < 0 || *p.DestinationPort > 65535):
		return nil, invalid("Value (%d) for parameter DestinationPort is invalid. Ports are between 0 and 65535.", *p.DestinationPort)
	}
	return p, nil
}

// endID reads the ID or the ARN of an end.
func (s *Service) endID(member, text string) (string, error) {
	id, isARN := text, strings.HasPrefix(text, "arn:")
	if isARN {
		rest, ours := strings.CutPrefix(text, "arn:aws:ec2:"+s.region+":"+s.account+":")
		kind, name, ok := strings.Cut(rest, "/")
		if !ours || !ok || kind == "" {
			return "", invalid("Value (%.200s) for parameter %s is invalid. This is not the ARN of a resource of this account in this Region.", text, member)
		}
		id = name
	}
	prefix, _, _ := strings.Cut(id, "-")
	switch {
	case prefix == vpc.PrefixNetworkInterface, prefix == vpc.PrefixEndpoint:
	case prefix == vpc.PrefixGateway && member == "Source":
	case prefix == vpc.PrefixGateway:
		return "", invalid("Value (%.60s) for parameter %s is invalid. Users' networks take no connections: a gateway can be the source only.", id, member)
	default:
		return "", invalid("Value (%.60s) for parameter %s is invalid. It is a network interface (eni-…), a VPC endpoint (vpce-…) or, as the source, the gateway of a VPC (vgw-…).", id, member)
	}
	return id, nil
}

// checkEnd says whether an end exists.
func checkEnd(r state.Reader, member, id string) (err error) {
	switch prefix, _, _ := strings.Cut(id, "-"); prefix {
	case vpc.PrefixNetworkInterface:
		_, err = get(r, vpc.NetworkInterfaces(), vpc.NetworkInterfaceID(id))
	case vpc.PrefixEndpoint:
		_, err = get(r, vpc.Endpoints(), vpc.EndpointID(id))
	default:
		_, err = VPCOfGateway(r, vpc.GatewayID(id))
	}
	if f, ok := err.(*fault.Error); ok { //nolint:errorlint // get returns it bare
		return fault.New(f.Kind, "", "", member+": "+f.Reason).WithCode(f.Code)
	}
	return err
}

// VPCOfGateway finds the VPC whose gateway carries the users' networks.
func VPCOfGateway(r state.Reader, id vpc.GatewayID) (*vpc.VPC, error) {
	if err := vpc.CheckID(id); err != nil {
		return nil, err
	}
	all, err := vpc.VPCs().List(r, state.Query{})
	if err != nil {
		return nil, err
	}
	for _, v := range all {
		if v.Gateway == id {
			return v, nil
		}
	}
	return nil, vpc.NotFound(id)
}

// DescribeInsightsPaths returns the named paths, or all.
func (s *Service) DescribeInsightsPaths(ctx context.Context, ids []vpc.InsightsPathID) ([]*vpc.InsightsPath, error) {
	return describe(ctx, s.store, vpc.InsightsPaths(), ids)
}

// DeleteInsightsPath removes a path that has no analyses.
func (s *Service) DeleteInsightsPath(ctx context.Context, id vpc.InsightsPathID) error {
	_, err := s.raw.Update(ctx, func(tx state.Tx) error {
		if _, err := get(tx, vpc.InsightsPaths(), id); err != nil {
			return err
		}
		n, err := tx.Count(vpc.KindInsightsAnalysis, state.Key{Name: "path", Value: string(id)})
		if err != nil {
			return err
		}
		if n > 0 {
			return fault.Newf(fault.InUse, "", "", "The network insights path '%s' has analyses and cannot be deleted.", id).WithCode("AnalysisExistsForNetworkInsightsPath")
		}
		return vpc.InsightsPaths().Delete(tx, string(id))
	})
	return err
}

// StartInsightsAnalysis analyses a path in the network as it is stored now. The answer is the analysis as it began; what it
// found is stored when it returns. filterIn and filterOut are ARNs of components.
func (s *Service) StartInsightsAnalysis(ctx context.Context, id vpc.InsightsPathID, filterIn, filterOut []string, tags vpc.Tags, token string) (*vpc.InsightsAnalysis, error) {
	if err := s.checkTags(tags); err != nil {
		return nil, err
	}
	in, err := componentIDs("FilterInArn", filterIn)
	if err != nil {
		return nil, err
	}
	out, err := componentIDs("FilterOutArn", filterOut)
	if err != nil {
		return nil, err
	}
	var path *vpc.InsightsPath
	var then vpc.Resources
	begun, err := state.Write(ctx, s.raw, func(tx state.Tx) (*vpc.InsightsAnalysis, error) {
		path = nil
		request := struct {
			Path    vpc.InsightsPathID
			In, Out []string
			Tags    vpc.Tags
		}{id, filterIn, filterOut, tags}
		return once(s, tx, "StartNetworkInsightsAnalysis", token, request, vpc.InsightsAnalyses(), func() (_ *vpc.InsightsAnalysis, err error) {
			p, err := get(tx, vpc.InsightsPaths(), id)
			if err != nil {
				return nil, err
			}
			n, err := tx.Count(vpc.KindInsightsAnalysis, state.Key{})
			if err != nil {
				return nil, err
			}
			if n >= s.limits.NetworkInsightsAnalyses {
				return nil, limit("NetworkInsightsAnalysisLimitExceeded", "The maximum number of network insights analyses has been reached.")
			}
			if then, err = s.resources(tx); err != nil {
				return nil, err
			}
			path = p
			a := &vpc.InsightsAnalysis{
				ID: newID[vpc.InsightsAnalysisID](vpc.PrefixInsightsAnalysis), OwnerID: s.account, Path: id, FilterIn: filterIn, FilterOut: filterOut,
				Status: vpc.AnalysisRunning, Started: s.now().UTC(), Tags: tags,
			}
			return a, vpc.InsightsAnalyses().Put(tx, a)
		})
	})
	if err != nil || path == nil { // path is nil for a repeat
		return begun, err
	}
	findings, failed := vpc.Analyze(then, path, in, out)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), writeLimit) // nobody else would finish it
	defer cancel()
	_, err = s.raw.Update(ctx, func(tx state.Tx) error {
		a, ok, err := vpc.InsightsAnalyses().Get(tx, string(begun.ID))
		if err != nil || !ok {
			return err // deleted meanwhile
		}
		a.Status, a.Findings = vpc.AnalysisSucceeded, findings
		if failed != nil {
			a.Status, a.Message = vpc.AnalysisFailed, sentence(failed)
		}
		return vpc.InsightsAnalyses().Put(tx, a)
	})
	if err != nil {
		return nil, fmt.Errorf("write the findings of %s: %w", begun.ID, err)
	}
	return begun, nil
}

func sentence(err error) string {
	text := err.Error()
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// componentIDs are the IDs in ARNs.
func componentIDs(member string, arns []string) ([]string, error) {
	out := make([]string, 0, len(arns))
	for _, a := range arns {
		_, id, ok := strings.Cut(a, "/")
		if !strings.HasPrefix(a, "arn:") || !ok || id == "" {
			return nil, invalid("Value (%.200s) for parameter %s is invalid. This is not the ARN of a component.", a, member)
		}
		out = append(out, id)
	}
	return out, nil
}

// DescribeInsightsAnalyses returns the named analyses, or all; of one path when that is named.
func (s *Service) DescribeInsightsAnalyses(ctx context.Context, ids []vpc.InsightsAnalysisID, path vpc.InsightsPathID) ([]*vpc.InsightsAnalysis, error) {
	all, err := describe(ctx, s.store, vpc.InsightsAnalyses(), ids)
	if err != nil || path == "" {
		return all, err
	}
	if _, err := describe(ctx, s.store, vpc.InsightsPaths(), []vpc.InsightsPathID{path}); err != nil {
		return nil, err
	}
	return without(all, func(a *vpc.InsightsAnalysis) bool { return a.Path != path }), nil
}

// DeleteInsightsAnalysis removes an analysis.
func (s *Service) DeleteInsightsAnalysis(ctx context.Context, id vpc.InsightsAnalysisID) error {
	_, err := s.raw.Update(ctx, func(tx state.Tx) error {
		if _, err := get(tx, vpc.InsightsAnalyses(), id); err != nil {
			return err
		}
		return vpc.InsightsAnalyses().Delete(tx, string(id))
	})
	return err
}
