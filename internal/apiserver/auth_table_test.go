package apiserver

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
	"penstock.dev/penstock/internal/control/access"
	"penstock.dev/penstock/internal/control/signin"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/state"
	"penstock.dev/penstock/internal/vpc"
	"penstock.dev/penstock/internal/wire/ec2api"
)

// authWorld is a front door with one of each resource, all of them with the tag team=blue, and a user whose policies the tests write.
type authWorld struct {
	*ec2World
	ann  iam.Credential
	arns map[string]string // by type, of AppStream and IAM
	// tied are the subnets of associations, and zones those of subnets.
	tied  map[string]string
	zones map[string]vpc.Zone
}

func newAuthWorld(t *testing.T) *authWorld {
	t.Helper()
	ec := newEC2World(t)
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	tags := map[string]string{"team": "blue"}
	var taggable []string
	for prefix, id := range ec.have {
		if !slices.Contains([]string{"aclassoc", "rtbassoc", "vpc-cidr-assoc", "vgw", "dopt"}, prefix) {
			taggable = append(taggable, id)
		}
	}
	must(ec.options.Network.CreateTags(ctx, taggable, tags))
	subnets, err := ec.options.Network.DescribeSubnets(ctx, nil)
	must(err)
	a := ec.options.Access
	_, err = a.Create(ctx, access.Entity{Kind: access.User, Name: "bob", Path: "/team/", Tags: tags, Boundary: "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess"})
	must(err)
	key, _, err := a.CreateKey(ctx, "bob")
	must(err)
	_, err = a.Create(ctx, access.Entity{Kind: access.Role, Name: "ops", Path: "/team/", Tags: tags, Boundary: "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess", Trust: trustAccount})
	must(err)
	p, err := a.CreatePolicy(ctx, access.Managed{Name: "p", Path: "/team/", Tags: tags}, `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"*","Resource":"*"}}`)
	must(err)
	store := ec.store
	_, err = store.Update(ctx, func(tx state.Tx) error {
		return errors.Join(
			appstream.Stacks.Put(tx, &appstream.Stack{Name: "s", Tags: tags}), appstream.Fleets.Put(tx, &appstream.Fleet{Name: "f", Tags: tags}),
			appstream.Builders.Put(tx, &appstream.Builder{Kind: appstream.ImageBuilder, Name: "b", Tags: tags}),
			appstream.Builders.Put(tx, &appstream.Builder{Kind: appstream.AppBlockBuilder, Name: "a", Tags: tags}),
			appstream.AppBlocks.Put(tx, &appstream.AppBlock{Name: "k", Tags: tags}),
		)
	})
	must(err)
	s, err := New(Options{
		AccountID: account, Region: region, Credentials: a, Access: a, Network: ec.options.Network, Users: new(signin.Service),
		Control: control.New(control.Options{Store: store, Region: region, Account: account}), Now: func() time.Time { return now },
	})
	must(err)
	ec.Server = s
	ann, err := a.Lookup(ctx, ec.nobody.AccessKeyID)
	must(err)
	w := &authWorld{ec2World: ec, ann: ann, arns: map[string]string{
		"stack": asARN("stack", "s"), "fleet": asARN("fleet", "f"), "image": asARN("image", "i"),
		"image-builder": asARN("image-builder", "b"), "app-block-builder": asARN("app-block-builder", "a"), "app-block": asARN("app-block", "k"), "user": "arn:aws:iam::" + account + ":user/team/bob",
		"role": "arn:aws:iam::" + account + ":role/team/ops", "policy": p.ARN(account), "key": key.ID,
	}}
	w.tied = map[string]string{}
	for _, association := range []string{"rtbassoc", "aclassoc"} {
		ends, err := ec.options.Network.Associated(ctx, ec.have[association])
		must(err)
		w.tied[ec.have[association]] = ends[1]
		must(ec.options.Network.CreateTags(ctx, ends[1:], tags))
	}
	w.zones = map[string]vpc.Zone{}
	for _, n := range subnets {
		for _, z := range vpc.Zones(region) {
			if z.Name == n.Zone {
				w.zones[string(n.ID)] = z
			}
		}
	}
	return w
}

