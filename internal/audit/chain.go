package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// Hash is what one line's chain member proves: everything up to and with it.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Head is the newest line of a log: its number, from 1, and its hash. Kept somewhere else, it proves that nothing before it
// was changed or cut off later.
type Head struct {
	Sequence uint64
	Hash     Hash
}

// String is "SEQUENCE:HASH".
func (h Head) String() string { return strconv.FormatUint(h.Sequence, 10) + ":" + h.Hash.String() }

// ParseHead reads what String writes.
func ParseHead(s string) (h Head, err error) {
	n, text, _ := strings.Cut(strings.TrimSpace(s), ":")
	if h.Sequence, err = strconv.ParseUint(n, 10, 64); err != nil {
		return h, fmt.Errorf("%.80q is not SEQUENCE:HASH", s)
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(h.Hash) {
		return h, fmt.Errorf("%.80q is not SEQUENCE:HASH with %d hexadecimal digits", s, 2*len(h.Hash))
	}
	h.Hash = Hash(b)
	return h, nil
}

// MaxLine is the longest line in bytes.
const MaxLine = 1 << 20

const (
	chainStart = `,"chain":{"sequence":`
	chainPrev  = `,"previous":"`
	chainHash  = `","hash":"`
	chainEnd   = `"}}`
)

// Append writes the event that body holds as the next line after h, with its line feed, and moves h on.
//
// The hash is SHA-256 of the line up to the text `","hash":"`, so it covers the event, its number and the hash before it. To check a line
// nobody has to parse or to normalise JSON.
func (h *Head) Append(line, body []byte) []byte {
	start := len(line)
	line = append(line, body[:len(body)-1]...) // without the closing brace
	line = append(line, chainStart...)
	line = strconv.AppendUint(line, h.Sequence+1, 10)
	line = append(line, chainPrev...)
	line = hex.AppendEncode(line, h.Hash[:])
	h.Hash = sha256.Sum256(line[start:])
	h.Sequence++
	line = append(line, chainHash...)
	line = hex.AppendEncode(line, h.Hash[:])
	return append(line, chainEnd+"\n"...)
}

// Link is what a line says about its place.
type Link struct {
	Head
	Previous Hash
}

// errForm is a line that no log writes.
var errForm = errors.New("it has no chain member at its end")

// ReadLink reads and checks the chain member of a line without its line feed: the hash must be that of the line.
func ReadLink(line []byte) (l Link, err error) {
	rest, ok := bytes.CutSuffix(line, []byte(chainEnd))
	const digits = 2 * sha256.Size
	if !ok || len(rest) < digits {
		return l, errForm
	}
	covered, ok := bytes.CutSuffix(rest[:len(rest)-digits], []byte(chainHash))
	if !ok || len(covered) < digits || unhex(&l.Hash, rest[len(rest)-digits:]) != nil || unhex(&l.Previous, covered[len(covered)-digits:]) != nil {
		return l, errForm
	}
	numbered, ok := bytes.CutSuffix(covered[:len(covered)-digits], []byte(chainPrev))
	i := bytes.LastIndex(numbered, []byte(chainStart))
	if !ok || i < 0 {
		return l, errForm
	}
	if l.Sequence, err = strconv.ParseUint(string(numbered[i+len(chainStart):]), 10, 64); err != nil {
		return l, errForm
	}
	if sha256.Sum256(covered) != l.Hash {
		return l, errors.New("its content was changed: the hash is another one")
	}
	return l, nil
}

func unhex(h *Hash, text []byte) error {
	if bytes.ContainsAny(text, "ABCDEF") { // one text for one hash
		return errForm
	}
	_, err := hex.Decode(h[:], text)
	return err
}

// Retired is what an event says that is written when old files are removed: the log begins after Through.
const Retired = "RetireAuditFiles"

// Result is what Verify found.
type Result struct {
	First, Last Head
	Events      uint64
	Torn        int    // bytes of an incomplete last line: the writer was interrupted, or is writing
	Retired     []Head // lines up to which files were removed on purpose, as the log itself says
	Reached     []Head // of the recorded heads, those that the log has
}

// ProblemError is a log that is not as it was written.
type ProblemError struct {
	File string
	Line int // from 1
	Text string
}

func (p *ProblemError) Error() string { return fmt.Sprintf("%s, line %d: %s", p.File, p.Line, p.Text) }

// File is one part of a log.
type File struct {
	Name string
	io.Reader
}

// Verify reads a log's files in their order and checks every line against the one before it, and the recorded heads against the lines.
// An error is a *ProblemError, or one of reading.
func Verify(files []File, recorded ...Head) (*Result, error) {
	v := &verifier{recorded: recorded}
	for i, f := range files {
		if err := v.file(f, i == len(files)-1); err != nil {
			return &v.Result, err
		}
	}
	if v.Events > 0 && v.First.Sequence > 1 && !slices.Contains(v.Retired, Head{v.First.Sequence - 1, v.firstPrevious}) {
		return &v.Result, &ProblemError{v.firstFile, 1, fmt.Sprintf("the log begins with event %d, and no event says that what came before was removed on purpose", v.First.Sequence)}
	}
	for _, h := range recorded {
		if h.Sequence > v.Last.Sequence {
			return &v.Result, &ProblemError{v.lastFile, v.lastLine, fmt.Sprintf("the log ends with event %d; a recorded head says that event %d was written: the end was cut off", v.Last.Sequence, h.Sequence)}
		}
	}
	return &v.Result, nil
}

type verifier struct {
	Result
	recorded            []Head
	firstPrevious       Hash
	firstFile, lastFile string
	lastLine            int
}

func (v *verifier) file(f File, last bool) error {
	r := bufio.NewReaderSize(f, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(r)
		switch {
		case errors.Is(err, io.EOF) && len(line) == 0:
			return nil
		case errors.Is(err, io.EOF) && last:
			v.Torn = len(line)
			return nil
		case errors.Is(err, io.EOF):
			return &ProblemError{f.Name, n, "the file ends within a line, and another file follows"}
		case errors.Is(err, errLong):
			return &ProblemError{f.Name, n, fmt.Sprintf("the line is longer than %d bytes", MaxLine)}
		case err != nil:
			return fmt.Errorf("read %s: %w", f.Name, err)
		}
		if why := v.line(f.Name, line[:len(line)-1]); why != "" {
			return &ProblemError{f.Name, n, why}
		}
		v.lastFile, v.lastLine = f.Name, n
	}
}

// line checks one line against the one before; it says what is wrong.
func (v *verifier) line(file string, line []byte) string {
	l, err := ReadLink(line)
	switch {
	case err != nil:
		return err.Error()
	case v.Events == 0:
		v.First, v.firstPrevious, v.firstFile = l.Head, l.Previous, file
		if l.Sequence == 1 && l.Previous != (Hash{}) {
			return "it is the first event and names one before it"
		}
	case l.Sequence != v.Last.Sequence+1:
		return fmt.Sprintf("event %d follows event %d: events were removed, repeated or moved", l.Sequence, v.Last.Sequence)
	case l.Previous != v.Last.Hash:
		return fmt.Sprintf("it does not follow the event %d that stands before it: that one was replaced", v.Last.Sequence)
	}
	for _, h := range v.recorded {
		if h.Sequence != l.Sequence {
			continue
		}
		if h.Hash != l.Hash {
			return fmt.Sprintf("event %d is not the one that a recorded head names: the log was written anew", h.Sequence)
		}
		v.Reached = append(v.Reached, h)
	}
	v.Last = l.Head
	v.Events++
	if bytes.Contains(line, []byte(`"`+Retired+`"`)) {
		v.retired(line)
	}
	return ""
}

func (v *verifier) retired(line []byte) {
	var e struct {
		Source     string `json:"eventSource"`
		Name       string `json:"eventName"`
		Additional struct {
			Through string `json:"through"`
		} `json:"additionalEventData"`
	}
	if json.Unmarshal(line, &e) != nil || e.Name != Retired || e.Source != PenstockSource {
		return
	}
	if h, err := ParseHead(e.Additional.Through); err == nil && h.Sequence < v.Last.Sequence {
		v.Retired = append(v.Retired, h)
	}
}

var errLong = errors.New("the line is too long")

func readLine(r *bufio.Reader) ([]byte, error) {
	var whole []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(whole)+len(part) > MaxLine {
			return whole, errLong
		}
		if err == nil && whole == nil {
			return part, nil
		}
		whole = append(whole, part...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return whole, err
		}
	}
}
