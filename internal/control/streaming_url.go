package control

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
	"penstock.dev/penstock/internal/state"
)

var (
	userIDPattern     = regexp.MustCompile(`^[\w+=,.@-]{2,32}$`)
	resolutionPattern = regexp.MustCompile(`^([1-9][0-9]{1,4})x([1-9][0-9]{1,4})$`)
)

// maxSessionContext bounds the context that a streaming URL carries (CreateStreamingURL: up to 1,000 characters).
const maxSessionContext = 1000

// StreamingURLRequest is what CreateStreamingURL sends.
type StreamingURLRequest struct {
	Stack, Fleet, UserID, Application, Context string
	Validity                                   *int64 // seconds; nil: 60
}

// CreateStreamingURL returns a URL with which its bearer streams as the user, and when it expires.
// CreateStreamingURL: validity 1 to 604800 s; the fleet must run and be associated with the stack.
func (c *Control) CreateStreamingURL(ctx context.Context, q StreamingURLRequest) (string, time.Time, error) {
	switch {
	case !userIDPattern.MatchString(q.UserID):
		return "", time.Time{}, fault.Newf(fault.Invalid, "userId", "", "%q must match %s", q.UserID, userIDPattern)
	case len(q.Context) > maxSessionContext || strings.ContainsRune(q.Context, 0):
		return "", time.Time{}, fault.Newf(fault.Invalid, "sessionContext", "", "it is longer than %d characters, or has a NUL", maxSessionContext)
	}
	err := c.Store.View(ctx, func(r state.Reader) error {
		_, err := c.usable(r, q.Stack, q.Fleet)
		return err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	if q.Application != "" {
		if _, err := c.application(ctx, q.Application); err != nil {
			return "", time.Time{}, err
		}
	}
	return c.streamingURL(appstream.Grant{
		Stack: q.Stack, Fleet: q.Fleet, UserID: q.UserID, Application: q.Application, Context: q.Context,
	}, q.Validity, appstream.DefaultValidity)
}

// streamingURL signs a grant that is good for so many seconds; nil: for the default.
func (c *Control) streamingURL(g appstream.Grant, seconds *int64, validity int64) (string, time.Time, error) {
	set(&validity, seconds)
	if validity < appstream.MinValidity || validity > appstream.MaxValidity {
		return "", time.Time{}, fault.Newf(fault.Invalid, "validity", "", "%d is not between %d and %d", validity, appstream.MinValidity, appstream.MaxValidity)
	}
	g.Purpose, g.Expires = appstream.ForStreamingURL, c.Now().Add(time.Duration(validity)*time.Second).UTC().Truncate(time.Second)
	token, err := appstream.SignGrant(c.Key, g)
	if err != nil {
		return "", time.Time{}, err
	}
	return c.PublicURL + "/authenticate?parameters=" + url.QueryEscape(token), g.Expires, nil
}

// usable refuses a stack and fleet that users cannot stream from now.
func (c *Control) usable(r state.Reader, stack, fleet string) (*appstream.Fleet, error) {
	if _, ok, err := appstream.Stacks.Get(r, stack); err != nil {
		return nil, err
	} else if !ok {
		return nil, stackNotFound(stack)
	}
	f, ok, err := appstream.Fleets.Get(r, fleet)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fleetNotFound(fleet)
	}
	a := appstream.Association{FleetName: fleet, StackName: stack}
	if _, ok, err := appstream.Associations.Get(r, appstream.Associations.ID(&a)); err != nil {
		return nil, err
	} else if !ok {
		return nil, fault.Newf(fault.NotPermitted, "fleet", fleet, "it is not associated with stack %s", stack)
	}
	if f.State != appstream.FleetRunning {
		return nil, fault.Newf(fault.NotAvailable, "fleet", fleet, "it is %s; start it first", f.State)
	}
	return f, nil
}

// Applications lists the catalogue of the base image.
func (c *Control) Applications(ctx context.Context) ([]appstream.Application, error) {
	return c.Compute.Applications(ctx)
}

// Desktop is the ApplicationId that stands for the whole desktop instead of one application (CreateStreamingURL).
const Desktop = "Desktop"

// desktopPrograms are what a desktop begins with, the first that the image has.
var desktopPrograms = []string{"xterm", "debian-xterm"}

// application finds one application of the catalogue. Desktop is a terminal under the window manager: everything else starts from it.
func (c *Control) application(ctx context.Context, name string) (appstream.Application, error) {
	apps, err := c.Compute.Applications(ctx)
	if err != nil {
		return appstream.Application{}, err
	}
	wanted := []string{name}
	if name == Desktop {
		wanted = append(wanted, desktopPrograms...)
	}
	for _, w := range wanted {
		for _, a := range apps {
			if a.Name == w {
				if name == Desktop && w != name {
					a.Name, a.DisplayName = Desktop, Desktop
				}
				return a, nil
			}
		}
	}
	return appstream.Application{}, fault.New(fault.NotFound, "application", name, "the image has no application with this name")
}

// OpenStreamingURL accepts a streaming URL's parameters and says who opens it and for what.
// The URL's validity bounds when it is opened, not how long its user may go on choosing applications.
func (c *Control) OpenStreamingURL(parameters, resolution string) (appstream.Visitor, error) {
	g, err := appstream.VerifyGrant(parameters, publicKey(c.Key), appstream.ForStreamingURL, c.Now())
	if err != nil {
		return appstream.Visitor{}, err
	}
	if resolution != "" {
		if _, _, err := ParseResolution(resolution); err != nil {
			return appstream.Visitor{}, err
		}
	}
	v := g.Visitor()
	v.Resolution = resolution
	return v, nil
}
