package iam

import (
	"fmt"
	"slices"
	"strings"
)

// Step is one statement on the way to a decision.
type Step struct {
	Layer   Layer
	Match          // the statement and its place
	Allow   bool   // its effect is Allow, otherwise Deny
	Applies bool   // it is about the request
	Why     string // it does not apply, and this is the first thing that does not fit
}

// Explanation is a decision with everything that was looked at.
type Explanation struct {
	Decision
	Resource string
	Steps    []Step // all statements of all layers, in their order
	// Missing are the condition keys and policy variables that the policies ask for and the request does not have, as they are written.
	Missing []string
}

// Explain answers the request as Decide does for one resource, and says what each statement had to do with it.
func (s *PolicySet) Explain(r *Request, resource string) Explanation {
	x := Explanation{Decision: s.decide(r, resource), Resource: resource}
	look := func(l Layer, policies []*Policy) {
		for _, p := range policies {
			for i := range p.statements {
				st := &p.statements[i]
				x.miss(st, r)
				why := st.misfit(r, resource)
				x.Steps = append(x.Steps, Step{
					Layer: l, Allow: st.allow, Applies: why == "", Why: why,
					Match: Match{Layer: l, Policy: p, Statement: i, Sid: st.sid, Line: st.start.line, Column: st.start.column, End: Place{st.end.line, st.end.column}},
				})
			}
		}
	}
	look(IdentityLayer, s.Identity)
	if s.Boundary != nil {
		look(BoundaryLayer, []*Policy{s.Boundary})
	}
	if s.Limited {
		look(SessionLayer, s.Session)
	}
	slices.Sort(x.Missing)
	return x
}

// Deciding are the steps that made the decision: those that deny, or else those that allow.
func (x *Explanation) Deciding() (out []Step) {
	for _, st := range x.Steps {
		if st.Applies && st.Allow != x.Explicit && (x.Allowed || x.Explicit) {
			out = append(out, st)
		}
	}
	return out
}

// AllowedBy reports whether a layer alone allows the request.
func (x *Explanation) AllowedBy(l Layer) bool {
	allowed := false
	for _, st := range x.Steps {
		if st.Layer != l || !st.Applies {
			continue
		}
		if !st.Allow {
			return false
		}
		allowed = true
	}
	return allowed
}

// misfit says why the statement is not about the request; empty when it is. It agrees with applies.
func (s *statement) misfit(r *Request, resource string) string {
	switch {
	case s.hasAction(r.Action) == s.notAction && s.notAction:
		return "NotAction lists " + r.Action
	case s.hasAction(r.Action) == s.notAction:
		return "Action does not list " + r.Action
	case s.hasResource(r, resource) == s.notResource && s.notResource:
		return "NotResource lists " + resource
	case s.hasResource(r, resource) == s.notResource:
		return "Resource does not list " + resource
	}
	for i := range s.conditions {
		if c := &s.conditions[i]; !c.met(r) {
			return c.misfit(r)
		}
	}
	return ""
}

func (c *condition) misfit(r *Request) string {
	got, ok := r.values(c.key)
	has := "the request has no such key"
	if ok {
		has = "the request has " + quoted(got)
	}
	return fmt.Sprintf("condition %s of %s wants %s, and %s", c.operator, c.name, quoted(c.wanted), has)
}

func quoted(list []string) string {
	const most = 5
	var b strings.Builder
	for i, v := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		if i == most {
			fmt.Fprintf(&b, "and %d more", len(list)-most)
			break
		}
		fmt.Fprintf(&b, "%.100q", v)
	}
	if len(list) == 0 {
		return "nothing"
	}
	return b.String()
}

// miss collects what the statement asks for and the request does not have.
func (x *Explanation) miss(s *statement, r *Request) {
	note := func(key, name string) {
		if _, ok := r.values(key); !ok && !slices.ContainsFunc(x.Missing, func(m string) bool { return LowerKey(m) == key }) {
			x.Missing = append(x.Missing, name)
		}
	}
	variables := func(p *pattern) {
		for _, t := range p.parts {
			if t.variable != "" && !t.has {
				note(t.variable, t.name)
			}
		}
	}
	for i := range s.resources {
		variables(&s.resources[i])
	}
	for i := range s.conditions {
		c := &s.conditions[i]
		note(c.key, c.name)
		for j := range c.values {
			variables(&c.values[j].text)
		}
	}
}

// LayerName is a layer in the words of explanations.
func (l Layer) String() string {
	switch l {
	case BoundaryLayer:
		return "permissions boundary"
	case SessionLayer:
		return "session policy"
	case TrustLayer:
		return "trust policy"
	case IdentityLayer:
	}
	return "identity-based policy"
}
