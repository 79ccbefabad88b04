package kernel

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"penstock.dev/penstock/internal/vpc"
)

// namedNamespaces is where named network namespaces are kept, as by iproute2, unless Config.Names says otherwise.
const namedNamespaces = "/run/netns"

// namePath is the file that stands for a name; a path stands for itself.
func namePath(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(namedNamespaces, name)
}

// owner names what belongs to one data directory: namespaces "penstock-OWNER-…", links with the alias "penstock OWNER …".
func owner(dataDir string) string {
	h := sha256.Sum256([]byte(filepath.Clean(dataDir)))
	return hex.EncodeToString(h[:4])
}

func namespacePrefix(owner string) string { return "penstock-" + owner + "-" }

func namespaceName(owner string, id vpc.VPCID) string {
	return namespacePrefix(owner) + strings.TrimPrefix(string(id), vpc.PrefixVPC+"-")
}

// short is a name of n hexadecimal digits for parts of interface names, which have 15 characters.
func short(s string, n int) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:])[:n]
}

// inside runs f on a thread of the namespace. Sockets that f opens stay in it.
func inside(ns netns.NsHandle, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if err := netns.Set(ns); err != nil {
			runtime.UnlockOSThread()
			done <- fmt.Errorf("enter network namespace: %w", err)
			return
		}
		err = f()
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		} // otherwise the thread ends with this goroutine
		done <- err
	}()
	return <-done
}

// makeNamespace makes a namespace under the name, in place of what has it.
func makeNamespace(name string) (netns.NsHandle, error) {
	if err := removeName(name); err != nil {
		return netns.None(), err
	}
	ns, err := unnamedNamespace()
	if err == nil {
		if err = nameNamespace(ns, name); err != nil {
			_ = ns.Close() // the error that came first is the news
		}
	}
	if err != nil {
		return netns.None(), fmt.Errorf("make network namespace %s: %w", name, err)
	}
	return ns, nil
}

// unnamedNamespace makes a namespace that goes when its handle is closed.
func unnamedNamespace() (netns.NsHandle, error) {
	ns := netns.None()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		home, err := netns.Get()
		if err != nil {
			runtime.UnlockOSThread()
			done <- err
			return
		}
		defer home.Close()
		if ns, err = netns.New(); err == nil {
			err = settle()
		}
		if back := netns.Set(home); back == nil {
			runtime.UnlockOSThread()
		} // otherwise the thread ends with this goroutine
		done <- err
	}()
	if err := <-done; err != nil {
		if ns.IsOpen() {
			_ = ns.Close() // the error that came first is the news
		}
		return netns.None(), err
	}
	return ns, nil
}

// settings of a namespace. Reverse path filtering would drop packets before the rules are asked, and differently from what
// they say; the rules know the sources of each link.
func settings() []struct{ path, value string } {
	return []struct{ path, value string }{
		{"/proc/sys/net/ipv4/conf/all/rp_filter", "0"},
		{"/proc/sys/net/ipv4/conf/default/rp_filter", "0"},
		{"/proc/sys/net/ipv4/ip_forward", "0"},
		{"/proc/sys/net/ipv4/conf/all/accept_redirects", "0"},
		{"/proc/sys/net/ipv4/conf/default/accept_redirects", "0"},
		{"/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"},
		{"/proc/sys/net/ipv4/tcp_syncookies", "1"},
		{"/proc/sys/net/ipv4/tcp_synack_retries", "3"}, // half-open connections whose answers are dropped go sooner
		// Interfaces have the IPv6 addresses that they are given, at once, and no others; routers tell them nothing.
		{"/proc/sys/net/ipv6/conf/all/disable_ipv6", "0"},
		{"/proc/sys/net/ipv6/conf/default/disable_ipv6", "0"},
		{"/proc/sys/net/ipv6/conf/all/forwarding", "0"},
		{"/proc/sys/net/ipv6/conf/default/forwarding", "0"},
		{"/proc/sys/net/ipv6/conf/all/accept_ra", "0"},
		{"/proc/sys/net/ipv6/conf/default/accept_ra", "0"},
		{"/proc/sys/net/ipv6/conf/all/accept_redirects", "0"},
		{"/proc/sys/net/ipv6/conf/default/accept_redirects", "0"},
		{"/proc/sys/net/ipv6/conf/all/accept_dad", "0"},
		{"/proc/sys/net/ipv6/conf/default/accept_dad", "0"},
		{"/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1"},
	}
}

// settle configures the namespace of the calling thread.
func settle() error {
	for _, s := range settings() {
		if strings.HasPrefix(s.path, "/proc/sys/net/ipv6/") && !hasIPv6() {
			continue
		}
		have, err := os.ReadFile(s.path)
		if err == nil && strings.TrimSpace(string(have)) == s.value {
			continue
		}
		if err := os.WriteFile(s.path, []byte(s.value), 0o644); err != nil {
			return fmt.Errorf("set %s: %w", s.path, err)
		}
	}
	return nil
}

// nameNamespace binds the namespace to its name.
func nameNamespace(ns netns.NsHandle, name string) error {
	path := namePath(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", int(ns)), path, "bind", unix.MS_BIND, ""); err != nil {
		return errors.Join(fmt.Errorf("name it: %w", err), os.Remove(path))
	}
	return nil
}

// removeName takes a name away; the namespace goes when nothing uses it any more.
func removeName(name string) error {
	path := namePath(name)
	for { // a name may have been bound more than once
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err == nil {
			continue
		}
		if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
		break
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// named says whether the name still stands for the namespace.
func named(ns netns.NsHandle, name string) bool {
	var held, at unix.Stat_t
	if unix.Fstat(int(ns), &held) != nil || unix.Stat(namePath(name), &at) != nil {
		return false
	}
	return held.Ino == at.Ino && held.Dev == at.Dev
}

// leftNamespaces are the names that an owner has in a folder.
func leftNamespaces(folder, owner string) ([]string, error) {
	all, err := os.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range all {
		if strings.HasPrefix(e.Name(), namespacePrefix(owner)) {
			out = append(out, filepath.Join(folder, e.Name()))
		}
	}
	return out, nil
}