const trustAccount = `{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"` + account + `"},"Action":"sts:AssumeRole"}}`

func asARN(kind, name string) string {
	return "arn:aws:appstream:" + region + ":" + account + ":" + kind + "/" + name
}

// place is what one member of an input says, and the resource that policies then have to be asked about.
type place struct{ value, arn string }

// places are what can be in a member that names a target.
func (w *authWorld) places(s service, operation string, t *target, member string) []place {
	ec := func(kind, id string) place {
		return place{id, "arn:aws:ec2:" + region + ":" + account + ":" + kind + "/" + id}
	}
	prefixes := map[string]string{}
	for prefix, kind := range ec2Prefixes {
		prefixes[kind] = prefix
	}
	switch {
	case s == ec2 && member == "AssociationId":
		id := w.have["rtbassoc"]
		switch {
		case operation == "ReplaceNetworkAclAssociation":
			id = w.have["aclassoc"]
		case operation == "DisassociateVpcCidrBlock":
			id = w.have["vpc-cidr-assoc"]
		}
		tied := w.have[prefixes[t.kind]]
		if t.kind == "subnet" {
			tied = w.tied[id]
		}
		return []place{{id, ec(t.kind, tied).arn}}
	case s == ec2 && member == "GroupName":
		return []place{{"g", ec("security-group", w.have["sg"]).arn}}
	case s == ec2 && member == "GatewayId":
		return []place{ec("vpn-gateway", w.have["vgw"]), ec("internet-gateway", "igw-0123456789abcdef0")}
	case s == ec2 && strings.HasSuffix(member, "IpamPoolId"):
		const id = "ipam-pool-0123456789abcdef0"
		return []place{{id, "arn:aws:ec2::" + account + ":ipam-pool/" + id}}
	case s == ec2 && strings.HasSuffix(member, "Pool"):
		return []place{ec(t.kind, t.kind+"-0123456789abcdef0")}
	case s == ec2 && member == "Source":
		eni := ec("network-interface", w.have["eni"])
		return []place{eni, {eni.arn, eni.arn}, ec("vpn-gateway", w.have["vgw"])}
	case s == ec2 && member == "Destination":
		return []place{ec("vpc-endpoint", w.have["vpce"]), ec("internet-gateway", "igw-0123456789abcdef0")}
	case s == ec2 && member == "Resources":
		var out []place
		for _, prefix := range []string{"vpc", "subnet", "sg", "sgr", "acl", "rtb", "vpce", "eni", "pl", "nip", "nia", "dopt"} {
			out = append(out, ec(ec2Prefixes[prefix], w.have[prefix]))
		}
		return out
	case s == ec2:
		return []place{ec(t.kind, w.have[prefixes[t.kind]])}
	case member == "ResourceArn":
		return []place{
			{w.arns["stack"], w.arns["stack"]},
			{w.arns["fleet"], w.arns["fleet"]},
			{w.arns["image"], w.arns["image"]},
			{w.arns["image-builder"], w.arns["image-builder"]},
			{w.arns["app-block-builder"], w.arns["app-block-builder"]},
			{w.arns["app-block"], w.arns["app-block"]},
		}
	case member == "ImageArn":
		return []place{{w.arns["image"], w.arns["image"]}}
	case member == "PolicySourceArn":
		return []place{{w.arns["user"], w.arns["user"]}, {w.arns["role"], w.arns["role"]}}
	case member == "AccessKeyId":
		return []place{{w.arns["key"], w.arns["user"]}}
	case member == "NewUserName":
		return []place{{"eve", "arn:aws:iam::" + account + ":user/team/eve"}}
	case member == "NewPath":
		return []place{{"/x/", "arn:aws:iam::" + account + ":user/x/bob"}}
	case member == "AWSServiceName":
		const s = "appstream.application-autoscaling.amazonaws.com"
		return []place{{s, "arn:aws:iam::" + account + ":role/aws-service-role/" + s + "/AWSServiceRoleForApplicationAutoScaling_AppStreamFleet"}}
	case member == "DeletionTaskId":
		return []place{{"task/aws-service-role/x.amazonaws.com/R/0-0", "arn:aws:iam::" + account + ":role/aws-service-role/x.amazonaws.com/R"}}
	case t.made: // with the name of what is not there yet
		arn := w.arns[t.kind]
		return []place{{"new", strings.ReplaceAll(arn[:strings.LastIndexByte(arn, '/')+1], "/team/", "/") + "new"}}
	case strings.HasSuffix(member, "Arn"):
		return []place{{w.arns[t.kind], w.arns[t.kind]}}
	}
	arn := w.arns[t.kind]
	return []place{{arn[strings.LastIndexByte(arn, '/')+1:], arn}}
}

