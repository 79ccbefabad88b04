package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func serveFileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "penstock.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestServeFileRefusals: each bad value is refused by the path of its key and a reason.
func TestServeFileRefusals(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ text, want string }{
		{`{"datadir": "/x"}`, "datadir: unknown key; there are dataDir, "},
		{`{"tls": {"acme": {"dir": "x"}}}`, "tls.acme.dir: unknown key; there are directory, "},
		{`{"network": {"attachments": [{"kind": "host", "via": 1}]}}`, "network.attachments[0].via: unknown key"},
		{`{"limits": {"vpc": 1}}`, "limits.vpc: unknown key"},
		{`{"api": {"address": "127.0.0.1:1", "address": "127.0.0.1:2"}}`, "api.address: is given twice"},
		{`{"api": "127.0.0.1:1"}`, "api: is a string, wanted an object"},
		{`{"api": {"address": 4580}}`, "api.address: is a number, wanted a string"},
		{`{"flowLogs": {"off": "yes"}}`, "flowLogs.off: is a string, wanted true or false"},
		{`{"audit": {"keep": 1.5}}`, "audit.keep: 1.5 is no whole number"},
		{`{"audit": {"keep": "5"}}`, "audit.keep: is a string, wanted a whole number"},
		{`{"dns": {"upstreams": "192.0.2.1:53"}}`, "dns.upstreams: is a string, wanted a list"},
		{`{"tls": {"acme": {"names": [{}]}}}`, "tls.acme.names[0]: is an object, wanted a string"},
		{`[]`, "the file: is a list, wanted an object"},
		{`null`, "the file: is null, wanted an object"},
		{`{} {}`, "there is more after the object"},
		{`{"api": }`, "is no JSON, at byte"},
		{``, "is no JSON, at byte 0"},
		{`{"region": "eu-west-1"}`, `region: "eu-west-1" is not served by this version`},
		{`{"accountId": "12"}`, `accountId: "12" is not 12 digits`},
		{`{"keyFile": "/nonexistent/key"}`, "keyFile: read the key file: "},
		{`{"api": {"address": "localhost:1"}}`, `api.address: "localhost:1" is not IP:PORT`},
		{`{"public": {"address": "0.0.0.0:8080"}}`, "public.address: 0.0.0.0:8080 is no address to connect to"},
		{`{"public": {"url": "ftp://x"}}`, `public.url: "ftp://x": its scheme must be http`},
		{`{"network": {"driver": "bridge"}}`, `network.driver: "bridge" is not loopback, kernel or rootless`},
		{`{"network": {"driver": "loopback", "attachments": [{"kind": "host"}]}}`, "network.attachments: goes with network.driver kernel"},
		{`{"network": {"attachments": [{"kind": "host"}, {"kind": "bridge"}]}}`, `network.attachments[1]: "bridge" is not host`},
		{`{"network": {"attachments": [{"kind": "host", "networks": ["10.0.0.1/8"]}]}}`, "network.attachments[0]: host: networks: 10.0.0.1/8 has bits"},
		{`{"network": {"attachments": [{"kind": "host", "networks": ["10.0.0.0/8,gateway=1"]}]}}`, "network.attachments[0]: \"10.0.0.0/8,gateway=1\" holds one of"},
		{`{"tls": {"mode": "off"}}`, `tls.mode: "off" is not auto or on`},
		{`{"tls": {"certFile": "/x"}}`, "tls.certFile: tls.certFile and tls.keyFile go together"},
		{`{"tls": {"certFile": "/nonexistent/c", "keyFile": "/nonexistent/k"}}`, "tls.certFile: open /nonexistent/c"},
		{`{"tls": {"minVersion": "1.1"}}`, `tls.minVersion: TLS "1.1" is not 1.2 or 1.3`},
		{`{"tls": {"acme": {"directory": "https://acme.example"}}}`, "tls.acme.directory: needs tls.acme.names"},
		{`{"tls": {"acme": {"names": ["a.example"]}}}`, "tls.acme.names: needs tls.acme.directory"},
		{`{"tls": {"acme": {"httpAddress": "80"}}}`, "tls.acme.httpAddress: "},
		{`{"tls": {"acme": {"caFile": "/nonexistent/ca"}}}`, "tls.acme.caFile: open /nonexistent/ca"},
		{`{"dns": {"address": "53"}}`, "dns.address: "},
		{`{"dns": {"upstreams": ["192.0.2.1:53", "192.0.2.1"]}}`, "dns.upstreams[1]: "},
		{`{"limits": {"vpcs": -1}}`, "limits.vpcs is -1; it is at least 1"},
		{`{"audit": {"fileMiB": 5000}}`, "audit.fileMiB: 5000 is not between 1 and 4096"},
		{`{"audit": {"keep": -1}}`, "audit.keep: -1 is less than 0"},
		{`{"flowLogs": {"interval": "often"}}`, `flowLogs.interval: "often" is not a time such as 90s`},
		{`{"flowLogs": {"interval": "5m"}}`, "flowLogs.interval: 5m0s is not 10m"},
		{`{"flowLogs": {"fileMiB": -1}}`, "flowLogs.fileMiB: -1 is less than 0"},
		{`{"flowLogs": {"totalMiB": 20}}`, "flowLogs.totalMiB: 20 is not at least twice flowLogs.fileMiB 16"},
		{`{"limits": {"users": -5}}`, "limits.users is -5; it is at least 1"},
		{`{"limits": {"users": 100001}}`, "limits.users is 100001; it is at most 100000"},
		{`{"signIn": {"idle": "1s"}}`, "signIn.idle: 1s is not between"},
		{`{"signIn": {"secondFactor": "sms"}}`, `signIn.secondFactor: "sms" is not off, optional or required`},
		{`{"signIn": {"identityProviders": "/nonexistent/idp"}}`, "signIn.identityProviders: "},
		{`{"smtp": {"from": "a@example.com"}}`, "smtp.from: smtp.from, smtp.user, smtp.passwordFile and smtp.caFile go with smtp.address"},
		{`{"smtp": {"address": "mail.example.com"}}`, `smtp: mail server "mail.example.com" is not HOST:PORT`},
		{`{"smtp": {"address": "localhost:25", "from": "a@example.com", "caFile": "/nonexistent/ca"}}`, "smtp.caFile: open /nonexistent/ca"},
		{`{"log": {"level": "loud"}}`, "log.level: "},
		{`{"log": {"format": "xml"}}`, `log.format: "xml" is not text or json`},
	} {
		_, _, err := readServeFile(serveFileOf(t, tt.text))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%s:\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}

