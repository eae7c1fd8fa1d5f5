import pytest

from rollbook.rollout.injected import cut_title, message_words, own_words

AGENTS = "# AGENTS.md instructions for /x\n\n<INSTRUCTIONS>\nUse tabs.\n</INSTRUCTIONS>"
ENVIRONMENT = "<environment_context>\n  <cwd>/x</cwd>\n</environment_context>"


@pytest.mark.parametrize(
    "text",
    [
        AGENTS,
        ENVIRONMENT,
        "# AGENTS.md instructions\n\n<INSTRUCTIONS>\n[scrubbed]\n</INSTRUCTIONS>",
        "  \n" + ENVIRONMENT.upper() + "\n",
        "<environment_context>never closed",
        "<user_instructions>\nold form\n</user_instructions>",
        "<turn_aborted>\nThe user interrupted.\n</turn_aborted>",
        "<user_shell_command>\nls\n</user_shell_command>",
        "<subagent_notification>{}</subagent_notification>",
        "<skill>\n<name>x</name>\n</skill>",
        '<codex_internal_context source="goal">\nx\n</codex_internal_context>',
        '<hook_prompt hook_run_id="1">again</hook_prompt>',
        "Warning: apply_patch was requested via exec_command. Use the tool instead.",
        AGENTS + "\n\n" + ENVIRONMENT,
    ],
)
def test_injected_text_is_nobodys_words(text):
    assert own_words(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "Fix the parser",
        "",
        "  \n ",
        "Why does <environment_context> show up?",
        "<div>what is wrong here?</div>",
        "<task>rename it</task>",
        "# AGENTS.md should say more",
        "Warning: the build fails",
        "see AGENTS.md instructions",
    ],
)
def test_what_a_person_writes_is_left_alone(text):
    assert own_words(text) == text


def test_words_that_follow_an_injected_block_are_the_persons():
    assert own_words(f"{ENVIRONMENT}\nFix it").strip() == "Fix it"
    assert own_words(f"{AGENTS}\n{ENVIRONMENT}\n\nFix it").strip() == "Fix it"


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("  Fix it \n", "Fix it"),
        ("Two\nlines", "Two\nlines"),
        ("# Context\nfile.py\n## My request for Codex:\n  Rename it \n", "Rename it"),
        ("a## My request for Codex:b## My request for Codex:c", "b## My request for Codex:c"),
        ("## My request for Codex:   ", ""),
    ],
)
def test_a_title_is_what_follows_the_first_marker_trimmed(text, title):
    assert cut_title(text) == title


def message(*parts: dict, kinds: list | None = None) -> dict:
    passthrough = {"content_item_kinds": kinds} if kinds else {}
    return {
        "role": "user",
        "content": list(parts),
        "internal_chat_message_metadata_passthrough": passthrough,
    }


def text_part(text: str) -> dict:
    return {"type": "input_text", "text": text}


def test_injected_parts_of_a_message_are_left_out():
    words = message_words(message(text_part(AGENTS), text_part(ENVIRONMENT), text_part("Fix it")))
    assert words == ("Fix it", False)


def test_parts_are_joined_and_tags_around_images_left_out():
    payload = message(
        text_part("<image name=[Image #1]>"),
        {"type": "input_image", "image_url": "data:"},
        text_part("</image>"),
        text_part("What is"),
        text_part("this?"),
    )
    assert message_words(payload) == ("What is\nthis?", True)


def test_what_a_release_says_of_its_parts_decides():
    payload = message(
        text_part("hidden advice"),
        text_part("My words"),
        kinds=["multi_agent.usage_hint", "user.text"],
    )
    assert message_words(payload) == ("My words", False)
    assert message_words(message({"type": "input_image"}, kinds=["user.image"])) == (None, True)


def test_a_message_of_another_shape_says_nothing():
    assert message_words({"content": "text"}) == (None, False)
    assert message_words({"content": [None, 1, {"type": "input_text", "text": 5}]}) == ("", False)
