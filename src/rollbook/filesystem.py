"""What kind of file system a path is on: on some, locks and shared memory can't be relied on."""

import os
from pathlib import Path

FORCED = "ROLLBOOK_NETWORK_FILES"  # 1: take every file system for one of a network
_MOUNTS = Path("/proc/self/mountinfo")
# Of machines, and of virtual ones and their hosts.
_NETWORK_KINDS = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "davfs", "drvfs", "glusterfs", "gpfs"),
        *("lustre", "ncpfs", "nfs", "nfs3", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs"),
        *("pvfs2", "smb2", "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "webdav"),
        *("fuse.ceph", "fuse.cephfs", "fuse.davfs", "fuse.gcsfuse", "fuse.glusterfs"),
        *("fuse.juicefs", "fuse.mfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs"),
        *("fuse.vmhgfs-fuse",),
    )
)


def kind_of(path: Path) -> str:
    """Say which kind of file system a path is, or would be, on; empty where that isn't known."""
    try:
        lines = _MOUNTS.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return ""
    place = os.path.realpath(path)
    found, longest = "", -1
    for line in lines:
        # Such as: 36 35 98:0 /root /mount/point rw,noatime master:1 - ext3 /dev/root rw
        fields, _, rest = line.partition(" - ")
        mount = _unescaped(fields.split(" ")[4])
        is_below = place == mount or place.startswith(mount.rstrip("/") + "/")
        if is_below and len(mount) >= longest:  # of several on one place the last one counts
            found, longest = rest.split(" ")[0], len(mount)
    return found


def is_network(path: Path) -> bool:
    """Say whether other machines may use the same files, so that locks may not hold.

    Where the system doesn't tell, and ``ROLLBOOK_NETWORK_FILES`` isn't set to 1, they don't.
    """
    return os.environ.get(FORCED) == "1" or kind_of(path) in _NETWORK_KINDS


def _unescaped(mount: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        mount = mount.replace(code, character)
    return mount
