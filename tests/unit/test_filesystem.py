"""Files as Rollbook opens and makes them, and which kind of file system a path is on."""

import os
import socket
import stat
from pathlib import Path

import pytest

from rollbook import filesystem
from rollbook.filesystem import is_network, kind_of, make_private, open_regular

# As /proc/self/mountinfo has it: kernel file systems, optional fields, several mounts on one place.
MOUNTS = r"""22 27 0:21 / /proc rw,nosuid - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard
31 27 8:1 / /home rw,relatime shared:2 master:1 - xfs /dev/sda1 rw
40 31 0:50 / /home/dev/net rw,relatime shared:9 propagate_from:2 unbindable - nfs4 host:/x rw
41 31 0:51 / /home/dev/with\040space\011tab rw - fuse.sshfs dev@host:/ rw
42 31 0:52 / /home/dev/back\134slash rw - 9p share rw
43 31 0:53 / /home/dev/line\012break rw - cifs //host/share rw
44 31 0:54 / /home/dev/back\134040slash rw - virtiofs share rw
50 27 0:60 / /twice rw - nfs host:/y rw
51 50 8:2 / /twice rw - btrfs /dev/sdb rw
60 27 0:61 /deep /mnt rw - ext4 /dev/vda rw
"""


@pytest.fixture
def mounts(tmp_path, monkeypatch):
    """Mounts such as another machine may have them; gives the function that replaces them."""
    file = tmp_path / "mountinfo"
    monkeypatch.setattr(filesystem, "_MOUNTS", file)
    monkeypatch.delenv(filesystem.FORCED, raising=False)

    def write(text: str) -> None:
        file.write_bytes(os.fsencode(text))

    write(MOUNTS)
    return write


@pytest.mark.parametrize(
    ("path", "kind", "on_network"),
    [
        ("/", "ext4", False),
        ("/etc/hosts", "ext4", False),
        ("/home", "xfs", False),
        ("/home/dev/.codex", "xfs", False),
        ("/homes", "ext4", False),
        ("/home/dev/net", "nfs4", True),
        ("/home/dev/net/a/b/c", "nfs4", True),
        ("/home/dev/network", "xfs", False),
        ("/home/dev/net/../other", "xfs", False),
        ("/home/dev/with space\ttab/home", "fuse.sshfs", True),
        ("/home/dev/with\\040space\\011tab/home", "xfs", False),
        ("/home/dev/back\\slash/home", "9p", True),
        ("/home/dev/line\nbreak/home", "cifs", True),
        ("/proc/1", "proc", False),
        ("/mnt/x", "ext4", False),
    ],
)
def test_the_kind_of_a_path_is_that_of_the_innermost_mount(mounts, path, kind, on_network):
    assert (kind_of(Path(path)), is_network(Path(path))) == (kind, on_network)


def test_of_several_mounts_on_one_place_the_last_one_counts(mounts):
    assert kind_of(Path("/twice/x")) == "btrfs"
    assert not is_network(Path("/twice/x"))


def test_a_link_leads_to_the_kind_of_what_it_leads_to(mounts, tmp_path):
    (tmp_path / "link").symlink_to("/home/dev/net")
    assert is_network(tmp_path / "link" / "home" / "not there yet")
    assert not is_network(tmp_path / "other")


def test_a_mount_whose_name_is_no_text_is_found(mounts):
    place = os.fsdecode(b"/home/dev/\xff")
    mounts(f"{MOUNTS}70 31 0:70 / {place} rw - lustre share rw\n")
    assert kind_of(Path(place) / "x") == "lustre"


def test_a_mount_point_may_have_a_dash_between_spaces(mounts):
    mounts(MOUNTS + "71 31 0:71 / /home/dev/a\\040-\\040b rw - ceph share rw\n")
    assert kind_of(Path("/home/dev/a - b/x")) == "ceph"


@pytest.mark.parametrize("missing", [True, False])
def test_where_the_system_does_not_tell_the_kind_is_not_known(mounts, tmp_path, missing):
    if missing:
        (tmp_path / "mountinfo").unlink()
    else:
        mounts("")
    assert (kind_of(Path("/home/dev/net")), is_network(Path("/home/dev/net"))) == ("", False)


@pytest.mark.parametrize(("value", "forced"), [("1", True), ("0", False), ("", False)])
def test_every_file_system_can_be_taken_for_one_of_a_network(mounts, monkeypatch, value, forced):
    monkeypatch.setenv("ROLLBOOK_NETWORK_FILES", value)
    assert is_network(Path("/etc")) is forced
    assert is_network(Path("/home/dev/net"))
    assert kind_of(Path("/etc")) == "ext4"


@pytest.mark.skipif(not Path("/proc/self/mountinfo").exists(), reason="the system doesn't tell")
def test_this_machine_tells_what_its_paths_are_on(tmp_path, monkeypatch):
    monkeypatch.delenv(filesystem.FORCED, raising=False)
    assert kind_of(Path("/proc/self")) == "proc"
    assert kind_of(tmp_path) not in {"", "proc"}


def test_a_regular_file_is_opened(tmp_path):
    path = tmp_path / "file"
    path.write_text("text")
    descriptor = open_regular(path)
    assert os.read(descriptor, 10) == b"text"
    os.close(descriptor)
    descriptor = open_regular(path, os.O_RDWR | os.O_APPEND)
    os.write(descriptor, b"!")
    os.close(descriptor)
    assert path.read_text() == "text!"


@pytest.mark.parametrize("kind", ["missing", "directory", "link", "dangling", "pipe", "socket"])
def test_what_is_no_regular_file_is_not_opened_and_nobody_waits(tmp_path, kind, monkeypatch):
    path = tmp_path / "file"
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "directory":
            path.mkdir()
        elif kind in {"link", "dangling"}:
            path.symlink_to("other")
            (tmp_path / "other").touch() if kind == "link" else None
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            listening.bind("file")
        before = set(os.listdir("/proc/self/fd"))
        for flags in (os.O_RDONLY, os.O_RDWR):
            with pytest.raises(OSError):
                open_regular(path, flags)
        assert set(os.listdir("/proc/self/fd")) == before


def test_directories_are_made_for_the_user_alone_and_found_ones_left(tmp_path):
    found = tmp_path / "found"
    found.mkdir()
    found.chmod(0o755)
    before = os.umask(0o000)
    try:
        make_private(found / "a" / "b" / "c")
        make_private(found / "a")
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE(path.stat().st_mode) for path in (found, *sorted((found / "a").rglob("*")))
    ]
    assert modes == [0o755, 0o700, 0o700]
    assert stat.S_IMODE((found / "a").stat().st_mode) == 0o700
    (found / "file").touch()
    for place in (found / "file", found / "file" / "below"):
        with pytest.raises(OSError):
            make_private(place)
