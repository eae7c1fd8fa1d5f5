"""TEMPORARY until the branch transcripts is merged."""

from collections.abc import Iterator

from rollbook.rollout.injected import message_words
from rollbook.rollout.lines import RolloutItem, list_of, text_of


def searchable(record: RolloutItem) -> Iterator[tuple[str, str]]:
    """Give role and text."""
    if record.type != "response_item":
        return
    payload = record.payload
    kind = text_of(payload, "type")
    if kind == "message":
        role = text_of(payload, "role")
        if role == "user":
            words, _ = message_words(payload)
            if words:
                yield "user", words
        elif role == "assistant":
            text = "\n".join(
                text_of(part, "text")
                for part in list_of(payload, "content")
                if isinstance(part, dict)
            )
            if text:
                yield "assistant", text
    elif kind.endswith(("_call", "_call_output")):
        for key in ("arguments", "input", "output"):
            if text_of(payload, key):
                yield "tool", text_of(payload, key)
