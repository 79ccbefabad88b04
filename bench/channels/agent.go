package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os/signal"
	"syscall"
)

// frameSize is the payload of the frames that the agent sends: a large update of a screen.
const frameSize = 256 << 10

func serveAgent(path string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	fmt.Println("ready")
	frame := append(binary.BigEndian.AppendUint64([]byte{0x82, 127}, frameSize), make([]byte, frameSize)...)
	for {
		c, err := l.Accept()
		if err != nil {
			return nil // it was closed
		}
		go serve(c, frame)
	}
}

func serve(c net.Conn, frame []byte) {
	defer func() { _ = c.Close() }()
	want, rest, err := greet(c)
	if err != nil {
		return
	}
	switch want {
	case 'd':
		for {
			if _, err := c.Write(frame); err != nil {
				return
			}
		}
	case 'u':
		b := make([]byte, 256<<10)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
		}
	case 'e':
		b := make([]byte, 4096)
		if _, err := c.Write(rest); err != nil {
			return
		}
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			if _, err := c.Write(b[:n]); err != nil {
				return
			}
		}
	default:
		_, _ = c.Read(make([]byte, 1))
	}
}

// greet answers the upgrade and returns what is wanted, and what came with that; its buffers are gone afterwards.
func greet(c net.Conn) (want byte, rest []byte, err error) {
	r := bufio.NewReaderSize(c, 1024)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return 0, nil, err
		}
		if line == "\r\n" {
			break
		}
	}
	if _, err := io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n\r\n"); err != nil {
		return 0, nil, err
	}
	if want, err = r.ReadByte(); err != nil {
		return 0, nil, err
	}
	b, err := r.Peek(r.Buffered())
	return want, bytes.Clone(b), err
}
