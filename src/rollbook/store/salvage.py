"""Read the rows of one table out of a damaged SQLite file, without SQLite.

SQLite finds a row by way of the header, the schema and the inner pages of a tree, and gives up where
one of them is damaged.  Here every page is looked at by itself: the leaves of tables hold all that
is needed to read their rows.  https://www.sqlite.org/fileformat2.html describes what is read.
"""

import os
import struct
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

from rollbook.errors import DatabaseError

Value = int | float | str | bytes | None
SalvagedRow = tuple[int, tuple[Value, ...]]

_PAGE_SIZES = tuple(1 << power for power in range(9, 17))
_LEAST_USABLE = 480  # of a page, by the format
_MAGIC = b"SQLite format 3\0"
_HEADER_SIZE = 100  # stands in page 1, before the page's own content
_LEAF_HEADER_SIZE = 8
_TABLE_LEAF = 0x0D
_TREE_PAGES = (0x02, 0x05, 0x0A, _TABLE_LEAF)
_LOCK_BYTE = 1 << 30  # SQLite never uses the page that this byte is in

# What a page is, as pointer maps say it.
_UNKNOWN, _ROOT, _FREE, _FIRST_OVERFLOW, _OVERFLOW, _TREE = range(6)

_WAL_HEADER = struct.Struct(">8I")
_FRAME_HEADER = struct.Struct(">6I")
_WAL_MAGIC = 0x377F0682  # and the next number, where checksums are of big-endian words
_WAL_VERSION = 3007000

_BLOCK_SIZE = 1 << 20
_SAMPLE_SIZE, _SAMPLES = 1 << 16, 32
_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)
_ONE_BYTE = 0x7F  # the largest number whose varint is one byte
_DOUBLE, _ZERO, _ONE, _BLOB = 7, 8, 9, 12  # serial types; even ones from the last on are blobs

_Overflow = Callable[[int, int], bytes]


class _UnreadableError(ValueError):
    """A cell, or a page, isn't what SQLite writes."""


