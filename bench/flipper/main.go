// Command flipper is the X11 application that the latency benchmark types into and clicks on: a window without decoration at
// the top left of the screen, in which every press of a key or a button repaints an area in the next colour. It speaks X11
// itself, so that no toolkit's time is measured, and takes the keyboard, so that no window manager decides who gets the key.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

// colours in the order in which they are shown; bench/latency.mjs knows the same list.
var colours = []uint32{0xd02020, 0x20a040, 0x2040d0, 0xd0a020, 0x20a0c0, 0xa020c0}

func main() {
	width := flag.Uint("width", 1280, "width of the window in pixels")
	height := flag.Uint("height", 720, "height of the window in pixels")
	area := xproto.Rectangle{Width: 200, Height: 200}
	flag.Func("area", "`WIDTHxHEIGHT` of what changes, in pixels (default 200x200)", func(text string) error {
		_, err := fmt.Sscanf(text, "%dx%d", &area.Width, &area.Height)
		return err
	})
	still := flag.Bool("still", false, "take no keyboard, answer to nothing and let other windows cover this one")
	flag.Parse()
	if err := run(uint16(*width), uint16(*height), area, *still); err != nil {
		fmt.Fprintln(os.Stderr, "flipper:", err)
		os.Exit(1)
	}
}

// run shows the window and repaints until the X server goes away.
func run(width, height uint16, area xproto.Rectangle, still bool) error {
	conn, err := xgb.NewConn()
	if err != nil {
		return fmt.Errorf("connect to the X server: %w", err)
	}
	defer conn.Close()
	screen := xproto.Setup(conn).DefaultScreen(conn)
	window, err := xproto.NewWindowId(conn)
	if err != nil {
		return fmt.Errorf("allocate a window: %w", err)
	}
	events := uint32(xproto.EventMaskExposure)
	if !still {
		events |= xproto.EventMaskKeyPress | xproto.EventMaskButtonPress | xproto.EventMaskVisibilityChange
	}
	err = xproto.CreateWindowChecked(conn, screen.RootDepth, window, screen.Root, 0, 0, width, height, 0,
		xproto.WindowClassInputOutput, screen.RootVisual,
		xproto.CwBackPixel|xproto.CwOverrideRedirect|xproto.CwEventMask,
		[]uint32{screen.WhitePixel, 1, events},
	).Check()
	if err != nil {
		return fmt.Errorf("create the window: %w", err)
	}
	paint, err := xproto.NewGcontextId(conn)
	if err != nil {
		return fmt.Errorf("allocate a graphics context: %w", err)
	}
	if err := xproto.CreateGCChecked(conn, paint, xproto.Drawable(window), 0, nil).Check(); err != nil {
		return fmt.Errorf("create a graphics context: %w", err)
	}
	xproto.MapWindow(conn, window)
	fmt.Println("shown")

	shown := 0
	for {
		event, xerr := conn.WaitForEvent()
		if event == nil && xerr == nil {
			return nil // the X server ended
		}
		switch event := event.(type) {
		case xproto.KeyPressEvent, xproto.ButtonPressEvent:
			shown = (shown + 1) % len(colours)
		case xproto.VisibilityNotifyEvent:
			if event.State != xproto.VisibilityUnobscured {
				xproto.ConfigureWindow(conn, window, xproto.ConfigWindowStackMode, []uint32{xproto.StackModeAbove})
			}
			// Refused while another client holds the keyboard: the focus is enough then.
			xproto.SetInputFocus(conn, xproto.InputFocusPointerRoot, window, xproto.TimeCurrentTime)
			xproto.GrabKeyboard(conn, true, window, xproto.TimeCurrentTime, xproto.GrabModeAsync, xproto.GrabModeAsync)
		case xproto.ExposeEvent:
		default:
			continue
		}
		xproto.ChangeGC(conn, paint, xproto.GcForeground, []uint32{colours[shown]})
		xproto.PolyFillRectangle(conn, xproto.Drawable(window), paint, []xproto.Rectangle{area})
	}
}
