package process

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"penstock.dev/penstock/internal/appstream"
	"penstock.dev/penstock/internal/compute/guest"
)

const (
	maxEntry = 1 << 20 // bytes of one desktop entry
	maxDepth = 4       // folders below applications/
)

// Applications lists this machine's desktop entries, ordered by name, and xterm and mousepad wherever they are installed.
func (d *Driver) Applications(ctx context.Context) ([]appstream.Application, error) {
	return catalogue(ctx, dataDirs(os.Getenv("XDG_DATA_DIRS")))
}

// dataDirs are the folders of shared data, the most important first.
func dataDirs(env string) []string {
	var dirs []string
	for _, dir := range filepath.SplitList(env) {
		if filepath.IsAbs(dir) {
			dirs = append(dirs, filepath.Clean(dir))
		}
	}
	// Those that the specification names count even when the server's environment knows others.
	for _, dir := range []string{"/usr/local/share", "/usr/share"} {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// entry is one desktop entry that can be started.
type entry struct {
	id, base string // file's ID without ".desktop"; name of the program
	app      appstream.Application
}

func catalogue(ctx context.Context, dirs []string) ([]appstream.Application, error) {
	var entries []entry
	seen := make(map[string]bool) // IDs: an earlier folder hides the same ID in a later one
	for _, dir := range dirs {
		found, err := readDir(ctx, filepath.Join(dir, "applications"), "", 0)
		if err != nil {
			return nil, fmt.Errorf("list applications: %w", err)
		}
		for _, f := range found {
			if seen[f.id] {
				continue
			}
			seen[f.id] = true
			if e, ok := readEntry(f, dirs); ok {
				entries = append(entries, e)
			}
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.id, b.id) })
	apps := name(entries)
	for _, app := range []appstream.Application{
		{Name: "mousepad", DisplayName: "Mousepad", Description: "Text editor", Command: []string{"mousepad"}},
		{Name: "xterm", DisplayName: "XTerm", Description: "Terminal", Command: []string{"xterm"}},
	} {
		has := slices.ContainsFunc(apps, func(a appstream.Application) bool { return a.Name == app.Name })
		if _, err := guest.LookPath(app.Command[0]); err == nil && !has {
			apps = append(apps, app)
		}
	}
	slices.SortFunc(apps, func(a, b appstream.Application) int { return cmp.Compare(a.Name, b.Name) })
	return apps, nil
}

// name gives each entry a name of the API: its program's where no other entry has a better claim to it, else its ID.
func name(entries []entry) []appstream.Application {
	claim := func(e entry) int {
		switch {
		case e.id == e.base:
			return 3
		case strings.HasSuffix(e.id, "."+e.base) || strings.HasSuffix(e.id, "-"+e.base):
			return 2
		default:
			return 1
		}
	}
	best := make(map[string]entry)
	for _, e := range entries {
		if old, ok := best[e.base]; !ok || claim(e) > claim(old) {
			best[e.base] = e
		}
	}
	var apps []appstream.Application
	used := make(map[string]bool)
	for _, winners := range []bool{true, false} {
		for _, e := range entries {
			if wins := best[e.base].id == e.id; wins != winners {
				continue
			}
			e.app.Name = sanitise(e.id)
			if winners {
				e.app.Name = sanitise(e.base)
			}
			if e.app.Name == "" || used[e.app.Name] {
				continue
			}
			used[e.app.Name] = true
			apps = append(apps, e.app)
		}
	}
	return apps
}

// sanitise makes a name of the API's pattern, or nothing.
func sanitise(s string) string {
	var b strings.Builder
	for _, r := range s {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '_', r == '.', r == '-':
			b.WriteRune(r)
		default:
			b.WriteByte('-')
		}
	}
	name := strings.TrimLeft(b.String(), "_.-")
	return name[:min(len(name), 100)]
}

type file struct{ id, path string }

// readDir lists desktop entries of a folder and those below it, in order. The ID of one in a sub-folder has the sub-folder's name before a dash.
func readDir(ctx context.Context, dir, prefix string, depth int) ([]file, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var files []file
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if id, ok := strings.CutSuffix(e.Name(), ".desktop"); ok && !e.IsDir() {
			files = append(files, file{id: prefix + id, path: path})
			continue
		}
		if e.IsDir() && depth < maxDepth {
			below, err := readDir(ctx, path, prefix+e.Name()+"-", depth+1)
			if err != nil {
				return nil, err
			}
			files = append(files, below...)
		}
	}
	return files, nil
}

