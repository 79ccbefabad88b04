package video

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"syscall"
	"unsafe"

	"github.com/ebitengine/purego"
	"golang.org/x/sys/unix"
)

// errNoLibrary says that the loader does not find a library: an everyday case, as all are optional.
var errNoLibrary = errors.New("library not found")

// library is one that is open. It is never closed: encoders, and threads of its own, may be using it.
type library struct {
	name   string
	handle uintptr
}

// open loads a library by its soname. The layouts in this package are those of 64-bit systems.
func open(soname string) (*library, error) {
	if soname == "" {
		return nil, errNoLibrary
	}
	if strings.ContainsRune(soname, '/') {
		return nil, fmt.Errorf("%s: a library is opened by its soname, not by a path", soname)
	}
	if unsafe.Sizeof(uintptr(0)) != 8 {
		return nil, errors.New("video libraries are used on 64-bit systems only")
	}
	handle, err := purego.Dlopen(soname, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoLibrary, err)
	}
	return &library{name: soname, handle: handle}, nil
}

// tuneMalloc makes the C library give an encoder's pictures back to the system when it is closed, instead of keeping them
// in one of many arenas: regions of video come and go. It is a wish, without which all works.
func tuneMalloc() {
	const (
		mmapThreshold = -3 // M_MMAP_THRESHOLD
		arenaMax      = -8 // M_ARENA_MAX
	)
	mallopt, err := purego.Dlsym(purego.RTLD_DEFAULT, "mallopt")
	if err != nil {
		return
	}
	for _, option := range [][2]int32{{mmapThreshold, 256 << 10}, {arenaMax, 2}} {
		purego.SyscallN(mallopt, uintptr(option[0]), uintptr(option[1]))
	}
}

// function is a C function, or 0. It is called by call, with integers and pointers alone.
type function uintptr

// functions looks up all of them; the first that is missing is the error.
func (l *library) functions(wanted map[string]*function) error {
	for name, f := range wanted {
		address, err := purego.Dlsym(l.handle, name)
		if err != nil {
			return fmt.Errorf("%s has no function %s: it is another library or version than expected", l.name, name)
		}
		*f = function(address)
	}
	return nil
}

// caller calls C functions without allocating: the arguments of purego.SyscallN would be made on the heap each time. One
// goroutine at a time may use it. What arguments point to must be on the heap, where nothing moves, and be kept alive by
// the caller; a caller that is a part of the pointed-to object does that by itself.
type caller struct{ args [12]uintptr }

func (c *caller) call(f function, args ...uintptr) uintptr {
	n := copy(c.args[:], args)
	r, _, _ := purego.SyscallN(uintptr(f), c.args[:n]...)
	runtime.KeepAlive(c)
	return r
}

// word is the first machine word of the C object at address: its pointer to virtual functions, say. Addresses that C
// returned stay uintptr in Go's memory, so that the collector never looks at them.
func word(address uintptr) uintptr { return *(*uintptr)(pointer(address)) }

// at is the function with an index in a C table.
func at(table uintptr, index int) function {
	return function(word(table + uintptr(index)*unsafe.Sizeof(table)))
}

// pointer is an address of C memory as a pointer, to be used at once.
func pointer(address uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&address)) }

// bytesAt is C memory as bytes, to be used before the library is called again.
func bytesAt(address uintptr, length int) []byte {
	return unsafe.Slice((*byte)(pointer(address)), length)
}

// stringAt is the C string at address, 256 bytes at most.
func stringAt(address uintptr) string {
	if address == 0 {
		return ""
	}
	var b []byte
	for i := range uintptr(256) {
		c := *(*byte)(pointer(address + i))
		if c == 0 {
			break
		}
		b = append(b, c)
	}
	return string(b)
}

// withSignalsBlocked runs f, which may start threads of a library: they inherit the mask, so that the process's signals
// go to Go's threads alone.
func withSignalsBlocked(f func()) {
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	// Faults of an instruction must reach the handler, or the kernel ends the process without a word.
	for _, s := range []syscall.Signal{unix.SIGSEGV, unix.SIGBUS, unix.SIGFPE, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT} {
		all.Val[(s-1)/64] &^= 1 << ((s - 1) % 64)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &old); err == nil {
		defer func() { _ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil) }()
	}
	f()
}

// guard turns a panic below into an error: of Go's own code, as C has none.
func guard(what string, err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%s: %v", what, r)
	}
}