// put writes a text into a member of an input; a dot leads into structures, and lists get one item.
func put(t *testing.T, in reflect.Value, path, value string) {
	t.Helper()
	head, rest, deeper := strings.Cut(strings.TrimSuffix(path, "?"), ".")
	f := in.FieldByName(head)
	if !f.IsValid() {
		t.Fatalf("%s has no member %s", in.Type(), head)
	}
	switch {
	case deeper && f.Kind() == reflect.Slice:
		if f.Len() == 0 {
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		}
		put(t, f.Index(0), rest, value)
	case deeper && f.Kind() == reflect.Pointer:
		if f.IsNil() {
			f.Set(reflect.New(f.Type().Elem()))
		}
		put(t, f.Elem(), rest, value)
	case deeper:
		put(t, f, rest, value)
	case f.Kind() == reflect.Slice:
		f.Set(reflect.ValueOf([]string{value}))
	default:
		f.Set(reflect.ValueOf(&value))
	}
}

// request makes an input that names all targets, the i-th by one member only.
func (w *authWorld) request(t *testing.T, s service, o *servedOperation, i int, member, value string) reflect.Value {
	in := reflect.New(o.in).Elem()
	for j := range o.targets {
		for _, m := range o.targets[j].members {
			if j == i && m != member {
				continue
			}
			if j == i {
				put(t, in, m, value)
				continue
			}
			if f := in.FieldByName(m); f.IsValid() && !f.IsZero() {
				continue // two targets of one member
			}
			put(t, in, m, w.places(s, o.name, &o.targets[j], m)[0].value)
		}
	}
	if i >= 0 && member == "NewPath" { // that another target's member names the user of
		put(t, in, "UserName", "bob")
	}
	given(t, o.name, in)
	return in
}

// given puts what condition keys ask for into an input.
func given(t *testing.T, operation string, in reflect.Value) {
	t.Helper()
	has := func(member string) bool { f := in.FieldByName(member); return f.IsValid() && f.IsZero() }
	for member, value := range map[string]string{
		"ServiceName": "com.amazonaws." + region + ".appstream.streaming", "DnsOptions.PrivateDnsPreference": "ALL_DOMAINS",
		"DnsOptions.PrivateDnsSpecifiedDomains": "x.test", "PermissionsBoundary": "arn:aws:iam::aws:policy/AdministratorAccess", "PolicyArn": "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess",
	} {
		head, _, _ := strings.Cut(member, ".")
		if f := in.FieldByName(head); f.IsValid() && (f.IsZero() || strings.Contains(member, ".")) {
			put(t, in, member, value)
		}
	}
	yes := true
	switch operation {
	case "ModifyVpcAttribute":
		in.FieldByName("EnableDnsSupport").Set(reflect.ValueOf(&ec2api.AttributeBooleanValue{Value: &yes}))
	case "ModifySubnetAttribute":
		in.FieldByName("MapPublicIpOnLaunch").Set(reflect.ValueOf(&ec2api.AttributeBooleanValue{Value: &yes}))
	case "ModifyVpcEndpoint":
		in.FieldByName("DnsOptions").SetZero()
		in.FieldByName("PrivateDnsEnabled").Set(reflect.ValueOf(&yes))
	case "ModifyManagedPrefixList":
		put(t, in, "PrefixListName", "m")
	}
	if has("TagKeys") {
		put(t, in, "TagKeys", "cost")
	}
	if f := in.FieldByName("Tags"); f.IsValid() {
		switch f.Kind() {
		case reflect.Map:
			f.Set(reflect.ValueOf(map[string]string{"cost": "12"}))
		case reflect.Slice:
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
			put(t, f.Index(0), "Key", "cost")
			put(t, f.Index(0), "Value", "12")
		default:
		}
	}
}

