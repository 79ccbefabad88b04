package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"penstock.dev/penstock/internal/agent"
	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/compute/guest"
	"penstock.dev/penstock/internal/compute/process"
	"penstock.dev/penstock/internal/encode"
	"penstock.dev/penstock/internal/media"
	"penstock.dev/penstock/internal/transport"
	"penstock.dev/penstock/internal/video"
	"penstock.dev/penstock/internal/wire/linkapi"
	"penstock.dev/penstock/internal/x11"
)

const (
	linkFD        = 3                      // what the driver hands over
	configureTime = 10 * time.Second       // for the first message
	readyTime     = 14 * time.Second       // for display and window manager
	politeTime    = 400 * time.Millisecond // for applications to end by themselves
	farewellTime  = time.Second            // for viewers to be told why the session ended

	// The screen until a viewer says what it wishes.
	startWidth, startHeight = 1280, 800
)

// agentCommand runs one instance, as the driver that started it says over file descriptor 3. Its first life only gives up privileges.
func agentCommand(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("agent", flag.ContinueOnError)
	confine := fs.String("confine", "", "first give up all privileges and become the user with this `UID` (-1: stay)")
	endUser := fs.Bool("end-user", false, "end all processes of this user, which must be an instance's own")
	if err := fs.Parse(args); err != nil {
		return err
	}
	switch {
	case fs.NArg() > 0:
		return fmt.Errorf("unexpected argument %q", fs.Arg(0))
	case *endUser:
		return process.EndUser()
	case *confine != "":
		uid, err := strconv.Atoi(*confine)
		if err != nil {
			return fmt.Errorf("-confine: %w", err)
		}
		return process.Confine(uid, []string{"penstock", "agent"})
	}
	return runAgent(ctx)
}

// runAgent lives until its link or ctx ends, and leaves no process behind.
func runAgent(ctx context.Context) error {
	// The server reads what is logged; when it is no more, a line to log must not end the agent before it has ended the rest.
	// Caught, not ignored: applications would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	link, err := openLink()
	if err != nil {
		return err
	}
	defer link.conn.Close()
	if err := link.conn.SetReadDeadline(time.Now().Add(configureTime)); err != nil {
		return err
	}
	first, err := linkapi.Read(link.reader)
	if err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	if first.Configure == nil {
		return errors.New("first message on the link is no configuration")
	}
	if err := link.conn.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	stopProfile, err := profileAgent(first.Configure.ProfileFD)
	if err != nil {
		return err
	}
	defer stopProfile()
	level := slog.LevelInfo
	if first.Configure.Debug {
		level = slog.LevelDebug
	}
	in := &guestInstance{
		config: first.Configure, link: link,
		log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level, ReplaceAttr: withoutTime})),
	}
	return in.run(ctx)
}

func withoutTime(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{} // the server's log has it
	}
	return a
}

// agentLink is the connection to the driver: whose end is the instance's end.
type agentLink struct {
	conn   net.Conn
	reader *bufio.Reader
}

func openLink() (*agentLink, error) {
	// Whatever is started here must not keep the link, the lock of the user, or the file of a profile open.
	for _, fd := range []int{linkFD, linkFD + 1, linkFD + 2} {
		syscall.CloseOnExec(fd)
	}
	f := os.NewFile(linkFD, "link")
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("penstock starts its agents itself: no link on file descriptor %d: %w", linkFD, err)
	}
	_ = f.Close()
	return &agentLink{conn: conn, reader: bufio.NewReader(conn)}, nil
}

// guestInstance is what an agent runs.
type guestInstance struct {
	config  *linkapi.Configure
	link    *agentLink
	log     *slog.Logger
	server  *x11.Server
	screen  *x11.Screen
	input   *x11.Input
	desktop *guest.Desktop
	agent   *agent.Agent
	streams chan struct{} // closed when the agent has ended; nil before it runs
	viewers *http.Server
	codecs  *video.Libraries
	session string
	over    bool
}

// run starts the parts, then follows the link.
func (in *guestInstance) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// It came to life through /proc/self/exe and would be listed as "exe".
	_ = os.WriteFile("/proc/self/comm", []byte("penstock"), 0)
	if err := guest.Adopt(); err != nil {
		return err
	}
	if in.config.OwnUser {
		if err := guest.Shield(); err != nil {
			return err
		}
	}
	go guest.Reap(ctx)
	messages := make(chan *linkapi.Message)
	go in.listen(ctx, cancel, messages)
	defer in.end(cancel)
	ready, err := in.start(ctx)
	if err != nil {
		_ = in.send(&linkapi.Message{Failed: &linkapi.Failed{Reason: err.Error()}})
		return err
	}
	if err := in.send(&linkapi.Message{Ready: ready}); err != nil {
		return err
	}
	agentCtx, endAgent := context.WithCancel(context.WithoutCancel(ctx)) // end tells it why first
	defer endAgent()
	in.streams = make(chan struct{})
	go func() {
		defer close(in.streams)
		if err := in.agent.Run(agentCtx); err != nil {
			in.log.Warn("stream ended", "error", err)
		}
	}()
	defer in.farewell(endAgent)
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-messages:
			if end, err := in.take(m); end || err != nil {
				return err
			}
		case e := <-in.agent.Events():
			in.report(e)
		case o := <-in.desktop.Over():
			in.desktopOver(o)
		case <-in.server.Done():
			in.desktopOver(guest.Over{Failed: true, Reason: "the display of the session ended"})
			return errors.New("X server ended")
		}
	}
}

