// Package appstreamtest holds the suite that every driver of appstream.Compute passes.
package appstreamtest

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/fault"
)

// Patience bounds every wait of the suite. It is no measure of anything.
const Patience = 60 * time.Second

// Rig is a driver under test.
type Rig struct {
	Compute appstream.Compute
	// Leftovers names what is on the machine of instances that this driver started and that are no more: processes, files, sockets,
	// shared memory. Nil when it cannot be known.
	Leftovers func() []string
	// OwnUser says that instances are kept apart by the machine's users.
	OwnUser bool
}

// Compute runs the suite. open makes a driver without instances, runs it, and ends it with the test.
func Compute(t *testing.T, open func(t *testing.T) *Rig) {
	for _, c := range []struct {
		name string
		run  func(t *testing.T, r *Rig)
	}{
		{"a session from start to stop", testSession},
		{"a viewer comes, goes and is told of the end", testViewer},
		{"the viewer ends the session", testViewerEnds},
		{"the application closes", testApplicationCloses},
		{"a program that hands over to a child is not over", testHandover},
		{"an application that is not there", testMissingApplication},
		{"a second application of the same session", testSecondApplication},
		{"another session on the same instance", testOtherSession},
		{"unknown instances", testUnknown},
		{"the agent is killed", testKilledAgent},
		{"the agent hangs", testHungAgent},
		{"stop during start", testStopDuringStart},
		{"start is given up", testStartGivenUp},
		{"the same start twice", testStartTwice},
		{"four at once", testParallel},
		{"instances are apart", testApart},
		{"the application cannot outlive its instance", testStubborn},
		{"waiting for events ends with its context", testNext},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := open(t)
			c.run(t, r)
			r.clean(t)
		})
	}
}

func (r *Rig) clean(t *testing.T) {
	t.Helper()
	ids, err := r.Compute.Running(within(t))
	if err != nil {
		t.Error(err)
	}
	for _, id := range ids {
		if err := r.Compute.Stop(within(t), id, appstream.EndByAdministrator, "test is over"); err != nil {
			t.Error(err)
		}
	}
	if r.Leftovers == nil {
		return
	}
	for _, l := range r.Leftovers() {
		t.Errorf("left behind: %s", l)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	t.Cleanup(cancel)
	return ctx
}

// ID makes the ID of the n-th instance of a test.
func ID(n int) appstream.InstanceID { return appstream.InstanceID(fmt.Sprintf("i-%017x", n)) }

func session(name string, command ...string) appstream.SessionSpec {
	return appstream.SessionSpec{
		ID: appstream.SessionID("session-" + name), UserID: "ana", Stack: "stack", Fleet: "fleet", Endpoint: appstream.InternetEndpoint,
		Application:       appstream.Application{Name: name, DisplayName: name, Command: command},
		ControlKey:        make([]byte, ed25519.PublicKeySize),
		DisconnectTimeout: time.Minute, DisplayPort: 1400, Width: 1024, Height: 768,
	}
}

func (r *Rig) start(t *testing.T, id appstream.InstanceID) appstream.InstanceInfo {
	t.Helper()
	info, err := r.Compute.Start(within(t), appstream.InstanceSpec{ID: id, Fleet: "fleet"})
	if err != nil {
		t.Fatal(err)
	}
	if len(info.PublicKey) != ed25519.PublicKeySize {
		t.Errorf("public key has %d bytes, want %d", len(info.PublicKey), ed25519.PublicKeySize)
	}
	return info
}

func (r *Rig) begin(t *testing.T, id appstream.InstanceID, s appstream.SessionSpec) {
	t.Helper()
	if err := r.Compute.Begin(within(t), id, s); err != nil {
		t.Fatal(err)
	}
}

func (r *Rig) stop(t *testing.T, id appstream.InstanceID) {
	t.Helper()
	if err := r.Compute.Stop(within(t), id, appstream.EndByAdministrator, "an administrator ended the session"); err != nil {
		t.Error(err)
	}
}

func (r *Rig) next(t *testing.T) appstream.InstanceEvent {
	t.Helper()
	e, err := r.Compute.Next(within(t))
	if err != nil {
		t.Fatalf("no event came: %v", err)
	}
	return e
}

// quiet fails the test when an event is there.
func (r *Rig) quiet(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if e, err := r.Compute.Next(ctx); err == nil {
		t.Errorf("unexpected event %+v", e)
	}
}

func testSession(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	ids, err := r.Compute.Running(within(t))
	if err != nil || len(ids) != 1 || ids[0] != id {
		t.Errorf("running: got %v, %v; want %s alone", ids, err, id)
	}
	conn, err := r.Compute.Dial(within(t), id)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(Patience))
	_, _ = io.WriteString(conn, "GET /nothing-here HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("agent does not speak HTTP: %v", err)
	}
	_ = resp.Body.Close()
	r.begin(t, id, session("xterm", "xterm"))
	AwaitWindows(t, info, "xterm")
	r.quiet(t)
	r.stop(t, id)
	r.quiet(t)
	r.stop(t, id)
	if c, err := r.Compute.Dial(within(t), id); err == nil {
		_ = c.Close()
		t.Error("a stopped instance can be dialled")
	}
}