// tag gives tags to what an EC2 request makes.
func tag(in reflect.Value, kinds ...string) {
	f := in.FieldByName("TagSpecifications")
	if !f.IsValid() {
		return
	}
	var specs []ec2api.TagSpecification
	for _, kind := range kinds {
		key, value := "cost", "12"
		specs = append(specs, ec2api.TagSpecification{ResourceType: &kind, Tags: []ec2api.Tag{{Key: &key, Value: &value}}})
	}
	f.Set(reflect.ValueOf(specs))
}

// key is the value that a condition key of a target has to have; "" for none.
func (w *authWorld) key(s service, operation, key, arn string, made bool) string {
	id := arn[strings.LastIndexByte(arn, '/')+1:]
	kind := strings.Split(arn, ":")[5]
	kind, _, _ = strings.Cut(kind, "/")
	own := map[string]string{
		"ec2:VpcID": "vpc", "ec2:SubnetID": "subnet", "ec2:SecurityGroupID": "security-group", "ec2:NetworkAclID": "network-acl", "ec2:RouteTableID": "route-table",
		"ec2:NetworkInterfaceID": "network-interface", "ec2:InternetGatewayID": "internet-gateway", "ec2:DhcpOptionsID": "dhcp-options",
	}
	place := func(kinds ...string) bool { return !made && slices.Contains(kinds, kind) }
	switch {
	case own[key] != "":
		if place(own[key]) {
			return id
		}
	case key == "ec2:Vpc":
		if place("subnet", "security-group", "network-acl", "route-table", "network-interface") {
			return "arn:aws:ec2:" + region + ":" + account + ":vpc/" + w.have["vpc"]
		}
	case key == "ec2:Subnet":
		if place("network-interface") {
			return "arn:aws:ec2:" + region + ":" + account + ":subnet/" + w.have["subnet"]
		}
	case key == "ec2:Tenancy":
		if place("vpc") {
			return "default"
		}
	case key == "ec2:AvailabilityZone", key == "ec2:AvailabilityZoneId":
		zone := w.zones[id]
		if kind == "network-interface" {
			zone = w.zones[w.have["subnet"]]
		}
		if key == "ec2:AvailabilityZone" && place("subnet", "network-interface") {
			return zone.Name
		}
		if key == "ec2:AvailabilityZoneId" && place("subnet") {
			return zone.ID
		}
	}
	switch key {
	case "ec2:Ipv4IpamPoolId", "ec2:Ipv6IpamPoolId":
		return "ipam-pool-0123456789abcdef0"
	case "ec2:VpceServiceName":
		return "com.amazonaws." + region + ".appstream.streaming"
	case "ec2:VpceServiceOwner":
		return "amazon"
	case "ec2:VpceServiceRegion":
		return region
	case "ec2:VpcePrivateDnsPreference":
		return "ALL_DOMAINS"
	case "ec2:VpcePrivateDnsSpecifiedDomains":
		return "x.test"
	case "ec2:Attribute":
		return map[string]string{
			"ModifyVpcAttribute": "EnableDnsSupport", "ModifySubnetAttribute": "MapPublicIpOnLaunch", "ModifyVpcEndpoint": "PrivateDnsEnabled", "ModifyManagedPrefixList": "PrefixListName",
		}[operation]
	case "iam:PolicyARN":
		return "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess"
	case "iam:AWSServiceName":
		return "appstream.application-autoscaling.amazonaws.com"
	case "iam:PermissionsBoundary":
		if slices.Contains([]string{"CreateUser", "CreateRole", "PutRolePermissionsBoundary"}, operation) {
			return "arn:aws:iam::aws:policy/AdministratorAccess" // of the request
		}
		return "arn:aws:iam::aws:policy/AmazonAppStreamReadOnlyAccess" // of the user or role
	}
	return ""
}

