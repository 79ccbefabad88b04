package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/control"
)

// sessionView is one session as `penstock sessions --json` prints it.
type sessionView struct {
	ID              appstream.SessionID  `json:"id"`
	UserID          string               `json:"userId"`
	StackName       string               `json:"stackName"`
	FleetName       string               `json:"fleetName"`
	Builder         appstream.BuilderID  `json:"builder,omitempty"` // instead of stack and fleet: "image-builder/NAME"
	Application     string               `json:"application"`
	State           string               `json:"state"`           // PENDING, ACTIVE, EXPIRED
	ConnectionState string               `json:"connectionState"` // CONNECTED, NOT_CONNECTED
	EndpointID      appstream.EndpointID `json:"endpointId"`
	Origin          string               `json:"origin"`
	InstanceID      appstream.InstanceID `json:"instanceId"`
	StartTime       time.Time            `json:"startTime"`
	EndTime         *time.Time           `json:"endTime,omitempty"`
	EndCode         appstream.EndCode    `json:"endCode,omitempty"`
	EndReason       string               `json:"endReason,omitempty"`
	*appstream.Local
}

func viewSession(s *appstream.Session, i *appstream.Instance) sessionView {
	v := sessionView{
		ID: s.ID, UserID: s.UserID, StackName: s.Stack, FleetName: s.Fleet, Builder: s.Builder, Application: s.Application, State: string(s.State),
		ConnectionState: "NOT_CONNECTED", EndpointID: s.Endpoint, Origin: s.Origin, InstanceID: s.Instance,
		StartTime: s.Started, EndCode: s.EndCode, EndReason: s.EndReason,
	}
	if s.Connected {
		v.ConnectionState = "CONNECTED"
	}
	if !s.Ended.IsZero() {
		v.EndTime = &s.Ended
	}
	if i != nil && s.Live() {
		v.Local = i.Local
	}
	return v
}

// adminHandler serves the operator's tools on a socket that only the server's own user can open.
func adminHandler(c *control.Control, log *slog.Logger) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /sessions", func(w http.ResponseWriter, r *http.Request) {
		ss, err := c.AllSessions(r.Context())
		views := make([]sessionView, 0, len(ss))
		for _, s := range ss {
			var i *appstream.Instance
			if err == nil {
				i, _, err = c.Instance(r.Context(), s.Instance)
			}
			views = append(views, viewSession(s, i))
		}
		if err != nil {
			log.Error("listing sessions failed", "error", err)
			http.Error(w, "listing sessions failed; the log says why", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(views)
	})
	return mux
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func sessionsCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("penstock sessions", flag.ContinueOnError)
	dir := fs.String("data-dir", "./penstock-data", "`folder` of the running penstock dev")
	asJSON := fs.Bool("json", false, "print a JSON array")
	if err := fs.Parse(args); err != nil {
		return err
	}
	var views []sessionView
	if err := askAdmin(ctx, *dir, "/sessions", &views); err != nil {
		return err
	}
	if *asJSON {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		return enc.Encode(views)
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "SESSION\tUSER\tSTACK\tAPPLICATION\tSTATE\tCONNECTION\tENDPOINT")
	for _, v := range views {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, v.UserID, cmp.Or(string(v.Builder), v.StackName), v.Application, v.State, v.ConnectionState, v.EndpointID)
	}
	return w.Flush()
}

// adminTimeout bounds one question to the running server.
const adminTimeout = 10 * time.Second

// errNoServer is a data directory on which no server answers.
var errNoServer = errors.New("no server answers")

// askAdmin asks the server that runs on a data directory.
func askAdmin(ctx context.Context, dir, path string, into any) error {
	return askAdminBy(ctx, http.MethodGet, dir, path, into)
}

func askAdminBy(ctx context.Context, method, dir, path string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	info, err := readDevJSON(dir)
	if err != nil {
		return fmt.Errorf("no penstock dev has run on %s: %w", dir, err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", info.AdminSocket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, method, "http://admin"+path, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("penstock dev does not answer on %s: %w (%w)", info.AdminSocket, errors.Unwrap(err), errNoServer)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		reason, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return fmt.Errorf("penstock dev answered %s: %s", resp.Status, strings.TrimSpace(string(reason)))
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// maxSocketPath is what fits into a unix socket's address, less a reserve.
const maxSocketPath = 100

// adminSocket is where the operator's tools reach the server: in the data directory, or below /tmp where that path is too long.
func adminSocket(dir string) (path string, cleanup func(), err error) {
	path = filepath.Join(dir, "admin.sock")
	if len(path) <= maxSocketPath {
		return path, func() { _ = os.Remove(path) }, os.RemoveAll(path)
	}
	tmp, err := os.MkdirTemp("", "penstock-admin-")
	return filepath.Join(tmp, "admin.sock"), func() { _ = os.RemoveAll(tmp) }, err
}
