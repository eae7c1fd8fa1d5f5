"""What is taken out of a thread before it is shared, and what stays."""

import json
import sys
from pathlib import Path

import pytest

from rollbook.errors import UsageError
from rollbook.export.documents import DocumentFormat, thread_document
from rollbook.export.redaction import Redactor
from tests.export.conftest import ID, an_item, message, tool_call, tool_output

AWS_ID = "AKIA" + "Q7ZP3M5XK2WJ8RTV"
AWS_SECRET = "kR8vPz1N4tXyW7qLmB2c" + "D5eF9gH3jK6oS0uA/+Yi"
GITHUB = "ghp_" + "x7Kq2MvR9tYwZ3nB5cJ8dL1fG4hP6sA0eU2i"
SLACK = "xoxb-" + "123456789012-1234567890123-aBcDeFgHiJkLmNoPqRsTuVwX"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    "MIIEowIBAAKCAQEAx3mZ8Qb1Vn7sYt5pKd0uWfGhJr2c\nTqLk9wEiXyNzPoSaRv4B6=\n"
    "-----END RSA PRIVATE KEY-----"
)
RANDOM = "q8Zt+R2vXw7LkP0mYb5JcN9sHd3GfUa6"
LINES = [
    (AWS_ID, f"the key is {AWS_ID}."),
    (AWS_SECRET, f"aws_secret_access_key = '{AWS_SECRET}'"),
    (GITHUB, f"git clone https://x:{GITHUB}@github.com/a/b"),
    (GITHUB, f"export GITHUB_TOKEN={GITHUB}"),
    (SLACK, f"{SLACK}"),
    (JWT, f"Authorization: Bearer {JWT}"),
    ("MIIEowIBAAK", KEY),
    ("TqLk9wEiXy", KEY.replace("\n", "\r\n")),
    ("TqLk9wEiXy", KEY.partition("-----END")[0]),
    (RANDOM, f'value = "{RANDOM}"'),
    ("correct-horse-7", "DB_PASSWORD=correct-horse-7"),
    ("hunter2", "password: 'hunter2'"),
    ("s3cr3tpw", "postgres://app:s3cr3tpw@db.example/app"),
]
KEPT = [
    "The secret of good tests is patience: a password is not a key.",
    "commit 5ae498680864596be86d623d87b49168db01be65",
    '"sha": "5ae498680864596be86d623d87b49168db01be65"',
    "thread 01a207c8-3e7a-7d53-9840-13c88cf8a85a, call_id: 'call_Q8ztR2vXw7LkP0mYb5Jc'",
    "def read_password(path: Path) -> str:",
    "token = os.environ['TOKEN']",
    "api_key = settings.api_key",
    "10.0.0.1 and 192.0.2.7 answer",
    "ls -l /usr/lib/python3.11/site-packages",
    "see https://example.com/docs?page=2#top",
    "from rollbook.export.redaction import Redactor",
]


def redacted(*texts: str) -> tuple[list[str], Redactor]:
    redactor = Redactor()
    items = [an_item(text) for text in texts]
    for item in items:
        redactor.learn(item)
    return [redactor.clean(item).text for item in items], redactor


@pytest.mark.parametrize(("secret", "line"), LINES)
def test_secrets_are_taken_out(secret, line):
    [text], redactor = redacted(f"Before\n{line}\nAfter")
    assert secret not in text
    assert "[redacted: " in text
    assert text.startswith("Before\n")
    assert sum(redactor.counts.values()) >= 1


@pytest.mark.parametrize("line", KEPT)
def test_what_is_no_secret_stays(line):
    [text], redactor = redacted(line)
    assert text == line
    assert not redactor.counts


def test_a_secret_is_taken_out_wherever_it_is_said_again():
    texts, redactor = redacted(f"use {RANDOM} please", f'TOKEN = "{RANDOM}"', f"I used {RANDOM}")
    assert not any(RANDOM in text for text in texts)
    assert sum(redactor.counts.values()) == 3