// TestEveryOperationAsksForItsResources walks all operations that are served. For each resource that the table of authorization names, by
// each member that can name it: a policy for everything allows; one for everything else is refused and names that resource; one that wants
// another value of one of its condition keys, or another tag, is refused; one that wants the right one allows. Operations without
// resources are asked for "*".
func TestEveryOperationAsksForItsResources(t *testing.T) {
	t.Parallel()
	w := newAuthWorld(t)
	resources, conditions := 0, 0
	for _, s := range []service{appStream, ec2, iamService} {
		for _, name := range slices.Sorted(maps.Keys(w.tables[s].served)) {
			o := w.tables[s].served[name]
			t.Run(s.signingName()+":"+name, func(t *testing.T) {
				if len(o.targets) == 0 {
					in := reflect.New(o.in).Elem()
					for _, m := range []string{"Names", "StackName", "VpcIds", "SubnetIds", "ResourceArn", "PathPrefix"} {
						if f := in.FieldByName(m); f.IsValid() {
							put(t, in, m, "x")
						}
					}
					w.allowed(t, s, o, in, allowing(s, name, `"Resource":"*"`))
					w.refused(t, s, o, in, "*", allowing(s, name, `"Resource":"arn:*"`))
				}
				for i := range o.targets {
					tg := &o.targets[i]
					cases := map[string][]place{}
					for _, m := range tg.members {
						cases[m] = w.places(s, name, tg, m)
					}
					if len(tg.members) == 0 { // made, without a name
						cases[""] = []place{{"", "arn:aws:ec2:" + region + ":" + account + ":" + tg.kind + "/*"}}
					}
					for member, places := range cases {
						for _, p := range places {
							in := w.request(t, s, o, i, member, p.value)
							kind, _, _ := strings.Cut(strings.Split(p.arn, ":")[5], "/")
							if tg.made && s == ec2 {
								tag(in, tg.kind)
							}
							resources++
							all := allowing(s, name, `"Resource":"*"`)
							tagging := `{"Effect":"Deny","Action":"sts:*","Resource":"*"}` // nothing
							if tg.made && s == ec2 {
								tagging = allowing(s, "CreateTags", `"Resource":"*"`)
							}
							w.allowed(t, s, o, in, all, tagging)
							w.refused(t, s, o, in, p.arn, allowing(s, name, `"NotResource":"`+p.arn+`"`), tagging)
							keys := map[string]string{}
							for _, k := range tg.keys {
								switch k {
								case "aws:RequestTag/${TagKey}":
									if s != ec2 || tg.made || in.FieldByName("Tags").IsValid() {
										keys["aws:RequestTag/cost"] = "12"
									}
								case "aws:TagKeys":
									keys[k] = "cost"
								case "ec2:Attribute/${AttributeName}":
									keys["ec2:Attribute/"+w.key(s, name, "ec2:Attribute", p.arn, tg.made)] = map[bool]string{true: "m", false: "true"}[name == "ModifyManagedPrefixList"]
								default:
									keys[k] = w.key(s, name, k, p.arn, tg.made)
								}
							}
							exists := !tg.made && !slices.Contains([]string{"NewUserName", "NewPath", "DeletionTaskId"}, member)
							if exists && !slices.Contains([]string{"image", "ipam-pool", "ipv4pool-ec2", "ipv6pool-ec2", "vpn-gateway", "internet-gateway", "dhcp-options"}, kind) {
								keys["aws:ResourceTag/team"] = "blue"
								if s == ec2 || s == iamService && kind != "policy" {
									keys[s.signingName()+":ResourceTag/team"] = "blue"
								}
							}
							if s == ec2 {
								keys["ec2:Region"] = region
							}
							others := allowing(s, name, `"NotResource":"`+p.arn+`"`)
							for key, value := range keys {
								conditions++
								with := func(operator, value string) string {
									return allowing(s, name, fmt.Sprintf(`"Resource":%q,"Condition":{%q:{%q:%q}}`, p.arn, operator, key, value))
								}
								if value == "" { // of another type
									w.allowed(t, s, o, in, others, with("Null", "true"), tagging)
									continue
								}
								w.allowed(t, s, o, in, others, with("ForAnyValue:StringEquals", value), tagging)
								w.refused(t, s, o, in, p.arn, others, with("ForAnyValue:StringEquals", "another"), tagging)
							}
						}
					}
				}
			})
		}
	}
	t.Logf("%d resources and %d values of condition keys were asked", resources, conditions)
	if resources < 150 || conditions < 500 {
		t.Errorf("only %d resources and %d values of condition keys were asked", resources, conditions)
	}
}

