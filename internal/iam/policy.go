package iam

import (
	"fmt"
	"slices"
	"strings"
)

// PolicyKind is what a policy document is for; the kinds differ in the elements that a statement must and may not have.
type PolicyKind int

// The kinds of policy documents.
const (
	// IdentityPolicy says what its holder may do: managed and inline policies, permissions boundaries, session policies.
	IdentityPolicy PolicyKind = iota
	// TrustPolicy says who may assume a role.
	TrustPolicy
)

// Bounds of one policy document, in bytes and counts. They are IAM's for the text and ours for the rest.
const (
	MaxPolicyBytes = 131072
	maxStatements  = 1024
	maxElements    = 8192 // JSON values in a document
	maxDepth       = 8    // of nested JSON values
)

// Policy is a parsed policy document. It is immutable and may be shared.
type Policy struct {
	Name       string // as a simulation names it: "ReadOnly"; set by who holds the policy
	ARN        string // of a managed policy; empty for an inline one
	statements []statement
}

// Named is the policy under the name and, for managed policies, the ARN that decisions mention.
func (p *Policy) Named(name, arn string) *Policy {
	return &Policy{Name: name, ARN: arn, statements: p.statements}
}

// Statements is how many statements the policy has.
func (p *Policy) Statements() int { return len(p.statements) }

type statement struct {
	sid          string
	allow        bool
	start, end   position
	actions      []string // lower case, compiled
	notAction    bool
	resources    []pattern
	notResource  bool
	principals   principals
	notPrincipal bool
	conditions   []condition
}

// principals are those whom a trust policy names.
type principals struct {
	anyone    bool
	aws       []string // account IDs and ARNs
	services  []string
	federated []string
}

// position is a place in a document; lines and columns count from 1, columns in bytes.
type position struct{ line, column int }

// SyntaxError is what is wrong with a policy document, and where.
type SyntaxError struct {
	Line, Column int // from 1
	Reason       string
}

// Error is the reason in IAM's words, with the place.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("%s (line %d, column %d)", e.Reason, e.Line, e.Column)
}

// ParsePolicy reads a policy document. The error is a *SyntaxError.
func ParsePolicy(kind PolicyKind, document string) (*Policy, error) {
	if len(document) > MaxPolicyBytes {
		return nil, &SyntaxError{1, 1, fmt.Sprintf("The policy is longer than %d bytes.", MaxPolicyBytes)}
	}
	root, err := parseJSON(document)
	if err != nil {
		return nil, err
	}
	d := &policyParser{text: document, kind: kind}
	return d.policy(root)
}

type policyParser struct {
	text      string
	kind      PolicyKind
	variables bool
}

func (d *policyParser) fail(n *node, format string, args ...any) error {
	p := positionOf(d.text, n.offset)
	return &SyntaxError{p.line, p.column, fmt.Sprintf(format, args...)}
}

func (d *policyParser) policy(root *node) (*Policy, error) {
	if root.kind != objectNode {
		return nil, d.fail(root, "Syntax errors in policy: the document must be a JSON object.")
	}
	var statements *node
	for _, m := range root.members {
		switch m.name {
		case "Version":
			if m.value.text != "2012-10-17" && m.value.text != "2008-10-17" || m.value.kind != stringNode {
				return nil, d.fail(m.value, "The policy must contain a valid version string.")
			}
			d.variables = m.value.text == "2012-10-17"
		case "Id":
			if m.value.kind != stringNode {
				return nil, d.fail(m.value, "Syntax errors in policy: Id must be a string.")
			}
		case "Statement":
			statements = m.value
		default:
			return nil, d.fail(m.value, "Syntax errors in policy: unknown element %q.", m.name)
		}
	}
	if statements == nil {
		return nil, d.fail(root, "Syntax errors in policy: the element Statement is missing.")
	}
	list := []*node{statements}
	if statements.kind == arrayNode {
		list = statements.items
	}
	if len(list) == 0 {
		return nil, d.fail(statements, "The policy must contain at least one statement.")
	}
	if len(list) > maxStatements {
		return nil, d.fail(statements, "The policy has more than %d statements.", maxStatements)
	}
	p := &Policy{statements: make([]statement, 0, len(list))}
	sids := map[string]bool{}
	for _, n := range list {
		s, err := d.statement(n)
		if err != nil {
			return nil, err
		}
		if s.sid != "" && sids[s.sid] {
			return nil, d.fail(n, "Statement IDs (SID) in a single policy must be unique.")
		}
		sids[s.sid] = true
		p.statements = append(p.statements, s)
	}
	return p, nil
}

