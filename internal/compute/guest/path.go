package guest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// searchPath is where applications find programs.
const searchPath = "/usr/local/bin:/usr/bin:/bin:/usr/local/games:/usr/games"

// LookPath finds a program as applications of an instance do.
func LookPath(name string) (string, error) {
	if strings.ContainsRune(name, '/') {
		return name, executable(name)
	}
	for _, dir := range filepath.SplitList(searchPath) {
		path := filepath.Join(dir, name)
		if executable(path) == nil {
			return path, nil
		}
	}
	return "", fs.ErrNotExist
}

func executable(path string) error {
	st, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case st.IsDir() || st.Mode()&0o111 == 0:
		return errors.New("not an executable file")
	}
	return nil
}

// group puts a program in a process group of its own.
func group() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