def test_a_password_that_is_a_word_is_only_taken_out_where_it_is_one():
    texts, _ = redacted("password = 'sunshine'", "What a sunshine!")
    assert "sunshine" not in texts[0]
    assert texts[1] == "What a sunshine!"


@pytest.mark.parametrize(
    ("path", "short"),
    [
        ("/home/alice/project/a.py", "~/project/a.py"),
        ("file:///Users/alice/a", "file://~/a"),
        ("/home/alice", "~"),
        ("'/home/alice'", "'~'"),
        ("C:\\Users\\alice\\a", "~\\a"),
        ('"C:\\\\Users\\\\alice\\\\a"', '"~\\\\a"'),
        ("/mnt/c/Users/alice/a", "~/a"),
        ("/var/home/alice/a", "~/a"),
        ("/srv/mine/a", "~/a"),
        ("/srv/mine", "~"),
        ("/srv/mine2/a", "/srv/mine2/a"),
        ("</srv/mine>", "<~>"),
        ("cat </home/alice/a", "cat <~/a"),
        ("/usr/lib", "/usr/lib"),
        ("the /home directory", "the /home directory"),
    ],
)
def test_home_directories_are_a_tilde(monkeypatch, path, short):
    monkeypatch.setenv("HOME", "/srv/mine")
    assert redacted(path)[0] == [short]


def test_a_home_at_the_root_is_no_reason_to_change_every_path(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert redacted("/usr/lib")[0] == ["/usr/lib"]
    monkeypatch.setenv("HOME", "/root")
    assert redacted("<root>/root/a</root>")[0] == ["<root>~/a</root>"]


def test_texts_that_are_json_stay_json():
    arguments = json.dumps({"cmd": f"cat <<'E'\n{KEY}\nE", "env": {"DB_PASSWORD": 'x"y7 z\\'}})
    [text], _ = redacted(arguments)
    assert "MIIE" not in text
    assert json.loads(text)["cmd"] == "cat <<'E'\n[redacted: Private Key]\nE"


def test_a_long_line_is_looked_at_to_its_end():
    [text], _ = redacted("x " * 50_000 + AWS_ID + " x" * 5_000 + GITHUB)
    assert AWS_ID not in text
    assert GITHUB not in text


@pytest.mark.parametrize("form", DocumentFormat)
def test_nothing_is_left_in_any_format(tell, form, monkeypatch):
    monkeypatch.setenv("HOME", "/srv/mine")
    everything = "\n".join(line for _, line in LINES)
    state = tell(
        message(everything),
        message(f"I'll use {RANDOM}", "user"),
        tool_call(json.dumps({"cmd": everything, "dir": "/home/alice/x"}), name=f"f_{GITHUB}"),
        tool_output(everything),
        title=f"Use {AWS_ID} in /home/alice",
        cwd="/srv/mine/project",
        git={"repository_url": f"https://x:{GITHUB}@github.com/a/b", "branch": RANDOM},
    )
    redactor = Redactor()
    text = "".join(thread_document(state, ID, form, redactor=redactor))
    for secret, _ in LINES:
        assert secret not in text
    assert "alice" not in text
    assert "/srv/mine" not in text
    assert ID in text
    assert set(redactor.counts) >= {"home directory", "AWS Access Key", "Private Key"}


def test_without_the_detector_it_says_what_to_install(monkeypatch):
    from rollbook.export import detection

    detection._detectors.cache_clear()
    monkeypatch.setitem(sys.modules, "detect_secrets.core.plugins.util", None)
    with pytest.raises(UsageError, match="rollbook\\[redact\\]"):
        Redactor()


def test_real_conversations_stay_as_they_are():
    from tests.unit.test_transcript import ROLLOUTS, items_of

    for path in ROLLOUTS[::10]:
        redactor = Redactor()
        items = items_of(Path(path))
        for item in items:
            redactor.learn(item)
        for item in items:
            redactor.clean(item)
        assert set(redactor.counts) <= {"home directory"}
