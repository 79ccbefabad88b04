package gateway

// frames follows what an agent sends, the answer to the upgrade and then WebSocket frames (RFC 6455, section 5.2), only far enough
// to know where a frame ends: there the gateway may put in a frame of its own. Payloads are skipped, never read.
type frames struct {
	phase phase
	head  [len(statusSwitching)]byte // beginning of the answer, then of a frame: 10 bytes at most
	have  int                        // bytes of head that have come
	line  int                        // matched bytes of the empty line that ends the answer
	left  uint64                     // payload bytes of the current frame still to come
	last  bool                       // the current frame is the agent's goodbye
}

type phase uint8

const (
	inAnswer phase = iota // the upgrade's answer has not ended
	inFrames
	opaque // whatever follows is not for us to cut: a refused upgrade, or what comes behind a goodbye
)

const (
	statusSwitching = "HTTP/1.1 101"
	emptyLine       = "\r\n\r\n"
	opClose         = 0x8
	shortLength     = 126 // this value and the next say that a longer length follows
)

// between says whether the agent is between two frames.
func (f *frames) between() bool { return f.phase == inFrames && f.left == 0 && f.have == 0 }

// skip takes note of b.
func (f *frames) skip(b []byte) {
	for len(b) > 0 {
		b = b[f.next(b):]
	}
}

// next takes note of b as far as the current frame reaches and returns how much that is: at least 1 byte of a b that has some.
func (f *frames) next(b []byte) int {
	switch f.phase {
	case inAnswer:
		return f.answer(b)
	case inFrames:
		return f.frame(b)
	default:
		return len(b)
	}
}

func (f *frames) answer(b []byte) int {
	for i, c := range b {
		if f.have < len(f.head) {
			f.head[f.have] = c
			f.have++
		}
		switch {
		case c == emptyLine[f.line]:
			f.line++
		case c == emptyLine[0]:
			f.line = 1
		default:
			f.line = 0
		}
		if f.line == len(emptyLine) {
			f.phase = opaque
			if string(f.head[:f.have]) == statusSwitching {
				f.phase, f.have = inFrames, 0
			}
			return i + 1
		}
	}
	return len(b)
}

func (f *frames) frame(b []byte) int {
	i := 0
	for f.left == 0 {
		if i == len(b) {
			return i
		}
		f.head[f.have] = b[i]
		f.have++
		i++
		if f.have < 2 || f.have < f.size() {
			continue
		}
		f.have = 0
		f.last = f.head[0]&0xf == opClose
		if f.left = f.length(); f.left == 0 {
			f.end()
			return i
		}
	}
	n := min(f.left, uint64(len(b)-i))
	if f.left -= n; f.left == 0 {
		f.end()
	}
	return i + int(n)
}

// pass takes note of n payload bytes of the current frame.
func (f *frames) pass(n uint64) {
	if n == 0 {
		return
	}
	if f.left -= min(n, f.left); f.left == 0 {
		f.end()
	}
}

// size is the length of the head of a frame whose first two bytes have come. What a server sends is not masked; a mask would be
// taken for a part of the payload.
func (f *frames) size() int {
	n := 2
	switch f.head[1] & 0x7f {
	case shortLength:
		n += 2
	case shortLength + 1:
		n += 8
	}
	return n
}

func (f *frames) length() uint64 {
	n := uint64(f.head[1] & 0x7f)
	if n >= shortLength {
		n = 0
		for _, b := range f.head[2:f.size()] {
			n = n<<8 | uint64(b)
		}
	}
	if f.head[1]&0x80 != 0 {
		n += 4
	}
	return n
}

func (f *frames) end() {
	if f.last {
		f.phase = opaque
	}
}
