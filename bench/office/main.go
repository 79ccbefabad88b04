// Command office is the X11 application of the office benchmark: thirty seconds of text work, the same every time. Two
// terminals (xterm) over a plain window show typing at human pace, output that scrolls, pages that are turned and a window that
// is dragged. It prints "begins" and "ends".
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// When each part of the script begins, from the start on; the last one lasts until end.
const (
	typing    = 0 * time.Second
	scrolling = 8 * time.Second
	turning   = 16 * time.Second
	dragging  = 22 * time.Second
	closing   = 28 * time.Second
	end       = 30 * time.Second
)

func main() {
	delay := flag.Duration("delay", 4*time.Second, "from the start of the program to the beginning")
	scale := flag.Float64("scale", 1, "share of the thirty seconds that the script takes")
	pane := flag.String("pane", "", "run as the program inside one of the terminals, page or note")
	start := flag.Int64("start", 0, "when the script begins, in milliseconds since 1970")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	script := script{start: time.UnixMilli(*start), scale: *scale}
	var err error
	switch *pane {
	case "":
		script.start = time.UnixMilli(time.Now().Add(*delay).UnixMilli())
		err = run(ctx, script)
	case "page":
		err = page(ctx, script)
	case "note":
		err = note(ctx, script)
	default:
		err = fmt.Errorf("there is no pane %q", *pane)
	}
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, "office:", err)
		os.Exit(1)
	}
}

// A script is the time line that all parts of the program share.
type script struct {
	start time.Time
	scale float64
}

// at waits until the time of the script has come.
func (s script) at(ctx context.Context, t time.Duration) error {
	select {
	case <-time.After(time.Until(s.start.Add(time.Duration(float64(t) * s.scale)))):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run shows the windows, moves the smaller terminal in its part of the script and ends both with it.
func run(ctx context.Context, s script) error {
	conn, err := xgb.NewConn()
	if err != nil {
		return fmt.Errorf("connect to the X server: %w", err)
	}
	defer conn.Close()
	screen := xproto.Setup(conn).DefaultScreen(conn)
	desk, err := xproto.NewWindowId(conn)
	if err != nil {
		return fmt.Errorf("allocate a window: %w", err)
	}
	err = xproto.CreateWindowChecked(conn, screen.RootDepth, desk, screen.Root, 0, 0, 1280, 720, 0, xproto.WindowClassInputOutput,
		screen.RootVisual, xproto.CwBackPixel|xproto.CwOverrideRedirect, []uint32{0x4a6a8a, 1}).Check()
	if err != nil {
		return fmt.Errorf("create the window behind: %w", err)
	}
	if err := xproto.MapWindowChecked(conn, desk).Check(); err != nil {
		return fmt.Errorf("show the window behind: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	var terminals sync.WaitGroup
	defer terminals.Wait()
	defer cancel()
	if _, err := terminal(ctx, &terminals, conn, screen.Root, s, "page", "120x38+20+20"); err != nil {
		return err
	}
	small, err := terminal(ctx, &terminals, conn, screen.Root, s, "note", fmt.Sprintf("56x18+%d+%d", dragX(0), dragY(0)))
	if err != nil {
		return err
	}
	if time.Until(s.start) < 0 {
		return errors.New("the terminals were not there when the script began: give it more delay")
	}
	if err := s.at(ctx, 0); err != nil {
		return err
	}
	fmt.Println("begins")
	for t := dragging; t < closing; t += time.Second / 60 {
		if err := s.at(ctx, t); err != nil {
			return err
		}
		part := float64(t-dragging) / float64(closing-dragging)
		xproto.ConfigureWindow(conn, small, xproto.ConfigWindowX|xproto.ConfigWindowY, []uint32{uint32(dragX(part)), uint32(dragY(part))})
	}
	if err := s.at(ctx, end); err != nil {
		return err
	}
	fmt.Println("ends")
	<-ctx.Done() // the picture stays until it has been looked at
	return nil
}

// The smaller terminal's place, part of the way along its path.
func dragX(part float64) int { return 700 - int(330*(1-math.Cos(part*4*math.Pi))) }
func dragY(part float64) int { return 380 - int(170*math.Sin(part*6*math.Pi)) }

// terminal starts xterm without a window manager's frame, with the pane inside, and returns its window once it is shown.
func terminal(
	ctx context.Context, terminals *sync.WaitGroup, conn *xgb.Conn, root xproto.Window, s script, pane, geometry string,
) (xproto.Window, error) {
	program, err := os.Executable()
	if err != nil {
		return 0, fmt.Errorf("find this program: %w", err)
	}
	before, err := xproto.QueryTree(conn, root).Reply()
	if err != nil {
		return 0, fmt.Errorf("list windows: %w", err)
	}
	command := exec.CommandContext(ctx, "xterm", "-xrm", "*overrideRedirect: true", "-fa", "DejaVu Sans Mono", "-fs", "10", "-b", "4", "+sb", "-bg", "#fdfdfa", "-fg", "#202428", "-uc",
		"-geometry", geometry,
		"-e", program, "-pane", pane, "-start", strconv.FormatInt(s.start.UnixMilli(), 10), "-scale", fmt.Sprint(s.scale))
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		return 0, fmt.Errorf("start a terminal: %w", err)
	}
	terminals.Go(func() { _ = command.Wait() }) // the context ends it
	for range 1000 {
		tree, err := xproto.QueryTree(conn, root).Reply()
		if err != nil {
			return 0, fmt.Errorf("list windows: %w", err)
		}
		for _, window := range tree.Children {
			if slices.Contains(before.Children, window) {
				continue
			}
			attributes, err := xproto.GetWindowAttributes(conn, window).Reply()
			if err == nil && attributes.MapState == xproto.MapStateViewable {
				return window, nil
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("terminal %s did not appear", pane)
}
