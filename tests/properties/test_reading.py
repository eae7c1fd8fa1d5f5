"""What must hold for any rollout: skipping changes nothing, and neither does where a read stopped."""

import contextlib
import io
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rollbook.rollout import scan as scan_module
from rollbook.rollout.extract import extract
from rollbook.rollout.fold import FoldState, ThreadFold
from rollbook.rollout.layout import stat_rollout
from rollbook.rollout.lines import MalformedLineError, RolloutItem, decode_line
from rollbook.rollout.scan import DeceptiveLineError, Scan
from rollbook.testing import make_thread
from tests.conftest import CORPUS

THREAD = "01a207c8-5c2e-7e11-9928-f6d6451bf219"
ROLLOUTS = sorted(CORPUS.glob("*/home/**/rollout-*.jsonl"))
LINES = sorted({line for path in ROLLOUTS for line in path.read_bytes().splitlines()}, key=len)
SHORT_LINES = LINES[: len(LINES) * 9 // 10]


def new_thread(thread_id: str) -> ThreadFold:
    metadata = make_thread(id=thread_id, title="", has_user_event=False)
    return ThreadFold(metadata, FoldState(), "mock")


def folded(items: list[RolloutItem], thread_id: str = THREAD) -> tuple:
    thread = new_thread(thread_id)
    for item in items:
        thread.take(item)
    return thread.metadata, thread.state, thread.tools


def scanned(content: bytes, thread_id: str = THREAD) -> tuple[Scan, tuple]:
    """Read as an index does: what matters, and everything where that may deceive."""
    for everything in (False, True):
        scan, thread = Scan(io.BytesIO(content), everything=everything), new_thread(thread_id)
        with contextlib.suppress(DeceptiveLineError):
            for item in scan:
                thread.take(item)
                scan.is_settled, scan.own_from = thread.is_settled, thread.own_from
            break
    return scan, (thread.metadata, thread.state, thread.tools)


def decode_every_line(content: bytes) -> tuple[list[RolloutItem], int]:
    items, errors = [], 0
    for line in content.split(b"\n"):
        if line.strip():
            try:
                items.append(decode_line(line))
            except MalformedLineError:
                errors += 1
    return items, errors


def assert_same_as_decoding_everything(content: bytes) -> None:
    scan, seen = scanned(content)
    items, errors = decode_every_line(content)
    assert seen == folded(items)
    assert scan.parse_errors == errors
    assert scan.records == len(items)


@pytest.mark.parametrize("path", ROLLOUTS, ids=lambda path: path.name[28:46])
def test_skipping_by_the_head_gives_what_decoding_every_line_gives(path: Path):
    assert_same_as_decoding_everything(path.read_bytes())


CONTEXTS = [line for line in LINES if b',"type":"turn_context",' in line]
SETTINGS = [line for line in LINES if b'"type":"thread_settings_applied"' in line]


@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(CONTEXTS), st.sampled_from(SETTINGS), st.lists(st.sampled_from(SHORT_LINES)))
def test_settings_behind_the_last_turn_stay(context, applied, before):
    assert_same_as_decoding_everything(b"\n".join([*before, context, applied]) + b"\n")


@st.composite
def restyled(draw: st.DrawFn, line: bytes) -> bytes:
    """The same record as another writer would write it: other key order, other white space."""
    import json

    record = json.loads(line)
    keys = draw(st.permutations(list(record)))
    separators = draw(st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :\t")]))
    text = json.dumps(
        {key: record[key] for key in keys},
        separators=separators,
        ensure_ascii=draw(st.booleans()),
    )
    padding = draw(st.sampled_from(["", " ", "\t"]))
    return (padding + text + padding + draw(st.sampled_from(["", "\r"]))).encode()


@settings(deadline=None, max_examples=90, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_key_order_and_white_space_make_no_difference(data: st.DataObject):
    lines = data.draw(st.lists(st.sampled_from(SHORT_LINES), min_size=1, max_size=12))
    other = [data.draw(restyled(line)) for line in lines]
    assert_same_as_decoding_everything(b"\n".join(other) + b"\n")
    plain, restyled_items = (
        decode_every_line(b"\n".join(lines)),
        decode_every_line(b"\n".join(other)),
    )
    assert folded(plain[0]) == folded(restyled_items[0])


@st.composite
def harmed(draw: st.DrawFn, lines: list[bytes]) -> bytes:
    """A real rollout, some of whose lines were changed, damaged, moved, or written twice."""
    lines = list(lines)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(lines) - 1))
        line = lines[at]
        cut = draw(st.integers(0, len(line)))
        match draw(st.sampled_from(["restyle", "tear", "fuse", "flip", "zero", "time", "move"])):
            case "restyle" if line.startswith(b"{") and line.endswith(b"}"):
                with contextlib.suppress(ValueError):
                    lines[at] = draw(restyled(line))
            case "tear":
                lines[at] = line[:cut]
            case "fuse" if at + 1 < len(lines):
                lines[at : at + 2] = [line[:cut] + lines[at + 1]]
            case "flip" if cut < len(line):
                lines[at] = line[:cut] + bytes([draw(st.integers(0, 255))]) + line[cut + 1 :]
            case "zero":
                lines[at] = line[:cut] + b"\0" * 8 + line[cut:]
            case "time":
                lines[at] = line.replace(b"T09:", b"T99:", 1)
            case "move":
                lines.insert(draw(st.integers(0, len(lines))), line)
    return b"\n".join(lines) + draw(st.sampled_from([b"", b"\n"]))


