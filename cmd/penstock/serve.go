package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"time"

	"penstock.dev/penstock/internal/control/network"
	"penstock.dev/penstock/internal/federation"
)

// serveFile is the configuration of `penstock serve`, a JSON object; docs/operations.md lists the keys. A key's `flag` is the flag of
// `penstock dev` that it stands for, and has its meaning, checks and default ("!" inverts it); ",path" marks files, which are relative to
// the configuration's folder. A zero value is the default.
type serveFile struct {
	DataDir   string         `json:"dataDir" flag:"data-dir,path"`
	Region    string         `json:"region"`
	AccountID string         `json:"accountId"`
	KeyFile   string         `json:"keyFile" flag:"key-file,path"`
	XServer   string         `json:"xServer" flag:"x-server"`
	API       serveAPI       `json:"api"`
	Public    servePublic    `json:"public"`
	Network   serveNetwork   `json:"network"`
	TLS       serveTLS       `json:"tls"`
	DNS       serveDNS       `json:"dns"`
	Limits    network.Limits `json:"limits"`
	Audit     serveAudit     `json:"audit"`
	FlowLogs  serveFlowLogs  `json:"flowLogs"`
	SignIn    serveSignIn    `json:"signIn"`
	SMTP      serveSMTP      `json:"smtp"`
	Log       serveLog       `json:"log"`
}

type serveAPI struct {
	Address string `json:"address" flag:"api-addr"`
}

type servePublic struct {
	Address string `json:"address" flag:"public-addr"`
	URL     string `json:"url" flag:"public-url"`
}

type serveNetwork struct {
	Driver      string            `json:"driver" flag:"net"`
	Attachments []serveAttachment `json:"attachments"`
}

// serveAttachment is one --attach.
type serveAttachment struct {
	Kind      string         `json:"kind"` // host, netns or macvlan
	Name      string         `json:"name,omitempty"`
	Networks  []string       `json:"networks,omitempty"`
	Addresses []string       `json:"addresses,omitempty"`
	Gateway   string         `json:"gateway,omitempty"`
	NextHops  []serveNextHop `json:"nextHops,omitempty"`
}

type serveNextHop struct {
	Address string `json:"address"`
	VPC     string `json:"vpc"` // its CIDR
}

type serveTLS struct {
	Mode       string    `json:"mode" flag:"tls"`
	CertFile   string    `json:"certFile" flag:"tls-cert,path"`
	KeyFile    string    `json:"keyFile" flag:"tls-key,path"`
	MinVersion string    `json:"minVersion" flag:"tls-min"`
	ACME       serveACME `json:"acme"`
}

type serveACME struct {
	Directory   string   `json:"directory" flag:"acme-directory"`
	Names       []string `json:"names,omitempty" flag:"acme-name"`
	Challenge   string   `json:"challenge" flag:"acme-challenge"`
	HTTPAddress string   `json:"httpAddress" flag:"acme-http-addr"`
	DNSZone     string   `json:"dnsZone" flag:"acme-dns-zone"`
	Email       string   `json:"email" flag:"acme-email"`
	CAFile      string   `json:"caFile" flag:"acme-ca,path"`
	EABKeyID    string   `json:"eabKeyId" flag:"acme-eab-kid"`
	EABKeyFile  string   `json:"eabKeyFile" flag:"acme-eab-key,path"`
}

type serveDNS struct {
	Address   string   `json:"address" flag:"dns-addr"`
	Upstreams []string `json:"upstreams,omitempty" flag:"dns-upstream"`
}

type serveAudit struct {
	FileMiB int `json:"fileMiB" flag:"audit-file-size"`
	Keep    int `json:"keep" flag:"audit-keep"`
}

type serveFlowLogs struct {
	Off      bool   `json:"off" flag:"!flow-logs"`
	Interval string `json:"interval" flag:"flow-log-interval"`
	FileMiB  int    `json:"fileMiB" flag:"flow-log-file-mib"`
	TotalMiB int    `json:"totalMiB" flag:"flow-log-total-mib"`
	MaxAge   string `json:"maxAge" flag:"flow-log-age"`
}

type serveSignIn struct {
	Idle              string `json:"idle" flag:"sign-in-idle"`
	Life              string `json:"life" flag:"sign-in-life"`
	SecondFactor      string `json:"secondFactor" flag:"second-factor"`
	IdentityProviders string `json:"identityProviders" flag:"identity-providers,path"`
}

type serveSMTP struct {
	Address      string `json:"address" flag:"smtp-addr"`
	Security     string `json:"security" flag:"smtp-security"`
	From         string `json:"from" flag:"smtp-from"`
	User         string `json:"user" flag:"smtp-user"`
	PasswordFile string `json:"passwordFile" flag:"smtp-password-file,path"`
	CAFile       string `json:"caFile" flag:"smtp-ca-file,path"`
}

