package gateway

import (
	"net/http"
	"strings"
	"testing"
)

// TestPolicyOfIPv6Literals: no policy can name an IPv6 address, so pages of one may connect to all hosts of their scheme.
func TestPolicyOfIPv6Literals(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"[fd00::2]": "connect-src 'self' ws: ws://127.80.2.10:*", "[fd00::2]:8443": "connect-src 'self' ws: ws://127.80.2.10:*",
		"127.80.1.10": "connect-src 'self' ws://127.80.1.10:* ws://127.80.2.10:*",
	} {
		h := http.Header{}
		setHeaders(h, &http.Request{Host: host}, []string{"127.80.2.10", "[fd00::2]", "[fd00::3]"})
		if csp := h.Get("Content-Security-Policy"); !strings.HasSuffix(csp, want) {
			t.Errorf("%s: %q, want it to end in %q", host, csp, want)
		}
	}
}
