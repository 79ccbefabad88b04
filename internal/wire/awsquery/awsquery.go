// Package awsquery is the AWS Query codec of IAM and STS: form parameters into generated structs, structs into XML,
// and errors.
package awsquery

import (
	"fmt"

	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
)

// Error codes of requests that cannot be read, from the common errors of IAM and STS.
const (
	CodeMalformed  = "MalformedQueryString"
	CodeValidation = "ValidationError"
	CodeBadInput   = "MalformedInput"
)

// RequestError is a request that the service refuses before it looks at any resource.
type RequestError struct {
	Code    string
	Message string
}

func (e *RequestError) Error() string { return e.Code + ": " + e.Message }

// Decode reads a form into the struct that into points to, whose form is t. Parameters that the operation does not have
// are ignored. Every error is a *RequestError.
func Decode(f *query.Form, t *shape.Type, into any) error {
	if _, err := query.Decode(f, query.Member, t, into, "Action", "Version"); err != nil {
		return Refused(err)
	}
	return nil
}

// Refused says a query.Error in the words of IAM and STS; another error is returned as it is.
func Refused(err error) error {
	e, ok := err.(*query.Error) //nolint:errorlint // query returns it bare
	if !ok {
		return err
	}
	switch {
	case e.Problem == query.BadValue:
		return &RequestError{CodeBadInput, fmt.Sprintf("Value (%s) for parameter %s is invalid: %s", e.Value, e.Parameter, e.Reason)}
	case e.Parameter != "":
		return &RequestError{CodeMalformed, fmt.Sprintf("The parameter %s cannot be read: %s", e.Parameter, e.Reason)}
	default:
		return &RequestError{CodeMalformed, "The query string cannot be read: " + e.Reason}
	}
}

// Answer writes an operation's answer: the members of the struct that from points to, whose form is t, inside
// OPERATIONResult (left out when the model gives the operation no output), then the request ID.
func Answer(namespace, operation, requestID string, t *shape.Type, from any, result bool) []byte {
	var w query.Writer
	w.WriteString(query.Header)
	w.Open(operation+"Response", ` xmlns="`+namespace+`"`)
	if result {
		w.Open(operation+"Result", "")
		w.Members(t, from)
		w.Close(operation + "Result")
	}
	w.Open("ResponseMetadata", "")
	w.Text("RequestId", requestID)
	w.Close("ResponseMetadata")
	w.Close(operation + "Response")
	return w.Bytes()
}

// Error writes an error answer. The fault is the sender's for a status below 500.
func Error(namespace, code, message, requestID string, status int) []byte {
	kind := "Sender"
	if status >= 500 {
		kind = "Receiver"
	}
	var w query.Writer
	w.WriteString(query.Header)
	w.Open("ErrorResponse", ` xmlns="`+namespace+`"`)
	w.Open("Error", "")
	w.Text("Type", kind)
	w.Text("Code", code)
	w.Text("Message", message)
	w.Close("Error")
	w.Text("RequestId", requestID)
	w.Close("ErrorResponse")
	return w.Bytes()
}
