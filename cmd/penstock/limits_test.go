package main

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"penstock.dev/penstock/internal/control/network"
)

func TestLimitsFile(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text, says string
		want             func(*network.Limits)
	}{
		{"nothing", `{}`, "", func(*network.Limits) {}},
		{"some", `{"vpcs": 50, "entriesPerNetworkAcl": 40, "users": 500}`, "", func(l *network.Limits) { l.VPCs, l.EntriesPerNetworkACL, l.Users = 50, 40, 500 }},
		{"unknown", `{"vpc": 50}`, `unknown field "vpc"`, nil},
		{"zero", `{"subnetsPerVpc": 0}`, "subnetsPerVpc is 0; it is at least 1", nil},
		{"too much", `{"entriesPerNetworkAcl": 41}`, "entriesPerNetworkAcl is 41; it is at most 40", nil},
		{"a product too large", `{"groupsPerInterface": 16, "rulesPerGroup": 63}`, "groupsPerInterface times rulesPerGroup is 1008", nil},
		{"no number", `{"vpcs": "five"}`, "cannot unmarshal string", nil},
		{"more than an object", `{} {}`, "more after the object", nil},
		{"not JSON", `vpcs: 5`, "invalid character", nil},
	} {
		path := filepath.Join(t.TempDir(), "limits.json")
		if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := parseDev([]string{"--data-dir", "x", "--limits", path, "--check-config"}, io.Discard)
		if tt.want == nil {
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("%s: got %v, want %s", tt.name, err, tt.says)
			}
			continue
		}
		want := network.DefaultLimits()
		tt.want(&want)
		if err != nil || c.limits.Limits != want {
			t.Errorf("%s: got %+v, %v", tt.name, c.limits.Limits, err)
		}
		// What is printed is a file that says the same.
		var b bytes.Buffer
		if err := c.limits.write(&b); err != nil {
			t.Fatal(err)
		}
		if again, err := network.ReadLimits(&b); err != nil || again != want {
			t.Errorf("%s: printed %+v, %v", tt.name, again, err)
		}
	}
	if _, err := parseDev([]string{"--data-dir", "x", "--limits", "/nonexistent/limits"}, io.Discard); err == nil {
		t.Error("a file that is not there was read")
	}
	var b bytes.Buffer
	if err := (&limitsConfig{}).write(&b); err != nil || !strings.Contains(b.String(), `"vpcs": 5,`) {
		t.Errorf("printed %s, %v", b.String(), err)
	}
}
