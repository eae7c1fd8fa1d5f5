"""SQL by name: each file in ``sql/`` holds statements headed by ``-- name: sentence``."""

import re
from pathlib import Path

_DIRECTORY = Path(__file__).with_name(
    "sql"
)  # importlib.resources takes longer to load than all of it
_HEADING = re.compile(r"^-- ([a-z_]+): .*$", re.MULTILINE)


def load(file_name: str) -> dict[str, str]:
    """Read the statements of one file, by name."""
    text = (_DIRECTORY / file_name).read_text("utf-8")
    parts = _HEADING.split(text)[1:]
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
