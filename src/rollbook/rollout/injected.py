"""Text that the agent puts into user messages in the person's name.

Instructions, environment, notices and the like reach the model as messages of the user role, as
whole messages or as parts of one.  None of it was said by the person, so none of it is a title or
a user event (the reference at its commit takes it for one: behaviour.md 45).
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rollbook.rollout.lines import list_of, object_of, text_of

IMAGE_TITLE = "[Image]"
REQUEST_MARKER = "## My request for Codex:"

_TAGS = (
    "apps_instructions",
    "codex_internal_context",
    "collaboration_mode",
    "environment_context",
    "environments_instructions",
    "extension_context",
    r"external_\w+",
    "goal_context",
    "hook_context",
    "hook_prompt",
    "instructions",
    "model_switch",
    "multi_agent_mode",
    "permissions instructions",
    "personality_spec",
    "plugins",
    "plugins_instructions",
    "realtime_conversation",
    "recommended_plugins",
    "skill",
    "skills_instructions",
    "skills_section",
    "subagent_notification",
    "subagents",
    "system-reminder",
    "token_budget",
    "turn_aborted",
    "user_action",
    "user_instructions",
    "user_shell_command",
)
# How a block begins, at the beginning of a text. It goes to its end mark, which is written as the
# begin mark is; to the end of the text if that is missing, or if there is none.
_BLOCK = re.compile(
    rf"""\s*(?:
        <(?P<tag>{"|".join(tag.replace(" ", "[ ]") for tag in _TAGS)})(?:\s[^<>]*)?>
      | (?P<file>\#[ ]AGENTS\.md[ ]instructions\b)
      | Warning:[ ](?:The[ ]maximum[ ]number[ ]of[ ]unified[ ]exec[ ]processes
            |apply_patch[ ]was[ ]requested[ ]via
            |Your[ ]account[ ]was[ ]flagged)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_IMAGE_TAG = re.compile(r"</?image>|<image name=.*>", re.DOTALL)


def own_words(text: str) -> str | None:
    """Return what is left of a text without injected blocks at its beginning.

    None where nothing but injected text was there; a text without any comes back as it is.
    """
    start = 0
    while match := _BLOCK.match(text, start):
        mark = "</INSTRUCTIONS>" if match["file"] else f"</{match['tag']}>" if match["tag"] else ""
        end = text.find(mark, match.end()) if mark else -1
        start = len(text) if end < 0 else end + len(mark)
    rest = text[start:]
    return None if start and not rest.strip() else rest


def cut_title(text: str) -> str:
    """Cut a text to a title: what follows the first request marker, trimmed (behaviour.md 47)."""
    return text.partition(REQUEST_MARKER)[2].strip() if REQUEST_MARKER in text else text.strip()


def message_words(payload: Mapping[str, Any]) -> tuple[str | None, bool]:
    """What the person says in a ``message`` item of the user role, and whether there is an image.

    Text parts are joined with a line break (behaviour.md 44).  Releases from 0.155 on say of each
    part whose it is.  (None, False) where all of it is injected.
    """
    texts: list[str] = []
    has_image = False
    for part, kind in _parts_with_kinds(payload):
        if kind and not kind.startswith("user.") and kind != "unknown":
            continue
        if part.get("type") == "input_image":
            has_image = True
        elif part.get("type") == "input_text":
            text = text_of(part, "text")
            words = None if _IMAGE_TAG.fullmatch(text) else own_words(text)
            if words is not None:
                texts.append(words)
    return ("\n".join(texts) if texts else None), has_image


def _parts_with_kinds(payload: Mapping[str, Any]) -> Sequence[tuple[dict[str, Any], str]]:
    parts = [part for part in list_of(payload, "content") if isinstance(part, dict)]
    origin = object_of(payload, "internal_chat_message_metadata_passthrough")
    kinds = list_of(origin, "content_item_kinds")
    if len(kinds) != len(parts):
        return [(part, "") for part in parts]
    texts = (kind if isinstance(kind, str) else "" for kind in kinds)
    return list(zip(parts, texts, strict=True))
