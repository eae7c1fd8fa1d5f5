"""What an examination has found."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Any

import msgspec

from rollbook.model.labels import as_text, number

_SHOWN = 5
_GROUPS = {  # in the order in which they are shown
    "Home": ("home", "leftovers", "file system", "disk space"),
    "Rollbook's databases": ("index", "content", "logs", "permissions"),
    "Index and disk": ("index and disk", "rollouts", "duplicate ids", "threads"),
    "Other hosts": ("sharing",),
    "Other processes": ("locks",),
    "This machine": ("versions", "limits", "clock"),
    "Codex's own databases, only read": ("codex",),
}

_GROUP_OF = {check: group for group, checks in _GROUPS.items() for check in checks}


class Status(StrEnum):
    """How a finding is to be taken, from harmless to bad."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"
    DAMAGED = "damaged"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: what it is, how it is, and what to do about it.

    ``examples`` are all that the message counts.  ``details`` holds the same as values: texts,
    whole numbers, lists of texts.
    """

    check: str
    status: Status
    message: str
    hint: str = ""
    details: dict[str, Any] = {}
    examples: tuple[str, ...] = ()

    @property
    def shown_examples(self) -> list[str]:
        """The first few examples, and how many others there are."""
        more = len(self.examples) - _SHOWN
        return [*self.examples[:_SHOWN], *([f"and {more:,} more"] if more > 0 else [])]

    @property
    def sentence(self) -> str:
        """The message with the first few examples."""
        return ": ".join(filter(None, (self.message, ", ".join(self.shown_examples))))

    def as_object(self) -> dict[str, Any]:
        """Make its JSON object; names of files may be any bytes, of which text is made."""
        value = {
            "check": self.check,
            "status": self.status,
            "message": self.sentence,
            "hint": self.hint,
            "details": self.details,
        }
        return {name: _encodable(each) for name, each in value.items()}


class Report(msgspec.Struct, frozen=True):
    """All findings about a home, in the order in which a person reads them."""

    home: str
    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Say whether all is well: notes are no problems."""
        return self.status in {Status.OK, Status.NOTE}

    @property
    def groups(self) -> dict[str, list[Finding]]:
        """The findings by what they are about, as a person reads them: paths are below the home."""
        found: dict[str, list[Finding]] = {group: [] for group in _GROUPS}
        for finding in self.findings:
            found[_GROUP_OF[finding.check]].append(self._below_home(finding))
        return {group: members for group, members in found.items() if members}

    @property
    def summary(self) -> str:
        """All findings in a sentence."""
        bad = [f for f in self.findings if f.status in {Status.PROBLEM, Status.DAMAGED}]
        notes = [f for f in self.findings if f.status is Status.NOTE]
        noted = f" ({number(len(notes), 'note')}, marked ·)" if notes else ""
        return (
            f"{number(len(bad), 'problem')} to look after{noted}."
            if bad
            else f"All is well{noted}."
        )

    def as_object(self) -> dict[str, Any]:
        """Make its JSON object."""
        checks = [finding.as_object() for finding in self.findings]
        return {"healthy": self.is_healthy, "checks": checks}

    def _below_home(self, finding: Finding) -> Finding:
        if finding.check == "home":  # says where that is
            return finding
        message, *examples = (
            text.replace(f"{self.home}/", "") for text in (finding.message, *finding.examples)
        )
        return msgspec.structs.replace(finding, message=message, examples=tuple(examples))

    @property
    def status(self) -> Status:
        """The worst of all."""
        order = list(Status)
        return max((f.status for f in self.findings), key=order.index, default=Status.OK)


def about_paths(
    check: str, status: Status, message: str, paths: Iterable[str], hint: str = ""
) -> Finding:
    """Make a finding about files, in their order by name."""
    return _about("paths", paths, check, status, message, hint)


def about_threads(
    check: str, status: Status, message: str, ids: Iterable[str], hint: str = ""
) -> Finding:
    """Make a finding about threads, in the order of their ids."""
    return _about("ids", ids, check, status, message, hint)


def _about(
    what: str, found: Iterable[str], check: str, status: Status, message: str, hint: str
) -> Finding:
    names = sorted(found)
    return Finding(check, status, message, hint, {what: names}, tuple(names))


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, list):
        return [_encodable(item) for item in value]
    if isinstance(value, dict):
        return {key: _encodable(item) for key, item in value.items()}
    return value