func (d *policyParser) statement(n *node) (statement, error) {
	s := statement{start: positionOf(d.text, n.offset), end: positionOf(d.text, n.end)}
	if n.kind != objectNode {
		return s, d.fail(n, "Syntax errors in policy: a statement must be a JSON object.")
	}
	seen := map[string]bool{}
	for _, m := range n.members {
		element := strings.TrimPrefix(m.name, "Not")
		if seen[element] {
			return s, d.fail(m.value, "Syntax errors in policy: a statement has %s and Not%s.", element, element)
		}
		seen[element] = true
		if err := d.element(&s, m); err != nil {
			return s, err
		}
	}
	switch {
	case !seen["Effect"]:
		return s, d.fail(n, "Missing required field Effect.")
	case !seen["Action"]:
		return s, d.fail(n, "Policy statement must contain actions.")
	case d.kind == IdentityPolicy && !seen["Resource"]:
		return s, d.fail(n, "Policy statement must contain resources.")
	case d.kind == TrustPolicy && !seen["Principal"]:
		return s, d.fail(n, "Missing required field Principal.")
	}
	return s, nil
}

func (d *policyParser) element(s *statement, m member) error {
	switch m.name {
	case "Sid":
		return d.sid(s, m.value)
	case "Effect":
		if m.value.kind != stringNode || m.value.text != "Allow" && m.value.text != "Deny" {
			return d.fail(m.value, "Invalid effect: %.40q. Effect must be Allow or Deny.", m.value.text)
		}
		s.allow = m.value.text == "Allow"
		return nil
	case "Action", "NotAction":
		s.notAction = m.name == "NotAction"
		return d.actions(s, m.value)
	case "Resource", "NotResource":
		if d.kind == TrustPolicy {
			return d.fail(m.value, "Has prohibited field Resource.")
		}
		s.notResource = m.name == "NotResource"
		return d.resources(s, m.value)
	case "Principal", "NotPrincipal":
		if d.kind == IdentityPolicy {
			return d.fail(m.value, "Policy document should not specify a principal.")
		}
		s.notPrincipal = m.name == "NotPrincipal"
		return d.principals(s, m.value)
	case "Condition":
		return d.conditions(s, m.value)
	}
	return d.fail(m.value, "Syntax errors in policy: unknown element %.40q of a statement.", m.name)
}