// viewer is a control connection of the channel protocol.
type viewer struct {
	ws *websocket.Conn
	t  *testing.T
}

// connect opens a control connection with a ticket of the broker's, says hello and waits for the welcome.
func (r *Rig) connect(t *testing.T, id appstream.InstanceID, s appstream.SessionSpec, key ed25519.PrivateKey) *viewer {
	t.Helper()
	ticket, err := appstream.SignTicket(key, appstream.Ticket{
		ID: rand.Text(), KeyID: appstream.KeyControl, Session: s.ID, Endpoint: s.Endpoint, Channel: appstream.ChannelControl,
		Expires: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return r.Compute.Dial(ctx, id) },
	}}
	ws, resp, err := websocket.Dial(within(t), "ws://agent/v1/channel/control", &websocket.DialOptions{
		HTTPClient: client, Subprotocols: []string{"penstock.1", "ticket." + ticket}, CompressionMode: websocket.CompressionDisabled,
	})
	if err != nil {
		t.Fatal(err)
	}
	if resp.Body != nil {
		_ = resp.Body.Close()
	}
	t.Cleanup(func() { _ = ws.CloseNow() })
	v := &viewer{ws: ws, t: t}
	// hello: u8 type, u16 version, u32 capabilities, u16 width, u16 height, u16 scale, u8 flags
	v.send(0x01, 1, 0, 0, 0, 0, 0, 0, 4, 0, 3, 100, 0, 0)
	v.await(0x02)
	return v
}

func (v *viewer) send(message ...byte) {
	v.t.Helper()
	if err := v.ws.Write(within(v.t), websocket.MessageBinary, message); err != nil {
		v.t.Fatal(err)
	}
}

// await reads until a message of this type comes, and returns its body.
func (v *viewer) await(kind byte) []byte {
	v.t.Helper()
	ctx := within(v.t)
	for {
		_, b, err := v.ws.Read(ctx)
		if err != nil {
			v.t.Fatalf("message %#x did not come: %v", kind, err)
		}
		if len(b) > 0 && b[0] == kind {
			return b[1:]
		}
	}
}

// awaitEnd reads "ended": u16 code, u16 length, reason.
func (v *viewer) awaitEnd(code appstream.EndCode, reason string) {
	v.t.Helper()
	b := v.await(0x07)
	if len(b) < 4 || appstream.EndCode(uint16(b[0])|uint16(b[1])<<8) != code || !strings.Contains(string(b[4:]), reason) {
		v.t.Errorf("viewer was told %q, want code %d and %q", b, code, reason)
	}
}

func keyed(t *testing.T, name string, command ...string) (appstream.SessionSpec, ed25519.PrivateKey) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	s := session(name, command...)
	s.ControlKey = public
	return s, key
}

func (r *Rig) expect(t *testing.T, want appstream.InstanceEvent) {
	t.Helper()
	got := r.next(t)
	if got.Reason = ""; got != want {
		t.Errorf("got event %+v, want %+v", got, want)
	}
}

func testViewer(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	s, key := keyed(t, "xterm", "xterm")
	r.begin(t, id, s)
	AwaitWindows(t, info, "xterm")
	v := r.connect(t, id, s, key)
	r.expect(t, appstream.InstanceEvent{Instance: id, Session: s.ID, Kind: appstream.ViewerConnected})
	_ = v.ws.CloseNow()
	r.expect(t, appstream.InstanceEvent{Instance: id, Session: s.ID, Kind: appstream.ViewerDisconnected})
	v = r.connect(t, id, s, key)
	r.expect(t, appstream.InstanceEvent{Instance: id, Session: s.ID, Kind: appstream.ViewerConnected})
	stopped := make(chan struct{})
	go func() { defer close(stopped); r.stop(t, id) }()
	v.awaitEnd(appstream.EndByAdministrator, "an administrator ended the session")
	<-stopped
}