type serveLog struct {
	Level  string `json:"level" flag:"log-level"`
	Format string `json:"format"` // text or json
}

// What `serve` has instead of the defaults of `dev`.
var serveDefaults = map[string]string{"data-dir": "/var/lib/penstock", "net": netKernel, "log-level": "info"}

const maxServeFile = 1 << 20

func serveCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("penstock serve", flag.ContinueOnError)
	path := fs.String("config", "", "`file` with the configuration, a JSON object (docs/operations.md)")
	only := fs.Bool("check-config", false, "check the configuration and the files that it names, print it with all defaults and exit")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if *path == "" {
		return errors.New("--config names no file")
	}
	f, c, err := readServeFile(*path)
	if err != nil {
		return fmt.Errorf("%s: %w", *path, err)
	}
	if *only {
		return f.write(os.Stdout)
	}
	options := &slog.HandlerOptions{Level: c.logLevel}
	var handler slog.Handler = slog.NewTextHandler(os.Stderr, options)
	if f.Log.Format == "json" {
		handler = slog.NewJSONHandler(os.Stderr, options)
	}
	return byKeys(c.serve(ctx, args, slog.New(handler)))
}

// readServeFile reads and checks a configuration, and returns it with all defaults filled in. Errors begin with the key that is wrong.
func readServeFile(path string) (serveFile, serverConfig, error) {
	var f serveFile
	c := serverConfig{command: "serve", noDemo: true}
	in, err := os.Open(path)
	if err != nil {
		return f, c, err
	}
	defer func() { _ = in.Close() }()
	text, err := io.ReadAll(io.LimitReader(in, maxServeFile+1))
	if err != nil {
		return f, c, err
	}
	if len(text) > maxServeFile {
		return f, c, fmt.Errorf("is larger than %d bytes", maxServeFile)
	}
	if err := decodeStrictly(text, &f); err != nil {
		return f, c, err
	}
	dir, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return f, c, err
	}
	err = f.configure(&c, dir)
	return f, c, err
}

// configure carries the file into the configuration, and defaults into the file.
func (f *serveFile) configure(c *serverConfig, dir string) error {
	fs := flag.NewFlagSet("", flag.ContinueOnError)
	c.flags(fs)
	for name, value := range serveDefaults {
		if err := fs.Set(name, value); err != nil {
			return err
		}
	}
	if err := eachSetting(f, func(s setting) error { return s.apply(fs, dir) }); err != nil {
		return err
	}
	for i, a := range f.Network.Attachments {
		text, err := a.flag()
		if err == nil {
			err = fs.Set("attach", text)
		}
		if err != nil {
			return fmt.Errorf("network.attachments[%d]: %w", i, err)
		}
	}
	var err error
	if c.limits.Limits, err = givenLimits(f.Limits); err != nil {
		return fmt.Errorf("limits.%w", err)
	}
	f.Limits = c.limits.Limits
	f.Region = cmp.Or(f.Region, devRegion)
	if f.Region != devRegion {
		return fmt.Errorf("region: %q is not served by this version, which has %s alone", f.Region, devRegion)
	}
	if f.AccountID != "" && !regexp.MustCompile(`^[0-9]{12}$`).MatchString(f.AccountID) {
		return fmt.Errorf("accountId: %q is not 12 digits", f.AccountID)
	}
	c.accountID = f.AccountID
	f.Log.Format = cmp.Or(f.Log.Format, "text")
	if f.Log.Format != "text" && f.Log.Format != "json" {
		return fmt.Errorf("log.format: %q is not text or json", f.Log.Format)
	}
	if err := byKeys(c.check()); err != nil {
		return err
	}
	return byKeys(c.checkFiles())
}

// checkFiles reads the files that the start would read, so that --check-config finds what is wrong with them.
func (c *serverConfig) checkFiles() error {
	if c.tlsCert != "" {
		if _, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey); err != nil {
			return fmt.Errorf("--tls-cert: %w", err)
		}
	}
	if _, err := c.acme.options(c.dataDir); err != nil {
		return err
	}
	for _, f := range []struct{ flag, path string }{
		{"--smtp-password-file", c.signIn.smtp.PasswordFile}, {"--smtp-ca-file", c.signIn.smtp.CAFile},
	} {
		if f.path == "" {
			continue
		}
		if _, err := os.ReadFile(f.path); err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
	}
	if c.signIn.providers != "" {
		if _, err := federation.Load(c.signIn.providers); err != nil {
			return fmt.Errorf("--identity-providers: %w", err)
		}
	}
	return nil
}

