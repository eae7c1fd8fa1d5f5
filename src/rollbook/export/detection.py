"""What in a line is a secret, as detect-secrets says, a library made to keep them out of repositories."""

import re
from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any

from rollbook.errors import UsageError

if TYPE_CHECKING:
    from detect_secrets.plugins.base import BasePlugin, RegexBasedDetector
    from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
    from detect_secrets.plugins.keyword import KeywordDetector

PRIVATE_KEY = "Private Key"
# What only looks like a secret in a thread, such as a commit or an address; and what the detector
# finds only the first line of.
_PASSED_OVER = {"Hex High Entropy String", "Public IP (ipv4)", PRIVATE_KEY}
_SHORTEST_TOKEN = 8  # of the groups in an expression, others are prefixes such as "ghp"


def require_detectors() -> None:
    """Load the detectors.  Errors: UsageError where detect-secrets is not installed."""
    _detectors()


def find_secrets(line: str) -> Iterator[tuple[str, str]]:
    """Find the secrets in a line: the kind of each, and the secret as a whole."""
    from detect_secrets.plugins.base import RegexBasedDetector
    from detect_secrets.plugins.high_entropy_strings import HighEntropyStringsPlugin
    from detect_secrets.plugins.keyword import KeywordDetector

    for kind, detector in _detectors().items():
        if isinstance(detector, HighEntropyStringsPlugin):
            found = _by_entropy(detector, line)
        elif isinstance(detector, KeywordDetector):
            found = _by_keyword(detector, line)
        elif not isinstance(detector, RegexBasedDetector) or _looks_closer(detector):
            yield from ((kind, secret) for secret in detector.analyze_string(line))
            continue
        else:
            yield from ((kind, secret) for secret in _by_form(detector, line))
            continue
        yield from ((kind, each) for each in found if not _is_harmless(each, line, detector))


@cache
def _detectors() -> "dict[str, BasePlugin]":
    try:
        from detect_secrets.core.plugins.util import get_mapping_from_secret_type_to_class
    except ModuleNotFoundError as error:
        raise UsageError(
            "redaction needs detect-secrets", hint="install rollbook[redact]"
        ) from error
    classes: dict[str, Any] = get_mapping_from_secret_type_to_class()
    return {kind: make() for kind, make in classes.items() if kind not in _PASSED_OVER}


def _by_entropy(detector: "HighEntropyStringsPlugin", line: str) -> Iterator[str]:
    for text in detector.analyze_string(line):
        if detector.calculate_shannon_entropy(text) > detector.entropy_limit:
            yield text


def _by_keyword(detector: "KeywordDetector", line: str) -> Iterator[str]:
    from detect_secrets.plugins.keyword import CONFIG_DENYLIST_REGEX_TO_GROUP

    yield from filter(None, detector.analyze_string(line))
    # Without quotes, as in a shell: what could be a sentence is none.
    for text in detector.analyze_string(line, CONFIG_DENYLIST_REGEX_TO_GROUP):
        if text and not re.search(r"\s", text) and re.search(r"\d", text):
            yield text


def _looks_closer(detector: "RegexBasedDetector") -> bool:
    from detect_secrets.plugins.base import RegexBasedDetector

    return type(detector).analyze_string is not RegexBasedDetector.analyze_string


def _by_form(detector: "RegexBasedDetector", line: str) -> Iterator[str]:
    """Give what expressions match: the detector itself may give no more than a group's prefix."""
    for pattern in detector.denylist:
        for match in pattern.finditer(line):
            longest = max((group for group in match.groups() if group), key=len, default="")
            yield longest if len(longest) >= _SHORTEST_TOKEN else match[0].strip("\"' \t=:")


def _is_harmless(secret: str, line: str, detector: "BasePlugin") -> bool:
    """Say what the library's filters do of a text that has no form of its own."""
    from detect_secrets.filters import heuristic

    return (
        heuristic.is_sequential_string(secret)
        or heuristic.is_potential_uuid(secret)
        or heuristic.is_likely_id_string(secret, line, detector)
        or heuristic.is_templated_secret(secret)
        or heuristic.is_prefixed_with_dollar_sign(secret)
        or heuristic.is_not_alphanumeric_string(secret)
        or heuristic.is_indirect_reference(line)
    )