func testViewerEnds(t *testing.T, r *Rig) {
	id := ID(1)
	r.start(t, id)
	s, key := keyed(t, "xterm", "xterm")
	r.begin(t, id, s)
	v := r.connect(t, id, s, key)
	r.expect(t, appstream.InstanceEvent{Instance: id, Session: s.ID, Kind: appstream.ViewerConnected})
	v.send(0x0b)
	v.awaitEnd(appstream.EndByUser, "")
	e := r.next(t)
	if e.Kind == appstream.ViewerDisconnected {
		e = r.next(t)
	}
	if e.Kind != appstream.SessionOver || e.Code != appstream.EndByUser || e.Session != s.ID {
		t.Errorf("got %+v, want that the user ended the session", e)
	}
}

func testApplicationCloses(t *testing.T, r *Rig) {
	for i, c := range []struct {
		name    string
		command []string
	}{
		{"ends by itself", []string{"xterm", "-e", "sleep 0.2"}},
		{"ends at once without a window", []string{"true"}},
		{"fails at once", []string{"sh", "-c", "exit 3"}},
	} {
		id := ID(i)
		r.start(t, id)
		s := session("app", c.command...)
		s.ID = appstream.SessionID(fmt.Sprint("s", i))
		r.begin(t, id, s)
		e := r.next(t)
		if e.Kind != appstream.SessionOver || e.Code != appstream.EndApplication || e.Session != s.ID || e.Instance != id || e.Reason == "" {
			t.Errorf("%s: got %+v, want the end of session %s because its application closed", c.name, e, s.ID)
		}
		r.stop(t, id)
	}
	r.quiet(t)
}

func testHandover(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	r.begin(t, id, session("launcher", "sh", "-c", "(sleep 0.5; exec xterm) & exit 0"))
	AwaitWindows(t, info, "xterm")
	r.quiet(t)
	CloseWindows(t, info)
	if e := r.next(t); e.Kind != appstream.SessionOver || e.Code != appstream.EndApplication {
		t.Errorf("got %+v, want the session's end", e)
	}
	r.stop(t, id)
}

func testMissingApplication(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	err := r.Compute.Begin(within(t), id, session("nothing", "no-such-program"))
	if err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("got %v, want an error that names the program", err)
	}
	r.quiet(t)
	r.begin(t, id, session("xterm", "xterm"))
	AwaitWindows(t, info, "xterm")
}

func testSecondApplication(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	s := session("one", "xterm", "-name", "one", "-class", "One")
	r.begin(t, id, s)
	AwaitWindows(t, info, "One")
	s.Application = appstream.Application{Name: "two", Command: []string{"xterm", "-name", "two", "-class", "Two", "-e", "sleep 0.5"}}
	r.begin(t, id, s)
	AwaitWindows(t, info, "One", "Two")
	AwaitWindows(t, info, "One") // the second one closed, the session goes on
	r.quiet(t)
	CloseWindows(t, info)
	if e := r.next(t); e.Kind != appstream.SessionOver || e.Session != s.ID {
		t.Errorf("got %+v, want the session's end", e)
	}
}

func testOtherSession(t *testing.T, r *Rig) {
	id := ID(1)
	r.start(t, id)
	r.begin(t, id, session("one", "xterm"))
	if err := r.Compute.Begin(within(t), id, session("two", "xterm")); err == nil {
		t.Error("an instance took two sessions")
	}
}

func testUnknown(t *testing.T, r *Rig) {
	id := ID(99)
	var f *fault.Error
	if err := r.Compute.Begin(within(t), id, session("one", "xterm")); !errors.As(err, &f) || f.Kind != fault.NotFound {
		t.Errorf("begin: got %v, want not found", err)
	}
	if _, err := r.Compute.Dial(within(t), id); !errors.As(err, &f) || f.Kind != fault.NotFound {
		t.Errorf("dial: got %v, want not found", err)
	}
	r.stop(t, id)
	for _, bad := range []appstream.InstanceID{"", ".", "../../etc", "a/b", "i-\x00", appstream.InstanceID(strings.Repeat("i", 300))} {
		if _, err := r.Compute.Start(within(t), appstream.InstanceSpec{ID: bad}); err == nil {
			t.Errorf("instance %q was started", bad)
		}
		r.stop(t, bad)
	}
}

