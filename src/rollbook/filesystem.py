"""Files and directories as Rollbook opens and makes them, and what kind of file system they are on.

On some kinds, locks and shared memory can't be relied on.
"""

import errno
import fcntl
import os
import stat
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


def open_regular(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open what is a regular file itself, for good: no link, no directory, nothing one waits for.

    What was looked at before may have been replaced since.  A new file, where the flags ask for one,
    is private.  Errors: OSError.
    """
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def try_lock(descriptor: int, kind: int) -> bool:
    """Lock an open file, shared or alone, unless that would have to wait; says whether it is.

    Errors: OSError where files can't be locked.
    """
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def make_private(directory: Path) -> None:
    """Make a directory, and those above it, where they are missing: for the user alone.

    They outlast a power cut.  Errors: OSError.
    """
    if not directory.is_dir():
        make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
        sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Have the names in a directory outlast a power cut.  Errors: OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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