// TestServeFileRoundTrip: what --check-config prints is a configuration that says the same.
func TestServeFileRoundTrip(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("correct horse battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{`{}`, `{
		"dataDir": "data", "region": "us-east-1", "accountId": "123456789012", "keyFile": ` + `"` + filepath.Join(dir, "key") + `",
		"api": {"address": "192.0.2.1:4580"}, "public": {"address": "192.0.2.1:443", "url": "https://p.example.com"},
		"network": {"driver": "kernel", "attachments": [{"kind": "host", "networks": ["10.0.0.0/8", "fd00::/8"]},
			{"kind": "macvlan", "name": "eth0", "networks": ["192.168.0.0/16"], "gateway": "192.168.0.1",
			 "nextHops": [{"address": "192.168.0.250", "vpc": "172.31.0.0/16"}]}]},
		"tls": {"mode": "on", "minVersion": "1.2", "acme": {"directory": "https://acme.example/d", "names": ["a.example.com", "b.example.com"]}},
		"dns": {"address": "127.0.0.1:5353", "upstreams": ["192.0.2.53:53"]}, "limits": {"vpcs": 9, "subnetsPerVpc": 0, "users": 7},
		"audit": {"fileMiB": 8, "keep": 3}, "flowLogs": {"off": true, "interval": "10m", "maxAge": "1h"},
		"signIn": {"idle": "30m", "secondFactor": "off"},
		"smtp": {"address": "mail.example.com:587", "from": "p@example.com"}, "log": {"level": "debug", "format": "json"}}`} {
		path := serveFileOf(t, text)
		f, c, err := readServeFile(path)
		if err != nil {
			t.Fatal(err)
		}
		var printed, again bytes.Buffer
		if err := f.write(&printed); err != nil {
			t.Fatal(err)
		}
		f2, c2, err := readServeFile(serveFileOf(t, printed.String()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, printed.String())
		}
		if c.tlsMin.String() != c2.tlsMin.String() {
			t.Errorf("TLS %s, then %s", c.tlsMin.String(), c2.tlsMin.String())
		}
		c.tlsMin, c2.tlsMin = tlsVersion{}, tlsVersion{} // unset and the default are the same
		if err := f2.write(&again); err != nil || printed.String() != again.String() || !reflect.DeepEqual(c, c2) {
			t.Errorf("printed\n%s\nand then (%v)\n%s\n%+v\n%+v", printed.String(), err, again.String(), c, c2)
		}
		if text == `{}` {
			if c.net != netKernel || c.dataDir != "/var/lib/penstock" || c.apiAddr != "127.0.0.1:4580" || !c.flowLogs.on || !c.noDemo || c.limits.VPCs != 5 ||
				c.logLevel != slog.LevelInfo || c.limits.Users != 50 {
				t.Errorf("defaults: %+v", c)
			}
			continue
		}
		if c.dataDir != filepath.Join(filepath.Dir(path), "data") || len(c.attach) != 2 || c.attach[1].LAN == nil || len(c.attach[1].LAN.NextHops) != 1 ||
			c.acme.names[1] != "b.example.com" || c.flowLogs.on || c.flowLogs.interval != 10*time.Minute || c.limits.VPCs != 9 || c.limits.SubnetsPerVPC != 200 || c.limits.Users != 7 ||
			c.signIn.idle != 30*time.Minute || c.accountID != "123456789012" || string(c.key) != "correct horse battery staple" || len(c.upstreams) != 1 {
			t.Errorf("got %+v", c)
		}
	}
}

// TestServeFileHasAllFlags: whatever `dev` can be told, `serve` can be told too.
func TestServeFileHasAllFlags(t *testing.T) {
	t.Parallel()
	keys := map[string]bool{}
	if err := eachSetting(&serveFile{}, func(s setting) error { keys["--"+s.flag] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	var help bytes.Buffer
	_, _ = parseDev([]string{"-h"}, &help)
	n := 0
	for line := range strings.Lines(help.String()) {
		name, ok := strings.CutPrefix(line, "  -")
		if !ok {
			continue
		}
		n++
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		switch name {
		case "attach", "limits", "no-demo", "check-config": // have a form of their own
		case "profile": // finds what is slow, for developers
		default:
			if !keys["--"+name] {
				t.Errorf("--%s has no key", name)
			}
		}
	}
	if n < 30 {
		t.Errorf("found %d flags", n)
	}
}

// TestServeSample: the sample that is shipped is a configuration.
func TestServeSample(t *testing.T) {
	t.Parallel()
	if _, c, err := readServeFile(filepath.Join("..", "..", "deploy", "penstock.json")); err != nil || c.net != netKernel {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestAccountIDStays(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if id, err := loadIdentity(dir, nil, "123456789012"); err != nil || id.AccountID != "123456789012" {
		t.Fatalf("%+v, %v", id, err)
	}
	if _, err := loadIdentity(dir, nil, "210987654321"); err == nil || !strings.Contains(err.Error(), "of account 123456789012") {
		t.Errorf("another account: %v", err)
	}
	if _, err := loadIdentity(dir, nil, ""); err != nil {
		t.Error(err)
	}
}

func TestNotifyReady(t *testing.T) { // sets the environment
	path := filepath.Join(t.TempDir(), "notify")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	t.Setenv("NOTIFY_SOCKET", path)
	if err := notifyReady(); err != nil {
		t.Fatal(err)
	}
	_ = l.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 100)
	if n, err := l.Read(b); err != nil || string(b[:n]) != "READY=1" {
		t.Errorf("got %q, %v", b[:n], err)
	}
	t.Setenv("NOTIFY_SOCKET", "")
	if err := notifyReady(); err != nil {
		t.Error(err)
	}
}
