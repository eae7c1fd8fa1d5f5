"""Templates into pages: everything in them is escaped, and no text controls more than itself."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment
from markupsafe import Markup

from rollbook.export.facts import heading_of
from rollbook.export.html import template_environment
from rollbook.model.documents import without_controls
from rollbook.model.labels import age_text, as_text, directory_text, here, number, source_text
from rollbook.web.assets import asset_address

_TEMPLATES = Path(__file__).with_name("templates")


def rendered(template: str, **values: Any) -> str:
    """Make a page, or a part of one."""
    return without_controls(_environment().get_template(template).render(values))


@cache
def _environment() -> Environment:
    environment = template_environment(_TEMPLATES)
    environment.globals["asset"] = asset_address
    environment.filters |= {
        "heading": heading_of,
        "number": number,
        "source": source_text,
        "age": _age,
        "directory": short_directory,
        "text": as_text,
        "time": local_time,
        "query": _query,
        "short": _short,
    }
    return environment


def _age(time: datetime | None) -> Markup:
    """Write how long ago a time was; the browser keeps it true."""
    if time is None:
        return Markup("")
    return Markup('<time datetime="{}" title="{}" data-age>{}</time>').format(
        time.isoformat(), local_time(time), age_text(time, datetime.now(UTC))
    )


def short_directory(directory: str) -> str:
    """Write a directory with the user's own as ``~``."""
    return directory_text(directory, str(Path.home()))


def local_time(time: datetime | None) -> str:
    """Write a time in the time zone of this machine; empty for none."""
    return "" if time is None else here(time).isoformat(" ", "seconds")[:19]


def _query(values: Mapping[str, Any]) -> str:
    """Write parameters, without those that are empty; booleans as a form does."""
    given = {name: value for name, value in values.items() if value not in (None, "", False)}
    pairs = {name: "true" if value is True else value for name, value in given.items()}
    return urlencode(pairs, doseq=True)


def _short(count: int) -> str:
    """Write a count in few characters, such as 1.2M."""
    amount = float(count)
    for unit in ("", "k", "M", "G"):
        if abs(amount) < 999.5 or unit == "G":  # noqa: PLR2004 - what rounds to 1000
            return f"{amount:.3g}{unit}" if unit else str(count)
        amount /= 1000
    raise AssertionError("the last unit takes any count")