func testKilledAgent(t *testing.T, r *Rig) {
	idle, busy := ID(1), ID(2)
	a, b := r.start(t, idle), r.start(t, busy)
	if a.Local == nil {
		t.Skip("agents run elsewhere")
	}
	s := session("xterm", "xterm")
	r.begin(t, busy, s)
	AwaitWindows(t, b, "xterm")
	want := map[appstream.InstanceID]appstream.SessionID{idle: "", busy: s.ID}
	for _, info := range []appstream.InstanceInfo{a, b} {
		if err := syscall.Kill(info.Local.PID, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		e := r.next(t)
		session, ok := want[e.Instance]
		if !ok || e.Kind != appstream.InstanceGone || e.Session != session {
			t.Errorf("got %+v, want that instances %v are gone", e, want)
		}
		delete(want, e.Instance)
	}
	for _, id := range []appstream.InstanceID{idle, busy} {
		if _, err := r.Compute.Dial(within(t), id); err == nil {
			t.Errorf("instance %s can be dialled without its agent", id)
		}
		r.stop(t, id)
	}
	r.quiet(t)
	r.start(t, idle) // its place is free again
}

func testHungAgent(t *testing.T, r *Rig) {
	id := ID(1)
	info := r.start(t, id)
	if info.Local == nil {
		t.Skip("agents run elsewhere")
	}
	r.begin(t, id, session("xterm", "xterm"))
	AwaitWindows(t, info, "xterm")
	if err := syscall.Kill(info.Local.PID, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	r.stop(t, id)
	r.quiet(t)
}

func testStopDuringStart(t *testing.T, r *Rig) {
	for i, after := range []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 50 * time.Millisecond, 150 * time.Millisecond, 300 * time.Millisecond} {
		id := ID(i)
		started := make(chan error, 1)
		go func() {
			_, err := r.Compute.Start(within(t), appstream.InstanceSpec{ID: id})
			started <- err
		}()
		time.Sleep(after) // where in its start the instance is then, is the machine's choice; any place is good
		r.stop(t, id)
		select {
		case err := <-started:
			if err == nil && after == 0 {
				t.Log("start was quicker than stop") // or the stop came before it: then it runs, and rightly so
			}
		case <-time.After(Patience):
			t.Fatal("start does not return though its instance was stopped")
		}
		r.stop(t, id)
	}
	r.quiet(t)
}

func testStartGivenUp(t *testing.T, r *Rig) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Compute.Start(ctx, appstream.InstanceSpec{ID: ID(1)}); err == nil {
		t.Error("started though nobody waited")
	}
	ctx, cancel = context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	_, err := r.Compute.Start(ctx, appstream.InstanceSpec{ID: ID(2)})
	if err == nil {
		t.Log("the machine was quicker")
		return
	}
	ids, err := r.Compute.Running(within(t))
	if err != nil || len(ids) != 0 {
		t.Errorf("got %v, %v; want no instance", ids, err)
	}
}

func testStartTwice(t *testing.T, r *Rig) {
	var all sync.WaitGroup
	var keys [3]string
	for i := range keys {
		all.Go(func() {
			info, err := r.Compute.Start(within(t), appstream.InstanceSpec{ID: ID(1)})
			if err != nil {
				t.Error(err)
			}
			keys[i] = string(info.PublicKey)
		})
	}
	all.Wait()
	if keys[0] != keys[1] || keys[1] != keys[2] {
		t.Error("the same instance was started more than once")
	}
}

func testParallel(t *testing.T, r *Rig) {
	var all sync.WaitGroup
	displays := make([]string, 4)
	for i := range displays {
		all.Go(func() {
			id := ID(i)
			info, err := r.Compute.Start(within(t), appstream.InstanceSpec{ID: id})
			if err != nil {
				t.Error(err)
				return
			}
			if info.Local != nil {
				displays[i] = info.Local.Display
			}
			class := fmt.Sprint("Number", i)
			s := session("xterm", "xterm", "-class", class)
			s.ID = appstream.SessionID(class)
			if err := r.Compute.Begin(within(t), id, s); err != nil {
				t.Error(err)
				return
			}
			AwaitWindows(t, info, class)
		})
	}
	all.Wait()
	seen := make(map[string]bool)
	for _, d := range displays {
		if d != "" && seen[d] {
			t.Errorf("two instances share display %s", d)
		}
		seen[d] = true
	}
	for i := range displays {
		all.Go(func() { r.stop(t, ID(i)) })
	}
	all.Wait()
}

