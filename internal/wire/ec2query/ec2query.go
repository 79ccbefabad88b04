// Package ec2query is the EC2 Query codec: form parameters into generated structs, structs into XML, and errors.
package ec2query

import (
	"fmt"
	"strings"

	"penstock.dev/penstock/internal/wire/query"
	"penstock.dev/penstock/internal/wire/shape"
)

// Error codes of requests that cannot be read. EC2's model lists none; these are in its user guide.
const (
	CodeMalformed    = "MalformedQueryString"
	CodeMissing      = "MissingParameter"
	CodeInvalidValue = "InvalidParameterValue"
	CodeUnknown      = "UnknownParameter"
)

// RequestError is a request that EC2 refuses before it looks at any resource.
type RequestError struct {
	Code    string
	Message string
}

func (e *RequestError) Error() string { return e.Code + ": " + e.Message }

// Decode reads a form into the struct that into points to, whose form is t. Like EC2 it refuses a parameter that the
// operation does not have. Every error is a *RequestError.
func Decode(f *query.Form, t *shape.Type, into any) error {
	unknown, err := query.Decode(f, query.Flat, t, into, "Action", "Version")
	if err != nil {
		return Refused(err)
	}
	if len(unknown) > 0 {
		return &RequestError{CodeUnknown, fmt.Sprintf("The parameter %s is not recognized", unknown[0])}
	}
	return nil
}

// Refuse says in EC2's words which constraint of the model a request does not meet.
func Refuse(v shape.Violation) error {
	name := parameter(v.Path)
	if v.Rule == shape.Required {
		return &RequestError{CodeMissing, fmt.Sprintf("The request must contain the parameter %s", name)}
	}
	return &RequestError{CodeInvalidValue, fmt.Sprintf("Value (%s) for parameter %s is invalid. %s.", v.Value, name, v.Constraint)}
}

// Refused says a query.Error in EC2's words; another error is returned as it is.
func Refused(err error) error {
	e, ok := err.(*query.Error) //nolint:errorlint // query returns it bare
	if !ok {
		return err
	}
	switch {
	case e.Problem == query.BadValue:
		return &RequestError{CodeInvalidValue, fmt.Sprintf("Value (%s) for parameter %s is invalid: %s.", e.Value, e.Parameter, e.Reason)}
	case e.Parameter != "":
		return &RequestError{CodeMalformed, fmt.Sprintf("The parameter %s cannot be read: %s.", e.Parameter, e.Reason)}
	default:
		return &RequestError{CodeMalformed, "The query string cannot be read: " + e.Reason + "."}
	}
}

// parameter is a violation's place as the request names it: TagSpecification.1.Tag.2.Key.
func parameter(path []shape.Step) string {
	var b strings.Builder
	for i, s := range path {
		if i > 0 {
			b.WriteByte('.')
		}
		if s.Field != nil {
			b.WriteString(s.Field.In)
		} else {
			fmt.Fprintf(&b, "%d", s.Item)
		}
	}
	return b.String()
}

// Answer writes an operation's answer: the request ID first, then the members of the struct that from points to, whose
// form is t. Operations without members answer <return>true</return>.
func Answer(namespace, operation, requestID string, t *shape.Type, from any) []byte {
	w := query.Writer{Milliseconds: true}
	w.WriteString(query.Header)
	w.Open(operation+"Response", ` xmlns="`+namespace+`"`)
	w.Text("requestId", requestID)
	if len(t.Fields) == 0 {
		w.Text("return", "true")
	}
	w.Members(t, from)
	w.Close(operation + "Response")
	return w.Bytes()
}

// Error writes an error answer.
func Error(code, message, requestID string) []byte {
	var w query.Writer
	w.WriteString(query.Header)
	w.Open("Response", "")
	w.Open("Errors", "")
	w.Open("Error", "")
	w.Text("Code", code)
	w.Text("Message", message)
	w.Close("Error")
	w.Close("Errors")
	w.Text("RequestID", requestID)
	w.Close("Response")
	return w.Bytes()
}
