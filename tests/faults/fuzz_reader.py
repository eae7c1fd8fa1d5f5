"""Fuzz the reader, guided by coverage: ``python tests/faults/fuzz_reader.py -runs=200000``.

Needs atheris, which is not among the dependencies of the tests.  Arguments are libFuzzer's.  What
it has found to be new is kept in the directory that is named, else in ``build/fuzz``, and built
upon by the next run; the input of a crash lies in ``build``.
"""

import io
import sys
from pathlib import Path

import msgspec

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "corpus"
THREAD = "01a207c8-5c2e-7e11-9928-f6d6451bf219"
_LARGEST_INTEGER = (1 << 63) - 1
_LARGEST_INPUT = 1 << 14


def read(content: bytes) -> None:
    """Read a rollout with and without skipping; nothing may be raised, and all can be stored."""
    from rollbook.rollout.fold import FoldState, ThreadFold, decode_state, encode_state
    from rollbook.rollout.history import as_legacy, conversation
    from rollbook.rollout.scan import DeceptiveLineError, Scan
    from rollbook.testing import make_thread

    for everything in (False, True):
        metadata = make_thread(id=THREAD, title="", has_user_event=False)
        thread = ThreadFold(metadata, FoldState(), "mock")
        scan = Scan(io.BytesIO(content), everything=everything)
        items = []
        try:
            for item in scan:
                thread.take(item)
                scan.is_settled, scan.own_from = thread.is_settled, thread.own_from
                items.append(item)
        except DeceptiveLineError:
            assert not everything
        assert scan.offset <= len(content)
        msgspec.json.encode(thread.tools)
        assert decode_state(encode_state(thread.state)) == thread.state
        assert_storable(thread.metadata)
        conversation(as_legacy(items))


def assert_storable(metadata) -> None:
    """Every field of a thread is what it should be, and of a size that databases keep."""
    fields = msgspec.structs.asdict(metadata)
    msgspec.convert(fields, type(metadata), strict=True)
    for value in fields.values():
        if isinstance(value, str):
            value.encode()
        if isinstance(value, int):
            assert 0 <= value <= _LARGEST_INTEGER


def write_seeds(directory: Path) -> None:
    """Write the shortest real line of each kind, with a session meta before it, as seeds."""
    shortest: dict[tuple[str, str], bytes] = {}
    for path in sorted(CORPUS.glob("*/home/**/rollout-*.jsonl")):
        for line in path.read_bytes().splitlines():
            record = msgspec.json.decode(line)
            kind = (record["type"], str(record["payload"].get("type")))
            if kind not in shortest or len(line) < len(shortest[kind]):
                shortest[kind] = line
    meta = shortest["session_meta", "None"]
    directory.mkdir(parents=True, exist_ok=True)
    for number, line in enumerate(shortest.values()):
        (directory / f"seed-{number}").write_bytes(meta + b"\n" + line + b"\n")
    words = {word for line in shortest.values() for word in line.split(b'"') if word.isalpha()}
    entries = [b'"\\"%s\\":"\n' % word for word in sorted(words) if word.isascii()]
    (directory.parent / "words").write_bytes(b"".join(entries))


def main() -> None:
    """Fuzz as the command line says."""
    import atheris

    named = [Path(argument) for argument in sys.argv[1:] if not argument.startswith("-")]
    directory = named[0] if named else ROOT / "build" / "fuzz"
    write_seeds(directory)
    options = [
        f"-dict={directory.parent / 'words'}",
        f"-artifact_prefix={directory.parent}/",
        f"-max_len={_LARGEST_INPUT}",
    ]
    with atheris.instrument_imports(include=["rollbook"]):
        import rollbook.rollout.history
        import rollbook.testing  # noqa: F401 - what read() imports, instrumented
    arguments = [*options, *sys.argv[1:]] + ([] if named else [str(directory)])
    atheris.Setup([sys.argv[0], *arguments], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
