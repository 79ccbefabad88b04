package sqlite

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// networkFileSystems are those whose locks, shared memory or syncs cannot be trusted from here. FUSE is among them because
// what stands behind it (sshfs, s3fs, glusterfs) cannot be told.
var networkFileSystems = map[int64]string{
	unix.NFS_SUPER_MAGIC:   "NFS",
	unix.SMB_SUPER_MAGIC:   "SMB",
	unix.SMB2_SUPER_MAGIC:  "SMB",
	unix.CIFS_SUPER_MAGIC:  "CIFS",
	unix.FUSE_SUPER_MAGIC:  "FUSE",
	unix.V9FS_MAGIC:        "9P",
	unix.CEPH_SUPER_MAGIC:  "Ceph",
	unix.AFS_SUPER_MAGIC:   "AFS",
	unix.AFS_FS_MAGIC:      "AFS",
	unix.CODA_SUPER_MAGIC:  "Coda",
	unix.OCFS2_SUPER_MAGIC: "OCFS2",
}

// refuseNetworkFileSystem checks the file system that holds dir.
func refuseNetworkFileSystem(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("find file system of %s: %w", dir, err)
	}
	return refuseFileSystemType(dir, fs.Type)
}

func refuseFileSystemType(dir string, magic int64) error {
	if name, ok := networkFileSystems[magic]; ok {
		return fmt.Errorf("%s is on a %s file system, where locks and syncs cannot be trusted; state must be on a local disk", dir, name)
	}
	return nil
}
