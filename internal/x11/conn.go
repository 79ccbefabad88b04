package x11

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// le is the byte order that this client asks the server for.
var le = binary.LittleEndian

// errClosed is what requests end with after the connection broke or was closed.
var errClosed = errors.New("connection to the X server is closed")

// errNoReply is what a call ends with whose request the server executed without a reply.
var errNoReply = errors.New("the X server has no reply to this request")

// xError is an error that the X server reported.
type xError struct {
	code  uint8
	major uint8
	minor uint16
	bad   uint32
}

func (e *xError) Error() string {
	return fmt.Sprintf("X error %d for request %d.%d (resource or value %#x)", e.code, e.major, e.minor, e.bad)
}

// conn is one connection to an X server: as much of the protocol as a screen's capture and input need. One
// goroutine reads; any may send.
//
// It is not a general client library. Those that exist for Go keep tables in package state that two
// connections write at once, take the cookie from the environment, and have no keyboard extension.
type conn struct {
	nc       net.Conn
	setup    setup
	onEvent  func(ev []byte) // on the reading goroutine; ev is valid during the call
	onError  func(*xError)   // of requests that nobody waits for; on the reading goroutine
	finished chan struct{}   // closed when the reader has ended

	mu      sync.Mutex // guards what follows and the order of writes
	seq     uint16
	nextID  uint32
	waiting map[uint16]*call
	broken  error
}

// setup is what the server said when the connection was made.
type setup struct {
	idBase, idMask         uint32
	minKeycode, maxKeycode uint8
	root                   uint32
	rootVisual             uint32
	rootDepth              uint8
	width, height          uint16
	imageOrder             uint8
}

// call is a request that somebody waits for.
type call struct {
	done  chan struct{}
	reply []byte // whole, from byte 0; nil for none
	err   error
}

const handshakeTimeout = 10 * time.Second

// dial connects to the display with the number and proves itself with the cookie. onEvent and onError may
// be nil.
func dial(display int, cookie []byte, onEvent func([]byte), onError func(*xError)) (*conn, error) {
	nc, err := net.DialTimeout("unix", socketPath(display), handshakeTimeout) //nolint:noctx // a local socket that answers or refuses at once
	if err != nil {
		return nil, fmt.Errorf("connect to X display :%d: %w", display, err)
	}
	c := &conn{
		nc: nc, onEvent: onEvent, onError: onError,
		finished: make(chan struct{}), waiting: map[uint16]*call{},
	}
	_ = nc.SetDeadline(time.Now().Add(handshakeTimeout))
	if err := c.handshake(cookie); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("connect to X display :%d: %w", display, err)
	}
	_ = nc.SetDeadline(time.Time{})
	go c.read()
	return c, nil
}

func socketPath(display int) string { return fmt.Sprintf("/tmp/.X11-unix/X%d", display) }

const cookieName = "MIT-MAGIC-COOKIE-1"

func (c *conn) handshake(cookie []byte) error {
	req := []byte{'l', 0, 11, 0, 0, 0}
	req = le.AppendUint16(req, uint16(len(cookieName)))
	req = le.AppendUint16(req, uint16(len(cookie)))
	req = append(req, 0, 0)
	req = pad(append(req, cookieName...))
	req = pad(append(req, cookie...))
	if _, err := c.nc.Write(req); err != nil {
		return err
	}
	head := make([]byte, 8)
	if _, err := io.ReadFull(c.nc, head); err != nil {
		return err
	}
	body := make([]byte, 4*int(le.Uint16(head[6:])))
	if _, err := io.ReadFull(c.nc, body); err != nil {
		return err
	}
	if head[0] != 1 {
		return fmt.Errorf("server refused: %q", body[:min(int(head[1]), len(body))])
	}
	// Offsets below count from the body's start. A screen follows the vendor's name and the formats.
	if len(body) < 32 {
		return errors.New("server's greeting is too short")
	}
	s := &c.setup
	s.idBase, s.idMask = le.Uint32(body[4:]), le.Uint32(body[8:])
	s.imageOrder = body[22]
	s.minKeycode, s.maxKeycode = body[26], body[27]
	screen := 32 + (int(le.Uint16(body[16:]))+3)&^3 + 8*int(body[21])
	if body[20] == 0 || len(body) < screen+40 {
		return errors.New("server has no screen")
	}
	b := body[screen:]
	s.root = le.Uint32(b)
	s.width, s.height = le.Uint16(b[20:]), le.Uint16(b[22:])
	s.rootVisual, s.rootDepth = le.Uint32(b[32:]), b[38]
	return nil
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// close ends the connection and waits for the reader.
func (c *conn) close() {
	_ = c.nc.Close()
	<-c.finished
}

// newID is a fresh resource identifier.
func (c *conn) newID() uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nextID++
	return c.setup.idBase | c.nextID*(c.setup.idMask&-c.setup.idMask)&c.setup.idMask
}