// listen reads the link until it ends, which ends the agent.
func (in *guestInstance) listen(ctx context.Context, cancel context.CancelFunc, messages chan<- *linkapi.Message) {
	defer cancel()
	for {
		m, err := linkapi.Read(in.link.reader)
		if err != nil {
			if !errors.Is(err, io.EOF) && ctx.Err() == nil {
				in.log.Warn("link to the server ended", "error", err)
			}
			return
		}
		select {
		case messages <- m:
		case <-ctx.Done():
			return
		}
	}
}

func (in *guestInstance) send(m *linkapi.Message) error { return linkapi.Write(in.link.conn, m) }

// start brings up display, window manager and the viewers' socket.
func (in *guestInstance) start(ctx context.Context) (*linkapi.Ready, error) {
	ctx, cancel := context.WithTimeout(ctx, readyTime)
	defer cancel()
	place := guest.Place{Folder: in.config.Folder, Home: in.config.Home}
	if err := place.Prepare(); err != nil {
		return nil, err
	}
	kind := cmp.Or(x11.ServerKind(in.config.XServer), x11.Xvfb)
	program, err := guest.LookPath(kind.Program())
	if err != nil {
		return nil, fmt.Errorf("%s not found: install package %s", kind.Program(), kind.Package())
	}
	if _, err := guest.LookPath("openbox"); err != nil {
		return nil, errors.New("openbox not found: install package openbox")
	}
	in.server, err = x11.StartServer(ctx, x11.ServerOptions{
		Dir: in.config.Folder, Kind: kind, Program: program, Log: in.log.With("part", "x11"),
		MaxSize: media.Size{Width: int(in.config.MaxWidth), Height: int(in.config.MaxHeight)},
	})
	if err != nil {
		return nil, err
	}
	place.Display, place.Xauthority = in.server.Display(), in.server.Xauthority()
	if err := os.Setenv("XAUTHORITY", place.Xauthority); err != nil {
		return nil, err
	}
	if in.screen, err = in.server.OpenScreen(); err != nil {
		return nil, err
	}
	if err := in.screen.Resize(media.Size{Width: startWidth, Height: startHeight}); err != nil {
		return nil, err
	}
	if in.input, err = in.server.OpenInput(); err != nil {
		return nil, err
	}
	in.codecs = video.Load(in.log.With("part", "video"))
	if in.desktop, err = guest.Open(ctx, place, in.log.With("part", "desktop")); err != nil {
		return nil, err
	}
	in.agent, err = agent.New(agent.Options{
		Screen: in.screen, Input: in.input, Log: in.log.With("part", "agent"),
		NewEncoder: func(codecs media.Codecs) (media.Encoder, error) {
			return encode.NewTiles(codecs, encode.Options{Lossy: in.codecs, Log: in.log.With("part", "encoder")})
		},
	})
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(in.config.Folder, "viewer.sock")
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket) // the umask keeps it private
	if err != nil {
		return nil, fmt.Errorf("listen for viewers: %w", err)
	}
	in.viewers = &http.Server{
		Handler:           transport.NewHandler(in.agent, in.log.With("part", "transport")),
		ReadHeaderTimeout: configureTime, MaxHeaderBytes: 64 << 10,
		ErrorLog: slog.NewLogLogger(in.log.Handler(), slog.LevelDebug),
	}
	go func() { _ = in.viewers.Serve(l) }()
	return &linkapi.Ready{
		Display: place.Display, Xauthority: place.Xauthority, PID: os.Getpid(), PublicKey: in.agent.PublicKey(), Socket: socket,
	}, nil
}

// take handles one message of the driver; true ends the agent.
func (in *guestInstance) take(m *linkapi.Message) (end bool, err error) {
	switch {
	case m.End != nil:
		in.agent.End(appstream.EndCode(m.End.Code), m.End.Reason)
		return true, nil
	case m.Begin != nil:
		if err := in.begin(m.Begin); err != nil {
			return false, in.send(&linkapi.Message{Failed: &linkapi.Failed{Reason: err.Error()}})
		}
		return false, in.send(&linkapi.Message{Begun: &linkapi.Begun{Session: m.Begin.Session}})
	default:
		return true, fmt.Errorf("%w: not for an agent", linkapi.ErrMessage)
	}
}