func allowing(s service, operation, rest string) string {
	return `{"Effect":"Allow","Action":"` + s.signingName() + ":" + operation + `",` + rest + `}`
}

// ask gives the user these statements alone, and asks about a request.
func (w *authWorld) ask(t *testing.T, s service, o *servedOperation, in reflect.Value, statements []string) error {
	t.Helper()
	document := `{"Version":"2012-10-17","Statement":[` + strings.Join(statements, ",") + `]}`
	if err := w.options.Access.PutInline(t.Context(), access.User, "ann", "p", document); err != nil {
		t.Fatalf("%v\n%s", err, document)
	}
	x := &exchange{
		server: w.Server, request: httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/", nil), service: s, protocol: queryProtocol, operation: o.name,
		credential: w.ann, principal: w.ann.Principal,
	}
	c := Caller{Principal: w.ann.Principal, AccountID: account, Region: region, Action: s.signingName() + ":" + o.name}
	return x.authorize(t.Context(), &c, o, in.Addr().Interface())
}

func (w *authWorld) allowed(t *testing.T, s service, o *servedOperation, in reflect.Value, statements ...string) {
	t.Helper()
	if err := w.ask(t, s, o, in, statements); err != nil {
		t.Errorf("got %v\nwant it allowed by %s", err, strings.Join(statements, "\n"))
	}
}

func (w *authWorld) refused(t *testing.T, s service, o *servedOperation, in reflect.Value, resource string, statements ...string) {
	t.Helper()
	err := w.ask(t, s, o, in, statements)
	want := s.signingName() + ":" + o.name + " on resource: " + resource + " because"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v\nwant a refusal of %s by %s", err, want, strings.Join(statements, "\n"))
	}
}

const authorizationFile = "../../docs/authorization.md"

// TestAuthorizationDocument keeps docs/authorization.md what policies are asked for.
func TestAuthorizationDocument(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	b.WriteString("# What policies are asked for\n\nWritten by `go test ./internal/apiserver -run TestAuthorizationDocument -update` from the table that the server decides by.\n\n" +
		"Each resource that a request names is asked for by itself. *new*: what the operation makes, asked for as `TYPE/*` in EC2 and by its name elsewhere; *may*: asked for where the\n" +
		"request names it, or gives tags to it. A resource that the request leaves out is asked for as `TYPE/*`. Resources that exist bring `aws:ResourceTag` (and `ec2:` or,\n" +
		"of users and roles, `iam:ResourceTag`), every request to EC2 `ec2:Region`, and every request the global keys. An operation that gives tags to what it makes in EC2\n" +
		"asks for `ec2:CreateTags`, too, with `ec2:CreateAction`; `IamRoleArn` asks for `iam:PassRole`. Operations that are not in the tables are asked for `*`.\n")
	for _, s := range []service{appStream, ec2, iamService, sts} {
		fmt.Fprintf(&b, "\n## %s\n\n| operation | resource | named by | condition keys |\n|---|---|---|---|\n", s.signingName())
		rules := authorization(s)
		for _, name := range slices.Sorted(maps.Keys(rules)) {
			for i, tg := range rules[name] {
				title := "`" + name + "`"
				if i > 0 {
					title = ""
				}
				what := tg.kind
				if what == "" {
					what = "any"
				}
				if tg.made {
					what += ", *new*"
				}
				if tg.optional {
					what += ", *may*"
				}
				fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", title, what, strings.Join(tg.members, ", "), strings.Join(tg.keys, ", "))
			}
		}
	}
	if *update {
		if err := os.WriteFile(authorizationFile, b.Bytes(), 0o644); err != nil { //nolint:gosec // a document for everybody
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(authorizationFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/authorization.md is not what the server asks; run the test with -update")
	}
}