// testApart runs a curious program in one instance that looks for what another one has.
func testApart(t *testing.T, r *Rig) {
	if !r.OwnUser {
		t.Skip("instances share the server's user")
	}
	victim, curious := r.start(t, ID(1)), r.start(t, ID(2))
	if victim.Local == nil {
		t.Skip("agents run elsewhere")
	}
	r.begin(t, ID(1), session("xterm", "xterm", "-e", "echo secret >$HOME/secret; sleep 1000"))
	AwaitWindows(t, victim, "xterm")
	folder := filepath.Dir(victim.Local.Xauthority)
	script := `
try() { name=$1; shift; if "$@" >/dev/null 2>&1; then echo "can $name"; else echo "cannot $name"; fi; }
{
try list ls "$FOLDER"
try home ls "$FOLDER/home"
try secret cat "$FOLDER/home/secret"
try cookie cat "$FOLDER/Xauthority"
try viewers test -e "$FOLDER/viewer.sock"
try signal kill -0 "$AGENT"
try memory head -c1 "/proc/$AGENT/maps"
try environment cat "/proc/$AGENT/environ"
try ownagent head -c1 "/proc/$OWN/environ"
try setuid setsid -w su -c true </dev/null
try display env DISPLAY="$VICTIM" xprop -root
try owndisplay xprop -root
try root cat /etc/shadow
echo groups $(id -G)
echo limits $(ulimit -c)
echo umask $(umask)
echo caps $(grep -h CapBnd /proc/self/status)
echo nnp $(grep -h NoNewPrivs /proc/self/status)
env
} >"$HOME/result.new" 2>&1
mv "$HOME/result.new" "$HOME/result"
sleep 1000`
	s := session("curious", "env", "FOLDER="+folder, fmt.Sprint("AGENT=", victim.Local.PID), fmt.Sprint("OWN=", curious.Local.PID),
		"VICTIM="+victim.Local.Display, "xterm", "-e", "sh", "-c", script)
	s.ID = "curious"
	r.begin(t, ID(2), s)
	var got string
	Await(t, "the curious program's findings", func() bool {
		b, err := os.ReadFile(filepath.Join(filepath.Dir(curious.Local.Xauthority), "home/result"))
		got = string(b)
		return err == nil
	})
	for _, want := range []string{
		"cannot list", "cannot home", "cannot secret", "cannot cookie", "cannot viewers", "cannot signal", "cannot memory", "cannot environment",
		"cannot ownagent", "cannot setuid", "cannot display", "can owndisplay", "cannot root",
		"limits 0", "umask 0077", "caps CapBnd: 0000000000000000", "nnp NoNewPrivs: 1",
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("want %q in the findings", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	for _, name := range []string{"SSH_", "AWS_", "SECRET"} {
		if strings.Contains(got, "\n"+name) {
			t.Errorf("a variable %s… of the server reached an application", name)
		}
	}
}

func testStubborn(t *testing.T, r *Rig) {
	info := r.start(t, ID(1))
	// Ignores signals, leaves its session and process group, clears its environment, and leaves files in shared folders.
	const script = `trap '' TERM HUP INT
(setsid env -i sh -c 'trap "" TERM HUP; touch /tmp/stubborn.$$ /dev/shm/stubborn.$$; while :; do sleep 100; done') &
(setsid nohup sh -c 'setsid sh -c "sleep 1000 & sleep 1000" & sleep 1000' >/dev/null 2>&1) &
exec xterm -e 'trap "" TERM HUP; while :; do sleep 100; done'`
	r.begin(t, ID(1), session("stubborn", "sh", "-c", script))
	AwaitWindows(t, info, "xterm")
	r.stop(t, ID(1))
}

func testNext(t *testing.T, r *Rig) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := r.Compute.Next(ctx)
		done <- err
	}()
	cancel()
	select {
	case err := <-done:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was cancelled", err)
		}
	case <-time.After(Patience):
		t.Error("next outlives its context")
	}
}

// Await polls until ok, at most for Patience.
func Await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Errorf("%s did not come", what)
			return
		}
	}
}

