package process

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/google/go-cmp/cmp"

	"penstock.dev/penstock/internal/appstream"
)

func TestParseExec(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []string // nil: refused
	}{
		"plain":                     {"mousepad", []string{"mousepad"}},
		"files":                     {"mousepad %F", []string{"mousepad"}},
		"URL in the middle":         {"browser %U --new", []string{"browser", "--new"}},
		"code inside an argument":   {"app --file=%f -x", []string{"app", "--file=", "-x"}},
		"caption and icon":          {"app --title %c %i", []string{"app", "--title", "The App"}},
		"percent":                   {"app 100%%", []string{"app", "100%"}},
		"deprecated codes":          {"app %d %D %n %N %v %m", []string{"app"}},
		"quotes":                    {`app "two words" "a \"b\" \$c \\d"`, []string{"app", "two words", `a "b" $c \d`}},
		"empty argument":            {`app "" x`, []string{"app", "", "x"}},
		"quotes inside an argument": {`sh -c "echo hi"`, []string{"sh", "-c", "echo hi"}},
		"spaces around":             {"  app \t x  ", []string{"app", "x"}},
		"escaped space":             {`app a\ b`, []string{"app", "a b"}},
		"nothing":                   {"", nil},
		"only a code":               {"%f", nil},
		"open quote":                {`app "x`, nil},
		"ends in backslash":         {`app "x\`, nil},
		"ends in percent":           {"app %", nil},
		"assignment":                {"A=b app", nil},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseExec(c.in, "The App")
			if (err != nil) != (c.want == nil) {
				t.Fatalf("got error %v", err)
			}
			if diff := cmp.Diff(c.want, got); err == nil && diff != "" {
				t.Error(diff)
			}
		})
	}
}

func FuzzParseExec(f *testing.F) {
	f.Add(`app "two words" %f "a \"b\""`)
	f.Add(`"`)
	f.Fuzz(func(t *testing.T, s string) {
		args, err := parseExec(s, "x")
		if err == nil && (len(args) == 0 || args[0] == "") {
			t.Errorf("accepted %q as %q", s, args)
		}
		parseEntry([]byte(s))
		sanitise(s)
	})
}

func TestCatalogue(t *testing.T) {
	first, second := t.TempDir(), t.TempDir()
	put := func(dir, path, text string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	entry := func(lines string) string { return "[Desktop Entry]\nType=Application\n" + lines }
	put(first, "applications/org.example.cat.desktop", "# comment\n[Other]\nName=No\n"+entry(
		"Name=Cat\nName[de]=Katze\nComment=Shows\\sfiles\nExec=cat %F\nIcon=cat\nPath=/srv\n[Desktop Action x]\nExec=rm\n"))
	put(first, "applications/hidden.desktop", entry("Name=H\nExec=true\nHidden=true\n"))
	put(second, "applications/hidden.desktop", entry("Name=Shadowed\nExec=true\n"))
	put(second, "applications/cat-settings.desktop", entry("Name=Cat settings\nExec=cat --settings\n"))
	put(second, "applications/sub/false.desktop", entry("Name=In a folder\nExec=false\n"))
	put(second, "applications/terminal.desktop", entry("Name=Top\nExec=ls -l\nTerminal=true\n"))
	put(second, "applications/a b!.desktop", entry("Name=Odd\nExec=/bin/sh -c true\n"))
	put(second, "applications/missing.desktop", entry("Name=M\nExec=no-such-program\n"))
	put(second, "applications/try.desktop", entry("Name=T\nExec=true\nTryExec=no-such-program\n"))
	put(second, "applications/nodisplay.desktop", entry("Name=N\nExec=true\nNoDisplay=true\n"))
	put(second, "applications/only.desktop", entry("Name=O\nExec=true\nOnlyShowIn=GNOME;\n"))
	put(second, "applications/link.desktop", "[Desktop Entry]\nType=Link\nName=L\nURL=x\n")
	put(second, "applications/nameless.desktop", entry("Exec=true\n"))
	put(second, "applications/readme.txt", entry("Name=R\nExec=true\n"))
	put(second, "applications/huge.desktop", entry("Name=Huge\nExec=true\nX="+string(make([]byte, maxEntry))))
	put(second, "icons/hicolor/scalable/apps/cat.svg", "<svg/>")
	put(second, "icons/hicolor/48x48/apps/cat.png", "PNG")

	got, err := catalogue(t.Context(), []string{first, filepath.Join(first, "nothing"), second})
	if err != nil {
		t.Fatal(err)
	}
	var own []appstream.Application // the machine's xterm and mousepad come on top where they are installed
	for _, a := range got {
		if a.Name != "xterm" && a.Name != "mousepad" {
			own = append(own, a)
		}
	}
	want := []appstream.Application{
		{
			Name: "cat", DisplayName: "Cat", Description: "Shows files", Command: []string{"cat"}, WorkingDir: "/srv",
			IconPath: filepath.Join(second, "icons/hicolor/scalable/apps/cat.svg"),
		},
		{Name: "cat-settings", DisplayName: "Cat settings", Command: []string{"cat", "--settings"}},
		{Name: "false", DisplayName: "In a folder", Command: []string{"false"}},
		{Name: "ls", DisplayName: "Top", Command: []string{"xterm", "-T", "Top", "-e", "ls", "-l"}},
		{Name: "sh", DisplayName: "Odd", Command: []string{"/bin/sh", "-c", "true"}},
	}
	if diff := cmp.Diff(want, own); diff != "" {
		t.Error(diff)
	}
}

func TestCatalogueOfThisMachine(t *testing.T) {
	apps, err := catalogue(t.Context(), dataDirs(""))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	last := ""
	for _, a := range apps {
		if !regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,99}$`).MatchString(a.Name) || a.DisplayName == "" || len(a.Command) == 0 {
			t.Errorf("bad application %+v", a)
		}
		if names[a.Name] || a.Name < last {
			t.Errorf("%s: not in order or twice", a.Name)
		}
		names[a.Name], last = true, a.Name
		t.Logf("%s: %q %q %s", a.Name, a.DisplayName, a.Command, a.IconPath)
	}
}

func TestSanitise(t *testing.T) {
	for in, want := range map[string]string{"xterm": "xterm", "a b": "a-b", "..x": "x", "": "", "---": "", "Ünï": "n-", "a/b": "a-b"} {
		if got := sanitise(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
