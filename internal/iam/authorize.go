package iam

import "fmt"

// Request is one question to the policies: may Principal do Action to Resources?
type Request struct {
	Principal Principal
	Action    string   // "ec2:DescribeVpcEndpoints"
	Resources []string // ARNs; empty stands for every resource
	SourceIP  string   // the condition key aws:SourceIp; empty when unknown
}

// Decision is the answer to a Request, with the reason that explains a denial.
type Decision struct {
	Allowed bool
	Reason  string // one sentence in the words of AWS's denials, empty when allowed
}

// AccountOwner decides for an account without policies: its root principal may do everything, nobody else anything.
type AccountOwner struct {
	AccountID string
}

// Authorize decides one request.
func (a AccountOwner) Authorize(r Request) Decision {
	if r.Principal.Kind == Root && a.AccountID != "" && r.Principal.AccountID == a.AccountID {
		return Decision{Allowed: true}
	}
	resource := "*"
	if len(r.Resources) > 0 {
		resource = r.Resources[0]
	}
	who := r.Principal.ARN()
	if who == "" {
		who = "anonymous"
	}
	return Decision{Reason: fmt.Sprintf(
		"User: %s is not authorized to perform: %s on resource: %s because no identity-based policy allows the %s action",
		who, r.Action, resource, r.Action)}
}
