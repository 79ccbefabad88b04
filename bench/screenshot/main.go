// Command screenshot writes the top left part of the X server's own picture as raw bytes, four a pixel: red, green, blue, 255.
// The benchmarks compare with it what a viewer shows.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/jezek/xgb"
	"github.com/jezek/xgb/xproto"
)

func main() {
	width := flag.Uint("width", 1280, "width in pixels")
	height := flag.Uint("height", 720, "height in pixels")
	flag.Parse()
	if err := run(uint16(*width), uint16(*height)); err != nil {
		fmt.Fprintln(os.Stderr, "screenshot:", err)
		os.Exit(1)
	}
}

func run(width, height uint16) error {
	conn, err := xgb.NewConn()
	if err != nil {
		return fmt.Errorf("connect to the X server: %w", err)
	}
	defer conn.Close()
	root := xproto.Setup(conn).DefaultScreen(conn).Root
	image, err := xproto.GetImage(conn, xproto.ImageFormatZPixmap, xproto.Drawable(root), 0, 0, width, height, ^uint32(0)).Reply()
	if err != nil {
		return fmt.Errorf("get the picture: %w", err)
	}
	pixels := image.Data
	if len(pixels) != int(width)*int(height)*4 {
		return fmt.Errorf("%d bytes for %d×%d pixels: the screen has not four bytes a pixel", len(pixels), width, height)
	}
	for i := 0; i < len(pixels); i += 4 {
		pixels[i], pixels[i+2], pixels[i+3] = pixels[i+2], pixels[i], 255
	}
	_, err = os.Stdout.Write(pixels)
	return err
}
