package main

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"penstock.dev/penstock/internal/certs"
	"penstock.dev/penstock/internal/vpc"
)

// openAuthority is the private certificate authority of a data directory; it is made at first use. Its root can vouch for the
// names of endpoints, for this machine, and for addresses of private networks; for nothing else.
func openAuthority(dataDir string) (*certs.Authority, error) {
	c := certs.Constraints{Names: []string{"localhost"}}
	for _, s := range vpc.Services(devRegion) {
		c.Names = append(c.Names, s.BaseDNSName)
		for _, n := range s.PrivateNames {
			c.Names = append(c.Names, strings.TrimPrefix(n, "*."))
		}
	}
	for _, r := range []string{"127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "169.254.0.0/16", "fc00::/7"} {
		c.Ranges = append(c.Ranges, netip.MustParsePrefix(r))
	}
	return certs.OpenAuthority(filepath.Join(dataDir, "ca"), c)
}

// openTLS makes the configuration of the endpoints' listeners, which is that of all others too where they are secure; nil: nothing
// is encrypted.
func (r *region) openTLS() (*tls.Config, error) {
	if !r.config.secureEndpoints() {
		return nil, nil //nolint:nilnil // no configuration is what servers take for plain HTTP
	}
	authority, err := openAuthority(r.config.dataDir)
	if err != nil {
		return nil, err
	}
	o := certs.Options{Authority: authority, MinVersion: r.config.tlsMin.version, Known: r.knownName, Log: r.log.With("part", "certs")}
	if r.config.tlsCert != "" {
		o.Chains = []certs.ChainFiles{{Cert: r.config.tlsCert, Key: r.config.tlsKey}}
	}
	if r.acme != nil {
		o.Kept = append(o.Kept, r.acme)
	}
	source, err := certs.New(o)
	if err != nil {
		return nil, err
	}
	r.authority, r.certs = authority, source
	return source.Config(), nil
}

// ownName says whether the operator's chain, or ACME, is for a host: who has a certificate for a name means it to be served.
func (r *region) ownName(host string) bool { return r.certs != nil && r.certs.Serves(host) }

// url is where an address is served.
func (r *region) url(addr string) string {
	if r.config.secure() {
		return "https://" + addr
	}
	return "http://" + addr
}

// publicTLS is the configuration of the API's and the portal's listeners; nil: they are plain.
func (r *region) publicTLS() *tls.Config {
	if r.config.secure() {
		return r.tls
	}
	return nil
}

// secureEndpoints says whether endpoints speak TLS: also where only they are away from loopback. Browsers follow the portal's plain
// page to them, since that is a navigation and loopback is as trusted as TLS.
func (c serverConfig) secureEndpoints() bool { return c.secure() || c.net == netKernel }

// secure says whether all listeners speak TLS.
func (c serverConfig) secure() bool {
	if c.tls == tlsOn || c.tlsCert != "" || c.acme.used() {
		return true
	}
	for _, a := range []string{c.apiAddr, c.publicAddr} {
		if p, err := netip.ParseAddrPort(a); err == nil && !p.Addr().IsLoopback() {
			return true
		}
	}
	return false
}

// The values of --tls.
const (
	tlsAuto = "auto"
	tlsOn   = "on"
)

// tlsVersion is a flag: the oldest version of TLS that is spoken.
type tlsVersion struct{ version uint16 }

// String is "1.2" or "1.3".
func (v *tlsVersion) String() string {
	if v.version == tls.VersionTLS12 {
		return "1.2"
	}
	return "1.3"
}

// Set reads what String writes.
func (v *tlsVersion) Set(s string) error {
	switch s {
	case "1.2":
		v.version = tls.VersionTLS12
	case "1.3":
		v.version = tls.VersionTLS13
	default:
		return fmt.Errorf("TLS %q is not 1.2 or 1.3", s)
	}
	return nil
}
