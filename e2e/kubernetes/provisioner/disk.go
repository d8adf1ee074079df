package provisioner

// What a volume is on disk. All nodes share the machine's file system, so one process serves them.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

type disk struct{ root string }

// create is idempotent: a provisioner killed half-way finds and completes its own work.
func (d disk) create(node, name string, sizeBytes int64, sized bool) (string, error) {
	path := filepath.Join(d.root, node, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return "", err
	}
	if !sized || mounted(path) {
		return path, nil
	}
	// Written beside its final name: an image that exists is a formatted one.
	fresh := image(path) + ".new"
	if _, err := os.Stat(image(path)); errors.Is(err, fs.ErrNotExist) {
		file, err := os.Create(fresh)
		if err != nil {
			return "", err
		}
		err = errors.Join(file.Truncate(sizeBytes), file.Close(),
			command("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=0,nodiscard", fresh))
		if err != nil {
			return "", err
		}
		if err := os.Rename(fresh, image(path)); err != nil {
			return "", err
		}
	}
	return path, command("mount", "-o", "loop", image(path), path)
}

// grow is idempotent too: a file that has the size may hold a file system that has not.
func (d disk) grow(path string, sizeBytes int64) error {
	info, err := os.Stat(image(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Size() < sizeBytes {
		if err := os.Truncate(image(path), sizeBytes); err != nil {
			return err
		}
	}
	device, err := exec.Command("findmnt", "-no", "SOURCE", path).Output()
	if err != nil {
		return fmt.Errorf("loop device of %s: %w", path, err)
	}
	loop := strings.TrimSpace(string(device))
	return errors.Join(command("losetup", "--set-capacity", loop), command("resize2fs", loop))
}

func (d disk) remove(path string) error {
	if mounted(path) {
		if err := command("umount", path); err != nil {
			return err
		}
	}
	err := os.Remove(image(path))
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.RemoveAll(path))
}

func image(path string) string { return path + ".ext4" }

func mounted(path string) bool { return exec.Command("mountpoint", "-q", path).Run() == nil }

func command(program string, arguments ...string) error {
	output, err := exec.Command(program, arguments...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", program, strings.Join(arguments, " "), err, output)
	}
	return nil
}
