package apiserver

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"

	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/iam"
	"penstock.dev/penstock/internal/wire/sigv4"
)

// identify checks what a request says about its signature, and finds its key. It needs no body, so that only those who
// know an access key can make us read one. The order is AWS's: form, scope, time, key.
func (x *exchange) identify(ctx context.Context) error {
	o := &x.server.options
	if x.signatureErr != nil {
		return x.notAuthentic(x.signatureErr)
	}
	sig := x.signature
	if err := x.checkScope(sig); err != nil {
		return err
	}
	if err := sig.CheckTime(o.Now(), o.ClockSkew); err != nil {
		return x.notAuthentic(err)
	}
	if sig.Unsigned() && x.request.TLS == nil {
		return x.wrongSignature("An unsigned payload is accepted over TLS only; sign the payload's hash.")
	}
	cred, err := x.lookUp(ctx, sig)
	switch {
	case fault.Is(err, fault.NotFound):
		return x.unknownKey()
	case err != nil:
		return fmt.Errorf("look up access key: %w", err)
	case cred.Inactive:
		return x.unknownKey()
	}
	x.credential = cred
	return nil
}

func (x *exchange) lookUp(ctx context.Context, sig *sigv4.Signature) (iam.Credential, error) {
	o := &x.server.options
	if o.Access != nil && sig.SessionToken != "" {
		return o.Access.Session(ctx, sig.AccessKeyID, sig.SessionToken)
	}
	return o.Credentials.Lookup(ctx, sig.AccessKeyID)
}

// authenticate proves that the holder of the identified key signed the request with this body.
func (x *exchange) authenticate(body []byte) error {
	if err := x.checkScope(x.signature); err != nil { // again, for a service that the body named
		return err
	}
	if err := x.signature.Verify(x.request, body, x.credential.Secret); err != nil {
		return x.notAuthentic(err)
	}
	if subtle.ConstantTimeCompare([]byte(x.signature.SessionToken), []byte(x.credential.SessionToken)) != 1 {
		return x.unknownKey()
	}
	if end := x.credential.Expires; !end.IsZero() && !x.server.options.Now().Before(end) {
		return x.expiredToken()
	}
	x.principal = x.credential.Principal
	if a := x.server.options.Access; a != nil {
		a.Used(x.credential, x.service.signingName(), x.signature.Region)
	}
	return nil
}

// checkScope refuses a signature for another service or region.
func (x *exchange) checkScope(sig *sigv4.Signature) error {
	if x.service == 0 {
		return nil // an unknown operation, whoever asks for it
	}
	if want := x.service.signingName(); sig.Service != want {
		return x.wrongSignature(fmt.Sprintf("Credential should be scoped to correct service: '%s'.", want))
	}
	if region := x.server.options.Region; x.service.regional() && sig.Region != region {
		return x.wrongSignature(fmt.Sprintf("Credential should be scoped to a valid region, not '%.40s'. This endpoint serves '%s'.", sig.Region, region))
	}
	return nil
}

// notAuthentic is a sigv4 error in the words of the request's protocol.
func (x *exchange) notAuthentic(err error) error {
	e, ok := errors.AsType[*sigv4.Error](err)
	if !ok {
		return err
	}
	switch e.Problem {
	case sigv4.Missing:
		return x.byProtocol(
			apiError{code: "MissingAuthenticationTokenException", message: "Missing Authentication Token", status: 400},
			apiError{code: "MissingAuthenticationToken", message: e.Message, status: 403},
			apiError{code: "MissingAuthenticationToken", message: e.Message, status: 403})
	case sigv4.Incomplete:
		return x.byProtocol(
			apiError{code: "IncompleteSignatureException", message: e.Message, status: 400},
			apiError{code: "IncompleteSignature", message: e.Message, status: 400},
			apiError{code: "IncompleteSignature", message: e.Message, status: 400})
	case sigv4.Skewed:
		return x.byProtocol(
			apiError{code: "InvalidSignatureException", message: e.Message, status: 400},
			apiError{code: "RequestExpired", message: e.Message, status: 400},
			apiError{code: "SignatureDoesNotMatch", message: e.Message, status: 403})
	case sigv4.Mismatch:
	}
	return x.wrongSignature(e.Message)
}

func (x *exchange) wrongSignature(message string) error {
	return x.byProtocol(
		apiError{code: "InvalidSignatureException", message: message, status: 400},
		apiError{code: "AuthFailure", message: message, status: 401},
		apiError{code: "SignatureDoesNotMatch", message: message, status: 403})
}

func (x *exchange) unknownKey() error {
	const invalid = "The security token included in the request is invalid."
	return x.byProtocol(
		apiError{code: "UnrecognizedClientException", message: invalid, status: 400},
		apiError{code: "AuthFailure", message: "AWS was not able to validate the provided access credentials", status: 401},
		apiError{code: "InvalidClientTokenId", message: invalid, status: 403})
}

func (x *exchange) expiredToken() error {
	const expired = "The security token included in the request is expired"
	return x.byProtocol(
		apiError{code: "ExpiredTokenException", message: expired, status: 400},
		apiError{code: "RequestExpired", message: "Request has expired.", status: 400},
		apiError{code: "ExpiredToken", message: expired, status: 403})
}

func (x *exchange) denied(reason string) error {
	return x.byProtocol(
		apiError{code: "AccessDeniedException", message: reason, status: 400},
		apiError{code: "UnauthorizedOperation", message: "You are not authorized to perform this operation. " + reason, status: 403},
		apiError{code: "AccessDenied", message: reason, status: 403})
}
