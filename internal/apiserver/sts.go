package apiserver

import (
	"context"

	"penstock.dev/penstock/internal/wire/stsapi"
)

// stsOperations lists the STS operations that this server answers.
func (s *Server) stsOperations() []operation {
	return []operation{
		stsOp("GetCallerIdentity", s.getCallerIdentity),
	}
}

func (s *Server) getCallerIdentity(_ context.Context, c Caller, _ *stsapi.GetCallerIdentityInput) (*stsapi.GetCallerIdentityOutput, error) {
	return &stsapi.GetCallerIdentityOutput{
		UserId:  new(c.Principal.UserID()),
		Account: new(c.Principal.AccountID),
		Arn:     new(c.Principal.ARN()),
	}, nil
}