func (d *policyParser) sid(s *statement, n *node) error {
	ok := n.kind == stringNode
	for _, c := range []byte(n.text) {
		ok = ok && isAlphanumeric(c)
	}
	// A trust policy's statement IDs may hold spaces and more.
	if !ok && (d.kind == IdentityPolicy || n.kind != stringNode) {
		return d.fail(n, "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
	}
	s.sid = n.text
	return nil
}

func (d *policyParser) actions(s *statement, n *node) error {
	list, err := d.strings(n, "Policy statement must contain actions.")
	if err != nil {
		return err
	}
	for _, v := range list {
		vendor, name, ok := strings.Cut(v.text, ":")
		if v.text != "*" && (!ok || vendor == "" || name == "") {
			return d.fail(v, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		}
		if v.text != "*" && !allBytes(vendor, func(c byte) bool { return isAlphanumeric(c) || c == '-' }) {
			return d.fail(v, "Vendor %.60q is not valid.", vendor)
		}
		if !allBytes(name, func(c byte) bool { return isAlphanumeric(c) || strings.IndexByte("*?_-:.", c) >= 0 }) {
			return d.fail(v, "Action %.100q is not valid.", v.text)
		}
		s.actions = append(s.actions, compileWild(strings.ToLower(v.text)))
	}
	return nil
}

func (d *policyParser) resources(s *statement, n *node) error {
	list, err := d.strings(n, "Policy statement must contain resources.")
	if err != nil {
		return err
	}
	for _, v := range list {
		if v.text != "*" && !strings.HasPrefix(v.text, "arn:") {
			return d.fail(v, "Resource %.200s must be in ARN format or \"*\".", v.text)
		}
		p, ok := compile(v.text, true, d.variables)
		if !ok {
			return d.fail(v, "Invalid policy variable in %.200q.", v.text)
		}
		s.resources = append(s.resources, p)
	}
	return nil
}

func (d *policyParser) principals(s *statement, n *node) error {
	if n.kind == stringNode && n.text == "*" {
		s.principals.anyone = true
		return nil
	}
	if n.kind != objectNode || len(n.members) == 0 {
		return d.fail(n, "Invalid principal in policy.")
	}
	for _, m := range n.members {
		list, err := d.strings(m.value, "Invalid principal in policy: no principal is named.")
		if err != nil {
			return err
		}
		for _, v := range list {
			switch m.name {
			case "AWS":
				if v.text != "*" && !validAWSPrincipal(v.text) {
					return d.fail(v, "Invalid principal in policy: \"AWS\":\"%.200s\"", v.text)
				}
				s.principals.aws = append(s.principals.aws, v.text)
			case "Service":
				if v.text == "*" || !strings.Contains(v.text, ".") {
					return d.fail(v, "Invalid principal in policy: \"SERVICE\":\"%.200s\"", v.text)
				}
				s.principals.services = append(s.principals.services, v.text)
			case "Federated":
				s.principals.federated = append(s.principals.federated, v.text)
			default:
				return d.fail(v, "Invalid principal in policy: unknown kind %.40q.", m.name)
			}
		}
	}
	return nil
}

func validAWSPrincipal(v string) bool {
	if isAccountID(v) {
		return true
	}
	p := strings.SplitN(v, ":", 6)
	if len(p) != 6 || p[0] != "arn" || p[1] != "aws" || p[3] != "" || !isAccountID(p[4]) || strings.ContainsAny(v, "*?") {
		return false
	}
	switch p[2] {
	case "iam":
		return p[5] == "root" || strings.HasPrefix(p[5], "user/") || strings.HasPrefix(p[5], "role/")
	case "sts":
		return strings.HasPrefix(p[5], "assumed-role/") || strings.HasPrefix(p[5], "federated-user/")
	}
	return false
}

func isAccountID(v string) bool {
	return len(v) == 12 && allBytes(v, func(c byte) bool { return c >= '0' && c <= '9' })
}

// strings reads a string or a list of strings that is not empty.
func (d *policyParser) strings(n *node, empty string) ([]*node, error) {
	list := []*node{n}
	if n.kind == arrayNode {
		list = n.items
	}
	if len(list) == 0 {
		return nil, d.fail(n, "%s", empty)
	}
	for _, v := range list {
		if v.kind != stringNode {
			return nil, d.fail(v, "Syntax errors in policy: a string is expected.")
		}
		if v.text == "" {
			return nil, d.fail(v, "%s", empty)
		}
	}
	return list, nil
}

func (d *policyParser) conditions(s *statement, n *node) error {
	if n.kind != objectNode {
		return d.fail(n, "Syntax errors in policy: Condition must be a JSON object.")
	}
	for _, o := range n.members {
		c, ok := parseOperator(o.name)
		if !ok {
			return d.fail(o.value, "Invalid Condition type : %.60s.", o.name)
		}
		if o.value.kind != objectNode {
			return d.fail(o.value, "Syntax errors in policy: a condition must be a JSON object of keys and values.")
		}
		for _, k := range o.value.members {
			c := c
			c.operator, c.name = o.name, k.name
			if !strings.Contains(k.name, ":") {
				return d.fail(k.value, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
			}
			c.key = LowerKey(k.name)
			list := []*node{k.value}
			if k.value.kind == arrayNode {
				list = k.value.items
			}
			for _, v := range list {
				if v.kind != stringNode && v.kind != scalarNode {
					return d.fail(v, "Syntax errors in policy: the values of a condition are strings, numbers and booleans.")
				}
				value, why := c.parseValue(v.text, d.variables)
				if why != "" {
					return d.fail(v, "%s", why)
				}
				c.values, c.wanted = append(c.values, value), append(c.wanted, v.text)
			}
			s.conditions = append(s.conditions, c)
		}
	}
	return nil
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

func allBytes(s string, ok func(byte) bool) bool {
	return !slices.ContainsFunc([]byte(s), func(c byte) bool { return !ok(c) })
}