// write writes the configuration in the form of its file.
func (f *serveFile) write(out io.Writer) error {
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(f)
}

// givenLimits are limits with defaults in the place of zeros. Its error begins with the key.
func givenLimits(l network.Limits) (network.Limits, error) {
	given := map[string]int64{}
	for f, v := range reflect.ValueOf(l).Fields() {
		if !v.IsZero() {
			given[f.Tag.Get("json")] = v.Int()
		}
	}
	b, err := json.Marshal(given)
	if err != nil {
		return l, err
	}
	return network.ReadLimits(bytes.NewReader(b))
}

// flag is the attachment in the form of --attach.
func (a serveAttachment) flag() (string, error) {
	for _, s := range slices.Concat([]string{a.Name, a.Gateway}, a.Networks, a.Addresses) {
		if strings.ContainsAny(s, ",+=@") {
			return "", fmt.Errorf("%q holds one of , + = and @", s)
		}
	}
	members := []string{a.Kind}
	if a.Name != "" {
		members[0] += "=" + a.Name
	}
	hops := make([]string, len(a.NextHops))
	for i, h := range a.NextHops {
		hops[i] = h.Address + "@" + h.VPC
	}
	for _, m := range []struct {
		key    string
		values []string
	}{{"networks", a.Networks}, {"addresses", a.Addresses}, {"nexthops", hops}} {
		if len(m.values) > 0 {
			members = append(members, m.key+"="+strings.Join(m.values, "+"))
		}
	}
	if a.Gateway != "" {
		members = append(members, "gateway="+a.Gateway)
	}
	return strings.Join(members, ","), nil
}

// setting is a key that stands for a flag.
type setting struct {
	key, flag      string
	inverted, path bool
	value          reflect.Value
}

// eachSetting walks the keys that stand for flags.
func eachSetting(f *serveFile, do func(setting) error) error {
	return walkSettings("", reflect.ValueOf(f).Elem(), do)
}

