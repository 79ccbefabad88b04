// Package guest is the inside of an instance, whatever driver made it: the window manager and the session's application on one
// display, the environment they see, and the certainty that nothing of them is left when the agent ends.
package guest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Marker is the variable that every process of an instance carries; its value names the data directory and the instance.
const Marker = "PENSTOCK_INSTANCE"

// User is the name that applications see; the instance's uid has no entry in the user database.
const User = "user"

// Place is where an instance lives.
type Place struct {
	Folder     string // the instance's own
	Home       string
	Display    string // ":100"
	Xauthority string
}

// tmp and runtime are folders below Folder.
func (p Place) tmp() string     { return filepath.Join(p.Folder, "tmp") }
func (p Place) runtime() string { return filepath.Join(p.Folder, "run") }

// Environ is the environment of everything in the instance but the agent: clean, and free of the server's secrets.
// It takes over language, time zone and Marker alone.
func (p Place) Environ() []string {
	env := []string{
		"PATH=" + searchPath,
		"HOME=" + p.Home,
		"USER=" + User,
		"LOGNAME=" + User,
		"SHELL=" + shell(),
		"LANG=" + lang(os.Getenv("LANG")),
		"TMPDIR=" + p.tmp(),
		"XDG_RUNTIME_DIR=" + p.runtime(),
		"XDG_SESSION_TYPE=x11",
		// No accessibility bus: without one, every GTK program waits for it.
		"NO_AT_BRIDGE=1",
		"GTK_A11Y=none",
		// No session bus either, which dconf would need to store settings.
		"GSETTINGS_BACKEND=keyfile",
		// Qt 5.14 and later take the desktop's scale from Xft.dpi, at their start, and not rounded to whole numbers. GTK
		// follows XSETTINGS while it runs; GDK_SCALE would keep it from that.
		"QT_ENABLE_HIGHDPI_SCALING=1",
		"QT_SCALE_FACTOR_ROUNDING_POLICY=PassThrough",
	}
	if p.Display != "" {
		env = append(env, "DISPLAY="+p.Display, "XAUTHORITY="+p.Xauthority)
	}
	for _, name := range []string{"TZ", Marker} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	return env
}

// lang keeps a UTF-8 locale and replaces every other one: programs show text as UTF-8.
func lang(v string) string {
	if up := strings.ToUpper(v); strings.HasSuffix(up, ".UTF-8") || strings.HasSuffix(up, ".UTF8") {
		return v
	}
	return "C.UTF-8"
}

func shell() string {
	if _, err := os.Stat("/bin/bash"); err == nil {
		return "/bin/bash"
	}
	return "/bin/sh"
}

// Prepare makes the folders of the instance's user. It runs as that user.
func (p Place) Prepare() error {
	for _, dir := range []string{p.tmp(), p.runtime(), p.Home} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make the instance's folders: %w", err)
		}
	}
	// The uid has no name, which bash would complain about in each prompt.
	rc := filepath.Join(p.Home, ".bashrc")
	if err := os.WriteFile(rc, []byte("[ -f /etc/bash.bashrc ] && . /etc/bash.bashrc\nPS1='\\w\\$ '\n"), 0o600); err != nil {
		return fmt.Errorf("fill the home folder: %w", err)
	}
	return nil
}