// readEntry understands one file; false when it is not for users of this machine.
func readEntry(f file, dirs []string) (entry, bool) {
	src, err := os.Open(f.path)
	if err != nil {
		return entry{}, false
	}
	defer src.Close()
	b, err := io.ReadAll(io.LimitReader(src, maxEntry+1))
	if err != nil || len(b) > maxEntry {
		return entry{}, false
	}
	keys := parseEntry(b)
	if keys["Type"] != "Application" || keys["NoDisplay"] == "true" || keys["Hidden"] == "true" || keys["OnlyShowIn"] != "" {
		return entry{}, false
	}
	if try := unescape(keys["TryExec"]); try != "" {
		if _, err := guest.LookPath(try); err != nil {
			return entry{}, false
		}
	}
	display := unescape(keys["Name"])
	cmd, err := parseExec(unescape(keys["Exec"]), display)
	if err != nil || display == "" {
		return entry{}, false
	}
	if _, err := guest.LookPath(cmd[0]); err != nil {
		return entry{}, false
	}
	base := filepath.Base(cmd[0])
	if keys["Terminal"] == "true" {
		if _, err := guest.LookPath("xterm"); err != nil {
			return entry{}, false
		}
		cmd = append([]string{"xterm", "-T", display, "-e"}, cmd...)
	}
	return entry{id: f.id, base: base, app: appstream.Application{
		DisplayName: display, Description: unescape(keys["Comment"]), Command: cmd,
		WorkingDir: unescape(keys["Path"]), IconPath: findIcon(unescape(keys["Icon"]), dirs),
	}}, true
}

// parseEntry returns the keys of group "Desktop Entry", those for other languages left out.
func parseEntry(b []byte) map[string]string {
	keys := make(map[string]string)
	inside := false
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, maxEntry+1)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			inside = line == "[Desktop Entry]"
		case inside:
			key, value, ok := strings.Cut(line, "=")
			key = strings.TrimSpace(key)
			if _, has := keys[key]; ok && !has && !strings.Contains(key, "[") {
				keys[key] = strings.ToValidUTF8(strings.TrimSpace(value), "\uFFFD")
			}
		}
	}
	return keys
}

// unescape resolves \s, \n, \t, \r and \\ of string values.
func unescape(s string) string {
	return strings.NewReplacer(`\\`, `\`, `\s`, " ", `\n`, "\n", `\t`, "\t", `\r`, "\r").Replace(s)
}

// parseExec splits the value of Exec into program and arguments by the rules of the desktop entry specification, without its field codes.
func parseExec(s, display string) ([]string, error) {
	var args []string
	var arg strings.Builder
	const (
		none = iota
		plain
		quoted
	)
	state, hadCode, hadQuote := none, false, false
	end := func() {
		// An argument that was nothing but a code for files goes with it.
		if arg.Len() > 0 || hadQuote || !hadCode {
			args = append(args, arg.String())
		}
		arg.Reset()
		state, hadCode, hadQuote = none, false, false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case state == quoted && c == '"':
			state = plain
		case state == quoted && c == '\\':
			if i++; i == len(s) {
				return nil, errors.New("exec ends in a backslash")
			}
			arg.WriteByte(s[i])
		case state == quoted:
			arg.WriteByte(c)
		case c == '"':
			state, hadQuote = quoted, true
		case c == ' ' || c == '\t' || c == '\n':
			if state != none {
				end()
			}
		case c == '%':
			state = plain
			if i++; i == len(s) {
				return nil, errors.New("exec ends in a percent sign")
			}
			switch s[i] {
			case '%':
				arg.WriteByte('%')
			case 'c':
				arg.WriteString(display)
			default:
				hadCode = true
			}
		case c == '\\' && i+1 < len(s):
			// Outside of quotes the specification leaves it open; programs in the field mean the next character.
			state = plain
			i++
			arg.WriteByte(s[i])
		default:
			state = plain
			arg.WriteByte(c)
		}
	}
	if state == quoted {
		return nil, errors.New("exec has an open quote")
	}
	if state != none {
		end()
	}
	if len(args) == 0 || args[0] == "" || strings.Contains(args[0], "=") {
		return nil, errors.New("exec names no program")
	}
	return args, nil
}

// findIcon finds an icon's file: PNG of a useful size, else SVG.
func findIcon(name string, dirs []string) string {
	if name == "" {
		return ""
	}
	isFile := func(path string) bool {
		st, err := os.Stat(path)
		return err == nil && st.Mode().IsRegular()
	}
	if filepath.IsAbs(name) {
		if ext := filepath.Ext(name); (ext == ".png" || ext == ".svg") && isFile(name) {
			return name
		}
		return ""
	}
	if strings.ContainsRune(name, '/') {
		return ""
	}
	for _, dir := range dirs {
		for _, theme := range []string{"hicolor", "Adwaita", "gnome"} {
			for _, size := range []string{"128x128", "256x256", "96x96", "64x64", "scalable", "48x48", "512x512", "32x32"} {
				for _, kind := range []string{"apps", "legacy"} {
					for _, ext := range []string{".png", ".svg"} {
						if p := filepath.Join(dir, "icons", theme, size, kind, name+ext); isFile(p) {
							return p
						}
					}
				}
			}
		}
	}
	for _, dir := range dirs {
		for _, ext := range []string{".png", ".svg", ""} {
			p := filepath.Join(dir, "pixmaps", name+ext)
			if e := filepath.Ext(p); (e == ".png" || e == ".svg") && isFile(p) {
				return p
			}
		}
	}
	return ""
}