// display opens the instance's display with its cookie.
func display(t testing.TB, info appstream.InstanceInfo) (*xgb.Conn, xproto.Window) {
	t.Helper()
	auth, err := os.ReadFile(info.Local.Xauthority)
	if err != nil || len(auth) < 16 {
		t.Fatalf("read cookie: %v", err)
	}
	var dialer net.Dialer
	raw, err := dialer.DialContext(t.Context(), "unix", "/tmp/.X11-unix/X"+strings.TrimPrefix(info.Local.Display, ":"))
	if err != nil {
		t.Fatalf("open display %s: %v", info.Local.Display, err)
	}
	c, err := xgb.NewConnNet(&withCookie{Conn: raw, cookie: auth[len(auth)-16:]})
	if err != nil {
		t.Fatalf("open display %s: %v", info.Local.Display, err)
	}
	return c, xproto.Setup(c).DefaultScreen(c).Root
}

// withCookie sends the cookie in the first request, which the X library takes from the process's environment alone.
type withCookie struct {
	net.Conn
	cookie []byte // nil once sent
}

// Write replaces the connection's set-up: u8 byte order, u8, u16 major, u16 minor, u16 name's length, u16 cookie's length, u16, name, cookie.
func (c *withCookie) Write(b []byte) (int, error) {
	if c.cookie == nil {
		return c.Conn.Write(b)
	}
	setup := append([]byte{'l', 0, 11, 0, 0, 0, 18, 0, 16, 0, 0, 0}, "MIT-MAGIC-COOKIE-1\x00\x00"...)
	setup = append(setup, c.cookie...)
	c.cookie = nil
	if _, err := c.Conn.Write(setup); err != nil {
		return 0, err
	}
	return len(b), nil
}

func property(c *xgb.Conn, w xproto.Window, name string) []byte {
	a, err := xproto.InternAtom(c, false, uint16(len(name)), name).Reply()
	if err != nil {
		return nil
	}
	r, err := xproto.GetProperty(c, false, w, a.Atom, xproto.GetPropertyTypeAny, 0, 4096).Reply()
	if err != nil {
		return nil
	}
	return r.Value
}

// windows returns those that the window manager knows, with their classes.
func windows(c *xgb.Conn, root xproto.Window) map[xproto.Window]string {
	all := make(map[xproto.Window]string)
	list := property(c, root, "_NET_CLIENT_LIST")
	for ; len(list) >= 4; list = list[4:] {
		w := xproto.Window(xgb.Get32(list))
		all[w] = strings.ReplaceAll(string(property(c, w, "WM_CLASS")), "\x00", " ")
	}
	return all
}

// AwaitWindows waits until the screen of an instance on this machine shows exactly one window for each of these classes.
func AwaitWindows(t testing.TB, info appstream.InstanceInfo, classes ...string) {
	t.Helper()
	if info.Local == nil {
		return
	}
	c, root := display(t, info)
	defer c.Close()
	Await(t, fmt.Sprintf("window of %v", classes), func() bool {
		all := windows(c, root)
		for _, class := range classes {
			found := false
			for _, has := range all {
				found = found || strings.Contains(strings.ToLower(has), strings.ToLower(class))
			}
			if !found {
				return false
			}
		}
		return len(all) == len(classes)
	})
}

// CloseWindows ends the clients of all windows.
func CloseWindows(t testing.TB, info appstream.InstanceInfo) {
	t.Helper()
	if info.Local == nil {
		return
	}
	c, root := display(t, info)
	defer c.Close()
	for w := range windows(c, root) {
		if err := xproto.KillClientChecked(c, uint32(w)).Check(); err != nil {
			t.Error(err)
		}
	}
}

// Geometry returns place and size of the window with this class on the screen: x, y, width, height; and the screen's size.
func Geometry(t testing.TB, info appstream.InstanceInfo, class string) (window [4]int, screen [2]int) {
	t.Helper()
	c, root := display(t, info)
	defer c.Close()
	if g, err := xproto.GetGeometry(c, xproto.Drawable(root)).Reply(); err == nil {
		screen = [2]int{int(g.Width), int(g.Height)}
	}
	for w, has := range windows(c, root) {
		if !strings.Contains(strings.ToLower(has), strings.ToLower(class)) {
			continue
		}
		g, err := xproto.GetGeometry(c, xproto.Drawable(w)).Reply()
		if err != nil {
			t.Fatal(err)
		}
		at, err := xproto.TranslateCoordinates(c, w, root, 0, 0).Reply()
		if err != nil {
			t.Fatal(err)
		}
		return [4]int{int(at.DstX), int(at.DstY), int(g.Width), int(g.Height)}, screen
	}
	return window, screen
}