@settings(deadline=None, max_examples=240, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([64, 4096, 1 << 20]))
def test_whatever_is_wrong_with_a_rollout_skipping_changes_no_field(data: st.DataObject, block):
    path = data.draw(st.sampled_from(ROLLOUTS))
    content = data.draw(harmed(path.read_bytes().splitlines()))
    everything = Scan(io.BytesIO(content), everything=True)
    expected = folded(list(everything), path.stem[-36:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK_BYTES", block)
        patch.setattr(scan_module, "_buffers", [])
        scan, seen = scanned(content, path.stem[-36:])
    assert seen == expected
    assert scan.offset == everything.offset
    assert scan.parse_errors <= everything.parse_errors


SUB_AGENT = next(
    path for path in ROLLOUTS if b'"subagent_history_start_ordinal":' in path.read_bytes()
)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.data(), st.sampled_from([64, 1 << 20]))
def test_a_copied_record_stands_for_none_of_the_threads_own(data: st.DataObject, block):
    head, *lines = SUB_AGENT.read_bytes().splitlines()
    content = b"\n".join([head, *data.draw(st.permutations(lines))]) + b"\n"
    everything = Scan(io.BytesIO(content), everything=True)
    expected = folded(list(everything), SUB_AGENT.stem[-36:])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK_BYTES", block)
        patch.setattr(scan_module, "_buffers", [])
        assert scanned(content, SUB_AGENT.stem[-36:])[1] == expected


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(SHORT_LINES), min_size=1, max_size=8), st.data())
def test_a_torn_line_is_counted_and_costs_nothing_else(lines: list[bytes], data: st.DataObject):
    at = data.draw(st.integers(0, len(lines) - 1))
    cut = data.draw(st.integers(1, len(lines[at]) - 1))
    torn = [*lines[:at], lines[at][:cut], *lines[at + 1 :]]
    scan, seen = scanned(b"".join(line + b"\n" for line in torn))
    whole = [decode_line(line) for index, line in enumerate(lines) if index != at]
    assert scan.records + scan.parse_errors == len(lines)
    assert scan.parse_errors == 1
    assert seen == folded(whole)


@settings(deadline=None, max_examples=120, suppress_health_check=list(HealthCheck))
@given(st.lists(st.sampled_from(SHORT_LINES), min_size=2, max_size=8), st.data())
def test_of_two_records_fused_by_a_crash_the_second_is_saved(
    lines: list[bytes], data: st.DataObject
):
    at = data.draw(st.integers(0, len(lines) - 2))
    cut = data.draw(st.integers(1, len(lines[at]) - 1))
    fused = [*lines[:at], lines[at][:cut] + lines[at + 1], *lines[at + 2 :]]
    scan, seen = scanned(b"".join(line + b"\n" for line in fused))
    whole = [decode_line(line) for index, line in enumerate(lines) if index != at]
    assert (scan.records, scan.parse_errors) == (len(lines) - 1, 1)
    assert seen == folded(whole)


@settings(deadline=None, max_examples=90, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(SHORT_LINES), min_size=1, max_size=12),
    st.integers(16, 3000),
    st.booleans(),
)
def test_the_size_of_a_block_makes_no_difference(lines, block, last_break):
    content = b"\n".join(lines) + (b"\n" if last_break else b"")
    whole, expected = scanned(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_module, "BLOCK_BYTES", block)
        patch.setattr(scan_module, "_buffers", [])
        scan, seen = scanned(content)
    assert seen == expected
    assert (scan.parse_errors, scan.records) == (whole.parse_errors, whole.records)
    assert scan.offset == whole.offset == len(content)


@settings(deadline=None, max_examples=30, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(ROLLOUTS), st.lists(st.floats(0, 1), max_size=5))
def test_folding_in_pieces_equals_folding_at_once(tmp_path_factory, source, cuts):
    home = tmp_path_factory.mktemp("home")
    content = source.read_bytes()
    path = home / "sessions" / source.name
    path.parent.mkdir()
    relative = f"sessions/{source.name}"
    resume = None
    for size in sorted(int(cut * len(content)) for cut in [*cuts, 1.0]):
        path.write_bytes(content[:size])
        os.utime(path, (1.8e9, 1.8e9))
        file = stat_rollout(home, relative)
        if size and file:
            piece = extract(home, file, "mock", resume)
            resume = (piece.outcome.metadata, piece.point)
    at_once = extract(home, file, "mock")
    assert resume == (at_once.outcome.metadata, at_once.point)