class Salvage:
    """The rows of one table in a file, as (row id, values); to be iterated once.

    ``accepts`` has the types that each column may have: int, float, str, bytes, NoneType.  Nothing
    else tells this table from others, so no other may have as many columns of such types.  An
    INTEGER PRIMARY KEY is None in the values, as it is the row id.  Whole numbers in a REAL column
    are stored as integers.  A row that was written before ALTER TABLE ADD COLUMN is shorter than
    its table; only rows with exactly so many columns are found, shorter ones take another pass.

    Each row id comes once, from a page without damage if there is one; the order is that of pages.
    Deleted rows stay away as long as the lists of free pages can be read.  Where the WAL beside the
    file is sound, all it has committed is read, and nothing else of it.

    ``unreadable_pages`` and ``unreadable_cells`` say afterwards what was lost, of all tables: pages
    that can't be read or aren't what they should be, as far as pointer maps tell (a database with
    auto-vacuum has them), and cells of leaves that hold no row, or one whose rest is lost.

    The file must be out of use: moved away with its WAL, and nobody has it open.  It is opened
    here without SQLite, and closing it would drop the locks that SQLite holds on it in this process.
    Nothing is ever written.  Memory is small whatever the size of the file, while row ids are
    dense, as those of a log; rows far from all others take about 200 bytes each.

    Errors: DatabaseError where the file can't be opened.
    """

    def __init__(self, path: Path, accepts: Sequence[tuple[type, ...]]) -> None:
        self._path = path
        self._accepts = accepts
        self._fitting: dict[tuple[type, ...], bool] = {}
        self.unreadable_pages = 0
        self.unreadable_cells = 0

    def __iter__(self) -> Iterator[SalvagedRow]:
        """Read the file from its beginning to its end, then what seems damaged once more."""
        seen: dict[int, int] = {}  # a bit for each row id, 256 to a number
        fitting = self._fitting
        with ExitStack() as stack:
            pages = _open(self._path, stack)
            for rows in self._leaves(pages):
                for row in rows:
                    row_id, values = row
                    types = tuple(map(type, values))
                    if not (fitting[types] if types in fitting else self._fits(types)):
                        continue
                    key, bit = row_id >> 8, 1 << (row_id & 0xFF)
                    before = seen.get(key, 0)
                    if not before & bit:
                        seen[key] = before | bit
                        yield row

    def _fits(self, types: tuple[type, ...]) -> bool:
        fits = len(types) == len(self._accepts) and all(
            each in accepted for each, accepted in zip(types, self._accepts, strict=True)
        )
        self._fitting[types] = fits
        return fits

    def _leaves(self, pages: "_Pages") -> Iterator[list[SalvagedRow]]:
        """Give the rows of each leaf.

        Those with damage come last: it may have changed a row id to one that another leaf has.

        Overflow pages, trunks of the freelist and pointer maps aren't taken for leaves: the former
        two begin with the number of a page, whose first byte is that of a leaf only in files of
        more than 0x0D000000 pages (111 GB at least), the latter with one of 1 to 5.
        """
        kinds = pages.kinds()
        damaged = array("Q")
        for number, page in pages:
            kind = kinds[number]
            if kind == _FREE:
                continue
            first = _HEADER_SIZE if number == 1 else 0
            page_type = page[first] if first < len(page) else None
            if page_type == _TABLE_LEAF:
                try:
                    rows, unreadable = _read_leaf(page, first, pages.usable, pages.overflow)
                except _UnreadableError:
                    self.unreadable_pages += 1
                    continue
                if unreadable or not _ascend(rows):
                    self.unreadable_cells += unreadable
                    damaged.append(number)
                else:
                    yield rows
            elif page_type is None or (kind in {_ROOT, _TREE} and page_type not in _TREE_PAGES):
                self.unreadable_pages += 1
        for number in damaged:
            first = _HEADER_SIZE if number == 1 else 0
            with suppress(_UnreadableError):  # by now, where a disk fails
                yield _read_leaf(pages.page(number), first, pages.usable, pages.overflow)[0]


class _Layout(NamedTuple):
    """How a file is cut into pages, and how much of each, at its end, isn't used."""

    page_size: int
    reserved: int


_USUAL_LAYOUT = _Layout(4096, 0)  # of what SQLite creates


class _Wal:
    """The pages that a WAL has committed, by SQLite's own rules; none where its header is damaged.

    ``page_count`` is how many pages the database has after its last commit, 0 without one.
    ``is_torn``: it ends in a frame that is not whole, so more may have been committed.
    """

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self.page_size: int | None = None
        self.page_count = 0
        self.is_torn = False
        self._offsets: dict[int, int] = {}
        header = _read(file, 0, _WAL_HEADER.size) if file else b""
        if len(header) == _WAL_HEADER.size:
            self._read_frames(header)

    def page(self, number: int) -> bytes | None:
        """Read the newest image of a page; None where the WAL has none."""
        offset = self._offsets.get(number)
        if self._file is None or self.page_size is None or offset is None:
            return None
        return _read(self._file, offset, self.page_size)

    def _read_frames(self, header: bytes) -> None:
        magic, version, page_size, _, *salts, first, second = _WAL_HEADER.unpack(header)
        words = ">" if magic & 1 else "<"
        checksum = _checksum(header[:24], words, (0, 0))
        is_sound = magic | 1 == _WAL_MAGIC | 1 and checksum == (first, second)
        if not is_sound or version != _WAL_VERSION or page_size not in _PAGE_SIZES:
            return
        self.page_size = page_size
        pending: dict[int, int] = {}
        offset = _WAL_HEADER.size
        while True:
            frame = _read(self._file, offset, _FRAME_HEADER.size + page_size)
            if len(frame) < _FRAME_HEADER.size + page_size:
                self.is_torn = bool(frame)
                break
            number, page_count, *frame_salts, first, second = _FRAME_HEADER.unpack_from(frame)
            if frame_salts != salts:  # left over from before the WAL began anew
                break
            checksum = _checksum(frame[:8], words, checksum)
            checksum = _checksum(frame[_FRAME_HEADER.size :], words, checksum)
            if not number or checksum != (first, second):
                self.is_torn = True
                break
            pending[number] = offset + _FRAME_HEADER.size
            if page_count:  # a commit
                self._offsets |= pending
                self.page_count = page_count
                pending.clear()
            offset += _FRAME_HEADER.size + page_size


