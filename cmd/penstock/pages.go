package main

import (
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/netip"

	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
)

// consolePage says where the console's functions are until it is served.
func consolePage(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	fmt.Fprint(w, `<!doctype html><html lang="en"><meta charset="utf-8"><title>Penstock console</title>`+
		`<body style="font:16px system-ui;max-width:40rem;margin:4rem auto;padding:0 1rem"><h1>Console</h1>`+
		`<p>This version has no web console. Everything it would show is in the API: use the AWS CLI, an SDK or Terraform `+
		`with the endpoint URL and the credential files that <code>penstock dev</code> printed.</p></body></html>`)
}

var preflightPage = template.Must(template.New("preflight").Parse(`<!doctype html><html lang="en"><meta charset="utf-8"><title>Preflight</title>
<body style="font:16px system-ui;max-width:60rem;margin:3rem auto;padding:0 1rem"><h1>Preflight</h1>
<p>You come from {{.source}}. This is what the rules say about streaming from there.</p>
{{range .endpoints}}<h2>{{.ID}}</h2><table style="border-collapse:collapse" cellpadding="6">
<tr><th align="left">address</th><th align="left">port</th><th align="left">carries</th><th align="left">answer</th><th align="left">because</th></tr>
{{range .Addresses}}{{$a := .}}{{range .Ports}}<tr><td>{{$a.Private}}<br><small>dialled at {{$a.Dial}}</small></td><td>{{.Port}}</td><td>{{.Carries}}</td>
<td>{{if .OK}}admitted{{else}}<b>refused</b>{{end}}</td><td>{{.Why}}{{with .Fix}}<br>To change that: {{.}}.{{end}}</td></tr>{{end}}{{end}}
</table>{{else}}<p>There is no endpoint.</p>{{end}}</body></html>`))

// preflightEndpoint is what the rules say about one endpoint.
type preflightEndpoint struct {
	ID        vpc.EndpointID     `json:"id"`
	Addresses []preflightAddress `json:"addresses"`
}

type preflightAddress struct {
	SubnetID vpc.SubnetID    `json:"subnetId"`
	Private  netip.Addr      `json:"private"`
	Dial     netip.Addr      `json:"dial"`
	Ports    []preflightPort `json:"ports"`
}

type preflightPort struct {
	Port    uint16      `json:"port"`
	Carries string      `json:"carries"`
	OK      bool        `json:"ok"`
	Symptom vpc.Symptom `json:"symptom"`
	Why     string      `json:"why"`
	Fix     string      `json:"fix,omitempty"`
}

// preflight shows whether the rules admit the visitor's address to each endpoint; ?format=json for scripts.
func (r *region) preflight(w http.ResponseWriter, req *http.Request) {
	remote, err := netip.ParseAddrPort(req.RemoteAddr)
	if err != nil {
		http.Error(w, "source address unknown", http.StatusInternalServerError)
		return
	}
	from := func(to netip.Addr) netip.AddrPort {
		return netip.AddrPortFrom(r.userSource(remote.Addr(), to), remote.Port())
	}
	endpoints := []preflightEndpoint{}
	err = r.store.View(req.Context(), func(rd state.Reader) error {
		es, err := vpc.Endpoints().List(rd, state.Query{})
		if err != nil {
			return err
		}
		for _, e := range es {
			as, err := r.network.EndpointAddresses(rd, e.ID)
			if err != nil {
				return err
			}
			pe := preflightEndpoint{ID: e.ID, Addresses: []preflightAddress{}}
			for _, a := range as {
				pe.Addresses = append(pe.Addresses, preflightAddress{a.Subnet, a.Private, a.Dial.Addr(), r.preflightPorts(e.VPC, from(a.Private), a.Private)})
			}
			endpoints = append(endpoints, pe)
		}
		return nil
	})
	if err != nil {
		r.log.Error("preflight failed", "error", err)
		http.Error(w, "preflight failed", http.StatusInternalServerError)
		return
	}
	answer := map[string]any{"source": from(netip.Addr{}).Addr(), "endpoints": endpoints}
	w.Header().Set("Cache-Control", "no-store")
	if req.URL.Query().Get("format") == "json" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(answer)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = preflightPage.Execute(w, answer)
}

// preflightPorts asks about port 443 and about both ends of the range of channels.
func (r *region) preflightPorts(id vpc.VPCID, src netip.AddrPort, dst netip.Addr) []preflightPort {
	var out []preflightPort
	snapshot := r.network.Snapshot()
	for _, p := range []preflightPort{
		{Port: 443, Carries: "page, control, input"}, {Port: 1400, Carries: "first of the other channels"}, {Port: 1499, Carries: "last of the other channels"},
	} {
		v := snapshot.Explain(vpc.Flow{VPC: id, Protocol: vpc.TCP, Src: src, Dst: netip.AddrPortFrom(dst, p.Port)})
		p.OK, p.Symptom, p.Why = v.OK, v.Symptom, "every rule on the way admits it"
		if h := v.Blocked(); h != nil {
			p.Why, p.Fix = h.Resource+": "+h.Why, h.Fix
		}
		out = append(out, p)
	}
	return out
}