func walkSettings(prefix string, v reflect.Value, do func(setting) error) error {
	for field, member := range v.Fields() {
		key := prefix + keyOf(field)
		name, named := field.Tag.Lookup("flag")
		var err error
		switch {
		case named:
			s := setting{key: key, value: member}
			name, s.path = strings.CutSuffix(name, ",path")
			s.flag, s.inverted = strings.CutPrefix(name, "!")
			err = do(s)
		case member.Kind() == reflect.Struct:
			err = walkSettings(key+".", member, do)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// apply sets the flag to what the file says, or else the file's value to that of the flag.
func (s setting) apply(fs *flag.FlagSet, dir string) error {
	f := fs.Lookup(s.flag)
	if s.value.Kind() == reflect.Slice {
		for i := range s.value.Len() {
			if err := fs.Set(s.flag, s.value.Index(i).String()); err != nil {
				return fmt.Errorf("%s[%d]: %w", s.key, i, err)
			}
		}
		return nil
	}
	if s.path && !s.value.IsZero() && !filepath.IsAbs(s.value.String()) {
		s.value.SetString(filepath.Join(dir, s.value.String()))
	}
	if !s.value.IsZero() {
		text := fmt.Sprint(s.value)
		if s.inverted {
			text = fmt.Sprint(!s.value.Bool())
		}
		if err := fs.Set(s.flag, text); err != nil {
			return fmt.Errorf("%s: %w", s.key, s.reason(f, text, err))
		}
	}
	if s.value.Kind() == reflect.Bool {
		return nil
	}
	return decodeText(f.Value.String(), s.value)
}

// reason says what a value should have been where the flag package does not.
func (s setting) reason(f *flag.Flag, text string, err error) error {
	g, ok := f.Value.(flag.Getter)
	if !ok {
		return err
	}
	switch g.Get().(type) {
	case time.Duration:
		return fmt.Errorf("%q is not a time such as 90s, 15m or 24h", text)
	case uint:
		return fmt.Errorf("%s is less than 0", text)
	}
	return err
}

func decodeText(text string, into reflect.Value) error {
	if into.Kind() == reflect.String {
		into.SetString(text)
		return nil
	}
	return json.Unmarshal([]byte(text), into.Addr().Interface())
}

func keyOf(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

var flagInText = regexp.MustCompile(`--[a-z]+(-[a-z]+)*(-…)?`)

// keyedError is an error about flags, told by the keys that stand for them.
type keyedError struct {
	error
	text string
}

// Error names keys.
func (e keyedError) Error() string { return e.text }

// Unwrap is the error that names flags.
func (e keyedError) Unwrap() error { return e.error }

// byKeys names the keys of the file where an error names flags.
func byKeys(err error) error {
	if err == nil {
		return nil
	}
	keys := map[string]string{"--smtp-…": "smtp", "--attach": "network.attachments"}
	_ = eachSetting(&serveFile{}, func(s setting) error {
		keys["--"+s.flag] = s.key
		return nil
	})
	text := flagInText.ReplaceAllStringFunc(err.Error(), func(name string) string { return cmp.Or(keys[name], name) })
	first := flagInText.FindString(err.Error())
	if key := keys[first]; strings.HasPrefix(err.Error(), first) && !strings.HasPrefix(text, key+":") {
		rest := strings.TrimPrefix(text, key+" ") // "--net x is not …" has the name once, "--a and --b go together" twice
		if strings.HasPrefix(rest, "and ") || rest == text {
			rest = text
		}
		text = key + ": " + rest
	}
	return keyedError{err, text}
}

// decodeStrictly reads a JSON object into a struct. Keys are as they are spelt and occur once; an error begins with the path of its key.
func decodeStrictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	tree, err := readTree(d, "")
	if err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more after the object")
	}
	return assign("", reflect.ValueOf(into).Elem(), tree)
}

// readTree reads one JSON value.
func readTree(d *json.Decoder, path string) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("is no JSON, at byte %d: %w", d.InputOffset(), err)
	}
	switch t {
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := readTree(d, fmt.Sprintf("%s[%d]", path, len(list)))
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, jsonError(d, err)
	case json.Delim('{'):
		object := map[string]any{}
		for d.More() {
			k, err := d.Token()
			key, ok := k.(string)
			if err != nil || !ok {
				return nil, jsonError(d, cmp.Or(err, errors.New("a key is wanted")))
			}
			at := join(path, key)
			if _, twice := object[key]; twice {
				return nil, fmt.Errorf("%s: is given twice", at)
			}
			if object[key], err = readTree(d, at); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return object, jsonError(d, err)
	}
	return t, nil
}

func jsonError(d *json.Decoder, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("is no JSON, at byte %d: %w", d.InputOffset(), err)
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// assign sets a value of a struct, or any part of it, to a JSON value. null leaves it as it is.
func assign(path string, into reflect.Value, tree any) error {
	if tree == nil && path != "" {
		return nil
	}
	wrong := func(want string) error {
		return fmt.Errorf("%s: is %s, wanted %s", cmp.Or(path, "the file"), kindOf(tree), want)
	}
	switch into.Kind() {
	case reflect.Struct:
		object, ok := tree.(map[string]any)
		if !ok {
			return wrong("an object")
		}
		fields, known := map[string]reflect.Value{}, []string(nil)
		for f, v := range into.Fields() {
			fields[keyOf(f)] = v
			known = append(known, keyOf(f))
		}
		for _, key := range slices.Sorted(maps.Keys(object)) {
			if _, ok := fields[key]; !ok {
				return fmt.Errorf("%s: unknown key; there are %s", join(path, key), strings.Join(known, ", "))
			}
			if err := assign(join(path, key), fields[key], object[key]); err != nil {
				return err
			}
		}
	case reflect.Slice:
		list, ok := tree.([]any)
		if !ok {
			return wrong("a list")
		}
		into.Set(reflect.MakeSlice(into.Type(), len(list), len(list)))
		for i, v := range list {
			if err := assign(fmt.Sprintf("%s[%d]", path, i), into.Index(i), v); err != nil {
				return err
			}
		}
	case reflect.String:
		s, ok := tree.(string)
		if !ok {
			return wrong("a string")
		}
		into.SetString(s)
	case reflect.Bool:
		b, ok := tree.(bool)
		if !ok {
			return wrong("true or false")
		}
		into.SetBool(b)
	default: // whole numbers are all that is left
		number, ok := tree.(json.Number)
		if !ok {
			return wrong("a whole number")
		}
		n, err := number.Int64()
		if err != nil || into.OverflowInt(n) {
			return fmt.Errorf("%s: %s is no whole number in range", path, number)
		}
		into.SetInt(n)
	}
	return nil
}

func kindOf(tree any) string {
	switch tree.(type) {
	case map[string]any:
		return "an object"
	case []any:
		return "a list"
	case string:
		return "a string"
	case bool:
		return "true or false"
	case json.Number:
		return "a number"
	}
	return "null"
}

// notifyReady tells a service manager that asked for it (sd_notify(3)) that the server serves.
func notifyReady() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return err
	}
	_, err = c.Write([]byte("READY=1"))
	return errors.Join(err, c.Close())
}