// post sends requests that have no reply. req holds whole requests one after the other, n of them. Errors
// of theirs go to onError.
func (c *conn) post(n int, req []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.write(n, req)
}

func (c *conn) write(n int, req []byte) error {
	if c.broken != nil {
		return c.broken
	}
	if err := framed(n, req); err != nil {
		return err
	}
	c.seq += uint16(n)
	if _, err := c.nc.Write(req); err != nil {
		c.broken = fmt.Errorf("write to the X server: %w", err)
		return c.broken
	}
	return nil
}

// framed tells whether req is n whole requests by their own lengths. The server waits for ever for the rest of a longer
// one, and reads what is too much of a shorter one as requests of which nobody knows the numbers.
func framed(n int, req []byte) error {
	rest := req
	for i := range n {
		if len(rest) < 4 {
			return fmt.Errorf("X request %d of %d is missing", i+1, n)
		}
		size := 4 * int(le.Uint16(rest[2:]))
		if size == 0 || size > len(rest) {
			return fmt.Errorf("X request %d.%d says that it has %d bytes, there are %d", rest[0], rest[1], size, len(rest))
		}
		rest = rest[size:]
	}
	if len(rest) > 0 {
		return fmt.Errorf("%d bytes follow %d X requests", len(rest), n)
	}
	return nil
}

// start sends n requests and registers a call for the last of them.
func (c *conn) start(n int, req []byte) (*call, error) {
	k := &call{done: make(chan struct{})}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken != nil {
		return nil, c.broken
	}
	seq := c.seq + uint16(n)
	c.waiting[seq] = k
	if err := c.write(n, req); err != nil {
		delete(c.waiting, seq)
		return nil, err
	}
	return k, nil
}

// wait waits for the call's reply of at least 32 bytes. A server that another client grabbed makes it long.
func (k *call) wait() ([]byte, error) {
	<-k.done
	if k.err == nil && k.reply == nil {
		return nil, errNoReply
	}
	return k.reply, k.err
}

// ask sends one request and waits for its reply. Of a request that has none it learns when the server answers a later one.
func (c *conn) ask(req []byte) ([]byte, error) {
	k, err := c.start(1, req)
	if err != nil {
		return nil, err
	}
	return k.wait()
}

// check sends one request that has no reply and waits until the server has executed it.
func (c *conn) check(req []byte) error {
	k, err := c.start(1, req)
	if err != nil {
		return err
	}
	if _, err := c.ask([]byte{opGetInputFocus, 0, 1, 0}); err != nil {
		return err
	}
	<-k.done // take has ended it before the answer of the later request
	return k.err
}

// read takes replies, errors and events from the server until the connection ends.
func (c *conn) read() {
	defer close(c.finished)
	err := c.readAll()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken == nil {
		c.broken = errClosed
	}
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, io.EOF) {
		c.broken = fmt.Errorf("read from the X server: %w", err)
	}
	for seq, k := range c.waiting {
		delete(c.waiting, seq)
		k.err = c.broken
		close(k.done)
	}
}

// maxReply bounds the memory of one reply: a picture of the largest screen fits.
const maxReply = 256 << 20

func (c *conn) readAll() error {
	r := &buffered{r: c.nc}
	var head [32]byte
	for {
		if err := r.full(head[:]); err != nil {
			return err
		}
		switch kind := head[0] & 0x7f; kind {
		case 0:
			e := &xError{code: head[1], bad: le.Uint32(head[4:]), minor: le.Uint16(head[8:]), major: head[10]}
			if k := c.take(le.Uint16(head[2:])); k != nil {
				k.err = e
				close(k.done)
			} else if c.onError != nil {
				c.onError(e)
			}
		case 1:
			extra := int64(le.Uint32(head[4:])) * 4
			if extra > maxReply {
				return fmt.Errorf("reply of %d bytes", extra)
			}
			reply := make([]byte, 32+extra)
			copy(reply, head[:])
			if err := r.full(reply[32:]); err != nil {
				return err
			}
			if k := c.take(le.Uint16(head[2:])); k != nil {
				k.reply = reply
				close(k.done)
			}
		case eventGeneric: // has a body that nobody here asked for
			extra := int64(le.Uint32(head[4:])) * 4
			if extra > maxReply {
				return fmt.Errorf("event of %d bytes", extra)
			}
			if err := r.full(make([]byte, extra)); err != nil {
				return err
			}
		default:
			if c.onEvent != nil {
				c.onEvent(head[:])
			}
		}
	}
}

