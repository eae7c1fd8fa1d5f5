"""What an examination has found."""

from enum import StrEnum
from typing import Any

import msgspec


class Status(StrEnum):
    """How a finding is to be taken, from harmless to bad."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"
    DAMAGED = "damaged"


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at: what it is, how it is, and what to do about it.

    ``details`` holds the same as values: texts, whole numbers, lists of texts.
    """

    check: str
    status: Status
    message: str
    hint: str = ""
    details: dict[str, Any] = {}


class Report(msgspec.Struct, frozen=True):
    """All findings, in the order in which a person reads them."""

    findings: tuple[Finding, ...]

    @property
    def is_healthy(self) -> bool:
        """Say whether all is well: notes are no problems."""
        return self.status in {Status.OK, Status.NOTE}

    @property
    def status(self) -> Status:
        """The worst of all."""
        order = list(Status)
        return max((f.status for f in self.findings), key=order.index, default=Status.OK)