// begin starts the session's application, or a further one of the same session.
func (in *guestInstance) begin(b *linkapi.Begin) error {
	switch {
	case in.over:
		return errors.New("the session is over")
	case in.session != "" && in.session != b.Session:
		return errors.New("the instance runs another session")
	}
	if in.session == "" {
		if err := in.arrange(b); err != nil {
			return err
		}
	}
	if err := in.desktop.Launch(guest.Program{
		Name: b.Application.Name, Command: b.Application.Command, WorkingDir: b.Application.WorkingDir, Env: sessionEnviron(b),
	}); err != nil {
		return err
	}
	in.session = b.Session
	in.log.Info("application started", "application", b.Application.Name)
	return in.agent.Begin(sessionSpec(b))
}

// arrange gives the screen its size and the desktop its scale before the first application starts: applications choose their size by the
// screen's, and some keep the scale that they started with.
func (in *guestInstance) arrange(b *linkapi.Begin) error {
	size, scale := media.Size{Width: int(b.Width), Height: int(b.Height)}, media.DefaultScale // a fixed screen's pixels are what was asked for
	if size == (media.Size{}) {
		size = media.Size{Width: int(b.Window.Width), Height: int(b.Window.Height)}
		scale = int(b.Window.Scale)
	}
	if size.Width == 0 || size.Height == 0 {
		size = in.screen.Size()
	}
	return in.screen.Arrange(media.SingleMonitor(size, scale).Fit(in.screen.MaxSize()))
}

// sessionEnviron is what applications learn of their session, by the names that AppStream's instances use.
func sessionEnviron(b *linkapi.Begin) []string {
	env := []string{
		"AppStream_Stack_Name=" + b.Stack, "AppStream_UserName=" + b.UserID, "AppStream_Session_ID=" + b.Session,
		"AppStream_User_Access_Mode=custom", // by streaming URL
	}
	if b.Context != "" {
		env = append(env, "AppStream_Session_Context="+b.Context)
	}
	return env
}

func sessionSpec(b *linkapi.Begin) appstream.SessionSpec {
	return appstream.SessionSpec{
		ID: appstream.SessionID(b.Session), UserID: b.UserID, Stack: b.Stack, Fleet: b.Fleet, Endpoint: appstream.EndpointID(b.Endpoint),
		Application: appstream.Application{
			Name: b.Application.Name, DisplayName: b.Application.DisplayName,
			Command: b.Application.Command, WorkingDir: b.Application.WorkingDir,
		},
		ControlKey: b.ControlKey, DisconnectTimeout: b.DisconnectTimeout, IdleTimeout: b.IdleTimeout,
		EndsAt: b.EndsAt, DisplayPort: b.DisplayPort, Width: b.Width, Height: b.Height,
	}
}

// report tells the driver what the agent saw.
func (in *guestInstance) report(e agent.Event) {
	out := &linkapi.Event{Session: string(e.Session), Code: uint16(e.Code), Reason: e.Reason}
	switch e.Kind {
	case agent.Connected:
		out.Kind = linkapi.Connected
	case agent.Disconnected:
		out.Kind = linkapi.Disconnected
	case agent.Over:
		if in.over {
			return
		}
		in.over, out.Kind = true, linkapi.Over
	default:
		return
	}
	if err := in.send(&linkapi.Message{Event: out}); err != nil {
		in.log.Warn("server was not told what happened", "event", out.Kind, "error", err)
	}
}

// desktopOver ends the stream because nothing is left to show.
func (in *guestInstance) desktopOver(o guest.Over) {
	if in.session == "" {
		return
	}
	code := appstream.EndApplication
	if o.Failed {
		code = appstream.EndInstanceFailed
	}
	in.agent.End(code, o.Reason)
	in.report(agent.Event{Kind: agent.Over, Session: appstream.SessionID(in.session), Code: code, Reason: o.Reason})
}

// farewell gives viewers a moment to hear why the session ended.
func (in *guestInstance) farewell(endAgent context.CancelFunc) {
	endAgent() // for a server that is no more, it says so; every other reason was said before
	select {
	case <-in.streams:
	case <-time.After(farewellTime):
	}
}

// end ends everything that the agent started, applications first and politely.
func (in *guestInstance) end(cancel context.CancelFunc) {
	cancel()
	if in.viewers != nil {
		_ = in.viewers.Close()
	}
	if in.desktop != nil {
		in.desktop.Retire(politeTime, in.server.PID())
		in.desktop.Close()
	}
	if in.input != nil {
		in.input.Close()
	}
	if in.screen != nil {
		in.screen.Close()
	}
	if in.server != nil {
		if err := in.server.Close(); err != nil {
			in.log.Warn("X server did not end well", "error", err)
		}
	}
	if err := guest.EndAll(in.config.OwnUser); err != nil {
		in.log.Error("instance did not end whole", "error", err)
	}
}