// take removes the call that waits for seq. The server answers in order: calls before it have no answer any more, and end.
func (c *conn) take(seq uint16) *call {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := c.waiting[seq]
	delete(c.waiting, seq)
	for earlier, other := range c.waiting {
		if int16(earlier-seq) < 0 {
			delete(c.waiting, earlier)
			close(other.done)
		}
	}
	return k
}

// buffered reads with few system calls and without allocating.
type buffered struct {
	r          io.Reader
	buf        [16 << 10]byte
	start, end int
}

func (b *buffered) full(p []byte) error {
	for len(p) > 0 {
		if b.start == b.end {
			n, err := b.r.Read(b.buf[:])
			if n == 0 && err != nil {
				return err
			}
			b.start, b.end = 0, n
		}
		n := copy(p, b.buf[b.start:b.end])
		b.start += n
		p = p[n:]
	}
	return nil
}

// extension finds an extension's opcode and first event; false when the server does not have it.
func (c *conn) extension(name string) (extension, bool, error) {
	req := []byte{opQueryExtension, 0, 0, 0, uint8(len(name)), 0, 0, 0}
	req = pad(append(req, name...))
	le.PutUint16(req[2:], uint16(len(req)/4))
	reply, err := c.ask(req)
	if err != nil {
		return extension{}, false, fmt.Errorf("look for X extension %s: %w", name, err)
	}
	return extension{opcode: reply[9], firstEvent: reply[10]}, reply[8] != 0, nil
}

type extension struct {
	opcode     uint8
	firstEvent uint8
}

// atom is the number of a name.
func (c *conn) atom(name string) (uint32, error) {
	req := halves([]byte{opInternAtom, 0, 0, 0}, uint16(len(name)), 0)
	reply, err := c.ask(finish(append(req, name...)))
	if err != nil {
		return 0, fmt.Errorf("intern atom %s: %w", name, err)
	}
	return le.Uint32(reply[8:]), nil
}

// version asks for an extension's version, which some need before anything else.
func (c *conn) version(e extension, major, minor uint32) error {
	req := make([]byte, 4, 12)
	req[0], req[1], req[2] = e.opcode, 0, 3
	req = le.AppendUint32(req, major)
	req = le.AppendUint32(req, minor)
	_, err := c.ask(req)
	return err
}

// request begins a request of an extension; finish sets its length.
func (e extension) request(minor uint8) []byte {
	return append(make([]byte, 0, 64), e.opcode, minor, 0, 0)
}

func finish(req []byte) []byte {
	req = pad(req)
	le.PutUint16(req[2:], uint16(len(req)/4))
	return req
}

func words(req []byte, values ...uint32) []byte {
	for _, v := range values {
		req = le.AppendUint32(req, v)
	}
	return req
}

func halves(req []byte, values ...uint16) []byte {
	for _, v := range values {
		req = le.AppendUint16(req, v)
	}
	return req
}

// Core requests and events.
const (
	opCreateWindow           = 1
	opChangeWindowAttributes = 2
	opInternAtom             = 16
	opChangeProperty         = 18
	opGetProperty            = 20
	opSetSelectionOwner      = 22
	opGetSelectionOwner      = 23
	opSendEvent              = 25
	opGrabServer             = 36
	opUngrabServer           = 37
	opQueryPointer           = 38
	opGetInputFocus          = 43
	opGetImage               = 73
	opQueryExtension         = 98
	opChangeKeyboardMapping  = 100
	opGetKeyboardMapping     = 101
	opChangeKeyboardControl  = 102
	opGetModifierMapping     = 119

	eventConfigure      = 22
	eventSelectionClear = 29
	eventClientMessage  = 33
	eventMapping        = 34
	eventGeneric        = 35

	maskStructure = 1 << 17
)
