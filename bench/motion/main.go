// Command motion is the X11 application that the full-motion benchmark watches: a window without decoration at the top left
// of the screen that shows a moving picture at a steady rate, as a video player does. Each frame carries its number five
// times, in cells of black and white in the corners and in the centre, so that a reader of the picture knows which frame it
// shows and whether it shows one frame whole. Frames are sent with one MIT-SHM request each: the X server never holds half a
// frame. A file says when each frame was sent.
package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/shm"
	"github.com/jezek/xgb/xproto"
	"golang.org/x/sys/unix"
)

func main() {
	width := flag.Int("width", 1280, "width of the window in pixels")
	height := flag.Int("height", 720, "height of the window in pixels")
	rate := flag.Int("rate", 60, "frames a second")
	log := flag.String("log", "", "file for a line a frame: its number, and the microseconds since 1970 when it was sent")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, *width, *height, *rate, *log); err != nil {
		fmt.Fprintln(os.Stderr, "motion:", err)
		os.Exit(1)
	}
}

// run plays until ctx ends or the X server goes away.
func run(ctx context.Context, width, height, rate int, log string) error {
	if width < 320 || height < 320 || rate < 1 || rate > 1000 {
		return fmt.Errorf("a picture of %d×%d at %d a second is not supported", width, height, rate)
	}
	file, err := os.Create(log)
	if err != nil {
		return fmt.Errorf("create the log of frames: %w", err)
	}
	times := bufio.NewWriter(file)
	defer func() { _ = errors.Join(times.Flush(), file.Close()) }()

	film := film{width: width, height: height}
	id, err := unix.SysvShmGet(unix.IPC_PRIVATE, film.size(), unix.IPC_CREAT|0o666) // the X server may run as another user
	if err != nil {
		return fmt.Errorf("get shared memory: %w", err)
	}
	memory, err := unix.SysvShmAttach(id, 0, 0)
	if err != nil {
		return fmt.Errorf("attach shared memory: %w", err)
	}
	// A segment marked for removal stays until the last process that is attached ends, and can still be attached on Linux.
	if _, err := unix.SysvShmCtl(id, unix.IPC_RMID, nil); err != nil {
		return fmt.Errorf("mark shared memory for removal: %w", err)
	}
	film.pixels = unsafe.Slice((*uint32)(unsafe.Pointer(&memory[0])), len(memory)/4)
	film.shoot()

	conn, err := xgb.NewConn()
	if err != nil {
		return fmt.Errorf("connect to the X server: %w", err)
	}
	defer conn.Close()
	if err := shm.Init(conn); err != nil {
		return fmt.Errorf("find MIT-SHM: %w", err)
	}
	segment, err := shm.NewSegId(conn)
	if err != nil {
		return fmt.Errorf("allocate a segment: %w", err)
	}
	if err := shm.AttachChecked(conn, segment, uint32(id), true).Check(); err != nil {
		return fmt.Errorf("attach the X server to shared memory: %w", err)
	}
	window, paint, depth, err := open(conn, uint16(width), uint16(height))
	if err != nil {
		return err
	}
	completed := make(chan struct{}, 8)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			event, xerr := conn.WaitForEvent()
			if event == nil && xerr == nil {
				return
			}
			if _, ok := event.(shm.CompletionEvent); ok {
				completed <- struct{}{}
			}
		}
	}()

	// At most one frame waits in the X server while the next is made; frames whose time has passed are left out.
	began := time.Now()
	pending := 0
	for number, tick := 0, 0; ; number++ {
		due := began.Add(time.Duration(tick) * time.Second / time.Duration(rate))
		select {
		case <-time.After(time.Until(due)):
		case <-ctx.Done():
			return nil
		}
		for pending > 1 {
			select {
			case <-completed:
				pending--
			case <-ended:
				return errors.New("the X server ended")
			}
		}
		copyNumber, left, top := film.expose(number, time.Since(began))
		fmt.Fprintf(times, "%d %d\n", number, time.Now().UnixMicro())
		shm.PutImage(conn, xproto.Drawable(window), paint, uint16(film.stride()), uint16(film.rows()),
			uint16(left), uint16(top), uint16(width), uint16(height), 0, 0,
			depth, xproto.ImageFormatZPixmap, 1, segment, uint32(copyNumber*film.stride()*film.rows()*4))
		pending++
		if number == 0 {
			fmt.Println("playing")
		}
		tick = max(tick+1, int(time.Since(began)*time.Duration(rate)/time.Second))
	}
}

// open maps the window over everything else.
func open(conn *xgb.Conn, width, height uint16) (xproto.Window, xproto.Gcontext, byte, error) {
	screen := xproto.Setup(conn).DefaultScreen(conn)
	window, err := xproto.NewWindowId(conn)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("allocate a window: %w", err)
	}
	err = xproto.CreateWindowChecked(conn, screen.RootDepth, window, screen.Root, 0, 0, width, height, 0,
		xproto.WindowClassInputOutput, screen.RootVisual, xproto.CwBackPixel|xproto.CwOverrideRedirect, []uint32{screen.BlackPixel, 1},
	).Check()
	if err != nil {
		return 0, 0, 0, fmt.Errorf("create the window: %w", err)
	}
	paint, err := xproto.NewGcontextId(conn)
	if err != nil {
		return 0, 0, 0, fmt.Errorf("allocate a graphics context: %w", err)
	}
	if err := xproto.CreateGCChecked(conn, paint, xproto.Drawable(window), 0, nil).Check(); err != nil {
		return 0, 0, 0, fmt.Errorf("create a graphics context: %w", err)
	}
	return window, paint, screen.RootDepth, xproto.MapWindowChecked(conn, window).Check()
}