class _Pages:
    """The pages of a database, each as it was committed last; empty where it can't be read.

    The file is read rather than mapped: a disk that fails would end a process that has mapped it.
    """

    def __init__(self, file: BinaryIO, wal: _Wal, layout: _Layout) -> None:
        self._file = file
        self._wal = wal
        self.page_size = layout.page_size
        self._lock_page = _LOCK_BYTE // layout.page_size + 1
        self.usable = layout.page_size - layout.reserved
        self.count = wal.page_count
        if wal.is_torn or not wal.page_count:
            # The WAL's end may have been damaged long after all of it got into the file.
            in_file = -(-os.fstat(file.fileno()).st_size // layout.page_size)
            self.count = max(wal.page_count, in_file)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        """Give the number of each page, and the page."""
        for start in range(0, self.count * self.page_size, _BLOCK_SIZE):
            yield from self.between(start, start + _BLOCK_SIZE)

    def between(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Give the pages from one offset of the file to another; both lie between pages."""
        block = _read(self._file, start, end - start)
        for offset in range(start, min(end, self.count * self.page_size), self.page_size):
            number = offset // self.page_size + 1
            page = self._wal.page(number)
            if page is None and block:
                page = block[offset - start : offset - start + self.page_size]
            yield number, self.page(number) if page is None else page

    def page(self, number: int) -> bytes:
        """Read one page."""
        page = self._wal.page(number)
        if page is None:
            page = _read(self._file, (number - 1) * self.page_size, self.page_size)
        return page

    def overflow(self, number: int, size: int) -> bytes:
        """Read what didn't fit into a leaf, from this page on.

        A wrong turn is noticed at the latest where the chain doesn't end when all is read.
        """
        content: list[bytes] = []
        passed: set[int] = set()
        while size > 0:
            if number in passed or not 1 < number <= self.count:
                raise _UnreadableError
            passed.add(number)
            page = self.page(number)
            if len(page) < self.usable:
                raise _UnreadableError
            content.append(page[4 : min(4 + size, self.usable)])
            size -= self.usable - 4
            number = int.from_bytes(page[:4])
        if number:
            raise _UnreadableError
        return b"".join(content)

    def kinds(self) -> bytearray:
        """Say what each page is, by its number.

        A page is free if the pointer map and the freelist say so, or the one of them that can be
        read: so damage to one doesn't hide rows.
        """
        kinds = bytearray(self.count + 1)
        step = self.usable // 5 + 1  # a map and its pages
        for number in range(2, self.count + 1, step):
            in_place = number + (number == self._lock_page)
            kinds[in_place + 1 : number + step] = self._read_map(in_place, number + step)
        listed = self._listed_free()
        if listed is not None:
            for number, is_free in enumerate(listed):
                if kinds[number] in {_UNKNOWN, _FREE}:
                    kinds[number] = _FREE if is_free else _UNKNOWN
        if self.count:
            kinds[1] = _ROOT
        return kinds

    def _read_map(self, number: int, end: int) -> bytes:
        """Read what a pointer map says of the pages from there to the end.

        All are unknown if the page isn't one, or not all of it is plausible.
        """
        page = self.page(number)
        first, end = number + 1, min(end, self.count + 1)
        unknown = bytes(max(0, end - first))
        kinds = page[: 5 * len(unknown) : 5]
        if len(kinds) < len(unknown):
            return unknown
        for index, kind in enumerate(kinds):
            has_parent = any(page[5 * index + 1 : 5 * index + 5])
            if first + index == self._lock_page and not kind:
                continue
            if not _ROOT <= kind <= _TREE or has_parent == (kind in {_FREE, _ROOT}):
                return unknown
        return kinds

    def _listed_free(self) -> bytearray | None:
        """Mark the pages on the freelist; None unless all of it can be read."""
        header = self.page(1)[:_HEADER_SIZE]
        if len(header) < _HEADER_SIZE or not header.startswith(_MAGIC):  # zeros: an empty list
            return None
        trunk, expected = struct.unpack_from(">2I", header, 32)
        free = bytearray(self.count + 1)
        while trunk:
            page = self.page(trunk) if 1 < trunk <= self.count else b""
            if len(page) < self.usable:
                return None
            next_trunk, leaves = struct.unpack_from(">2I", page)
            if leaves > self.usable // 4 - 2:
                return None
            for number in (trunk, *struct.unpack_from(f">{leaves}I", page, 8)):
                if not 1 < number <= self.count or free[number]:
                    return None
                free[number] = True
            trunk = next_trunk
        return free if sum(free) == expected else None


def _open(path: Path, stack: ExitStack) -> _Pages:
    """Open a file and its WAL, and find out how it is cut into pages."""
    try:
        file = stack.enter_context(path.open("rb", buffering=0))
    except OSError as error:
        raise DatabaseError(f"the database {path} can't be read: {error.strerror}") from error
    try:
        wal_file = path.with_name(f"{path.name}-wal").open("rb", buffering=0)
    except OSError:
        wal = _Wal(None)
    else:
        wal = _Wal(stack.enter_context(wal_file))
    header = wal.page(1) or _read(file, 0, _HEADER_SIZE)
    return _Pages(file, wal, _find_layout(file, wal, header))


def _find_layout(file: BinaryIO, wal: _Wal, header: bytes) -> _Layout:
    """Find out how a file is cut into pages: so that most rows of a sample can be read.

    The header only decides between equals, as it may be damaged.
    """
    page_size = int.from_bytes(header[16:18])
    stated = _Layout(0x10000 if page_size == 1 else page_size, header[20] if header[20:] else 0)
    layouts = [
        _Layout(size, reserved)
        for size in ([wal.page_size] if wal.page_size else _PAGE_SIZES)
        for reserved in {0, stated.reserved}
        if size - reserved >= _LEAST_USABLE
    ]
    if len(layouts) == 1:
        return layouts[0]

    def quality(layout: _Layout) -> tuple[int, bool, bool]:
        readable = _count_sample(_Pages(file, wal, layout))
        return readable, layout == stated, layout == _USUAL_LAYOUT

    return max(layouts, key=quality)


def _count_sample(pages: _Pages) -> int:
    """Count the cells that can be read in some places all over a file."""
    end = pages.count * pages.page_size
    step = max(_SAMPLE_SIZE, end // _SAMPLES // _SAMPLE_SIZE * _SAMPLE_SIZE)
    found = 0
    for start in range(0, end, step):
        for number, page in pages.between(start, start + _SAMPLE_SIZE):
            if number > 1 and page[:1] == bytes([_TABLE_LEAF]):
                try:
                    found += len(_read_leaf(page, 0, pages.usable, pages.overflow)[0])
                except _UnreadableError:
                    continue
    return found


def _read_leaf(
    page: bytes, first: int, usable: int, overflow: _Overflow
) -> tuple[list[SalvagedRow], int]:
    """Read the cells of a leaf whose header is at ``first``; also says how many can't be read."""
    end = min(usable, len(page))
    count = int.from_bytes(page[first + 3 : first + 5])
    cells = first + _LEAF_HEADER_SIZE + 2 * count
    if cells > end:
        raise _UnreadableError
    most = usable - 35  # how long a record can be without overflow pages
    rows: list[SalvagedRow] = []
    unreadable = 0
    for pointer in struct.unpack_from(f">{count}H", page, first + _LEAF_HEADER_SIZE):
        try:
            size, at = page[pointer], pointer + 1
            if pointer < cells:
                raise _UnreadableError
            if size > _ONE_BYTE:
                size, at = _varint(page, pointer)
            row_id, start = page[at], at + 1
            if row_id > _ONE_BYTE:
                row_id, start = _varint(page, at)
            if size <= most:
                if start + size > end:
                    raise _UnreadableError
                rows.append((row_id, _decode(page, start, start + size)))
            else:
                record = _with_overflow(page[:end], start, size, usable, overflow)
                rows.append((row_id, _decode(record, 0, size)))
        except (IndexError, ValueError, struct.error):
            unreadable += 1
    return rows, unreadable


def _with_overflow(page: bytes, start: int, size: int, usable: int, overflow: _Overflow) -> bytes:
    """Read a record that begins in a leaf and goes on in overflow pages."""
    least = (usable - 12) * 32 // 255 - 23
    local = least + (size - least) % (usable - 4)
    if local > usable - 35:
        local = least
    next_page = page[start + local : start + local + 4]
    if len(next_page) < 4:  # noqa: PLR2004 - a page's number
        raise _UnreadableError
    return page[start : start + local] + overflow(int.from_bytes(next_page), size - local)


def _decode(data: bytes, start: int, end: int) -> tuple[Value, ...]:
    """Decode a record: its header has a serial type for each value, its body the values."""
    at = start + 1
    body = header_end = start + data[start]
    if data[start] > _ONE_BYTE:
        header_size, at = _varint(data, start)
        body = header_end = start + header_size
    values: list[Value] = []
    add = values.append
    while at < header_end:
        serial = data[at]
        at += 1
        if serial > _ONE_BYTE:
            serial, at = _varint(data, at - 1)
        begin = body
        if serial >= _BLOB:
            body += (serial - _BLOB) >> 1
            add(data[begin:body].decode() if serial & 1 else data[begin:body])
        elif serial == 0:
            add(None)
        elif 0 < serial < _DOUBLE:
            body += _INTEGER_SIZES[serial]
            add(int.from_bytes(data[begin:body], "big", signed=True))
        elif serial == _DOUBLE:
            body += 8
            add(struct.unpack(">d", data[begin:body])[0])
        elif serial in {_ZERO, _ONE}:
            add(serial - _ZERO)
        else:
            raise _UnreadableError
    if body != end or at != header_end:
        raise _UnreadableError
    return tuple(values)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a number of one to nine bytes; also says where it ends."""
    value = 0
    for end in range(at + 1, at + 9):
        byte = data[end - 1]
        if byte <= _ONE_BYTE:
            return value << 7 | byte, end
        value = value << 7 | byte & _ONE_BYTE
    value = value << 8 | data[at + 8]
    return value - (value >> 63 << 64), at + 9


def _ascend(rows: list[SalvagedRow]) -> bool:
    ids = [row_id for row_id, _ in rows]
    return all(map(int.__lt__, ids, ids[1:]))


def _checksum(data: bytes, words: str, before: tuple[int, int]) -> tuple[int, int]:
    """Continue the checksum of a WAL over more bytes."""
    first, second = before
    for one, other in struct.iter_unpack(f"{words}2I", data):
        first = (first + one + second) & 0xFFFFFFFF
        second = (second + other + first) & 0xFFFFFFFF
    return first, second


def _read(file: BinaryIO | None, offset: int, size: int) -> bytes:
    """Read bytes of a file: less at its end, nothing where the disk fails."""
    try:
        return os.pread(file.fileno(), size, offset) if file else b""
    except OSError:
        return b""
