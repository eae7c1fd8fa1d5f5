"""Write a synthetic home in which much is said: what searching is measured with.

Words follow Zipf's law, as those of languages do, over a vocabulary of words, identifiers, paths and
some Chinese; sentences come again and again, as they do when people work.
"""

import random
from collections.abc import Iterator
from datetime import timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

import msgspec
from generate_home import LAST_DAY

from rollbook.testing import make_line, session_meta, write_rollout

VOCABULARY = 200_000
_SENTENCES = 200_000
_TOPIC = 500  # sentences
_THREAD_CHARACTERS = 100_000
_DAYS = 365
_SYLLABLES = [
    "ba",
    "co",
    "di",
    "fe",
    "gu",
    "ha",
    "jo",
    "ki",
    "lu",
    "me",
    "no",
    "pa",
    "re",
    "si",
    "tu",
    "va",
    "we",
    "xi",
    "yo",
    "za",
    "cha",
    "ler",
    "min",
    "sto",
    "tra",
]
_CHINESE = "数据库线程索引搜索文件错误修复测试运行代码函数参数返回消息更新删除"


class Talk:
    """Made-up sentences."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.words = sorted({self._word() for _ in range(VOCABULARY)})
        self.random.shuffle(self.words)
        weights = list(accumulate(1 / (rank + 3) for rank in range(len(self.words))))
        self._topic: list[str] = []
        self._sentences = [
            " ".join(
                self.random.choices(self.words, cum_weights=weights, k=self.random.randint(4, 20))
            ).capitalize()
            + "."
            for _ in range(_SENTENCES)
        ]

    def _word(self) -> str:
        kind = self.random.random()
        word = "".join(self.random.choices(_SYLLABLES, k=self.random.randint(1, 4)))
        if kind < 0.1:
            return f"{word}_{self.random.choice(_SYLLABLES)}"
        if kind < 0.15:
            return f"src/{word}/{self.random.choice(_SYLLABLES)}.py"
        if kind < 0.2:
            return f"{self.random.getrandbits(32):08x}"
        if kind < 0.22:
            return "".join(self.random.choices(_CHINESE, k=self.random.randint(2, 6)))
        return word

    def begin_topic(self) -> None:
        """Talk of something else, as each thread does."""
        self._topic = self.random.choices(self._sentences, k=_TOPIC)

    def message(self, characters: int) -> str:
        """Some sentences, about so many characters."""
        count = max(1, round(characters / 80))
        return " ".join(self.random.choices(self._topic, k=count))


def write_talk(home: Path, characters: int, seed: int) -> None:
    """Write threads in which so many characters are said, and as many by tools."""
    talk = Talk(seed)
    threads = max(1, round(characters / _THREAD_CHARACTERS))
    for number in range(threads):
        started = LAST_DAY - timedelta(days=_DAYS * (threads - number) / threads)
        thread_id = f"{number:08x}-0000-4000-8000-000000000000"
        write_rollout(
            home,
            thread_id,
            [session_meta(thread_id), *_lines(talk, started)],
            time=f"{started:%Y-%m-%dT%H-%M-%S}",
            mtime=started,
        )


def _lines(talk: Talk, started: Any) -> Iterator[bytes]:
    talk.begin_topic()
    left, at = _THREAD_CHARACTERS, 0
    while left > 0:
        at += 30
        time = (started + timedelta(seconds=at)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        question = talk.message(min(2000, int(talk.random.lognormvariate(5, 1))))
        answer = talk.message(min(8000, int(talk.random.lognormvariate(6.5, 1))))
        yield _message("user", "input_text", question, time)
        yield make_line("event_msg", {"type": "user_message", "message": question}, timestamp=time)
        output = talk.message(len(question) + len(answer))
        yield make_line(
            "response_item",
            {"type": "function_call_output", "call_id": "call", "output": output},
            timestamp=time,
        )
        yield _message("assistant", "output_text", answer, time)
        left -= len(question) + len(answer)


def _message(role: str, kind: str, text: str, time: str) -> bytes:
    payload = {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}
    return make_line("response_item", payload, timestamp=time)


def said_in(home: Path) -> Iterator[tuple[str, str]]:
    """Read role and text of every message of such a home, with nothing of ours."""
    decode = msgspec.json.Decoder().decode
    for path in sorted(home.rglob("rollout-*.jsonl")):
        with path.open("rb") as lines:
            for line in lines:
                if b'"payload":{"type":"message"' in line:
                    payload = decode(line)["payload"]
                    yield payload["role"], payload["content"][0]["text"]
