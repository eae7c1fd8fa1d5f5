"""`rollbook serve`, as a person starts it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx2
import msgspec

ROLLBOOK = Path(sys.executable).with_name("rollbook")


class Served(msgspec.Struct):
    """A server that runs: where it is, and the token that it has printed."""

    home: Path
    link: str
    process: subprocess.Popen

    @property
    def address(self) -> str:
        parts = urlsplit(self.link)
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def port(self) -> int:
        return urlsplit(self.link).port or 80

    @property
    def token(self) -> str:
        return parse_qs(urlsplit(self.link).query)["token"][0]

    @property
    def cookies(self) -> dict[str, str]:
        return {f"rollbook-{self.port}": self.token}

    def client(self, **options) -> httpx2.Client:
        """A client that was let in."""
        return httpx2.Client(base_url=self.address, cookies=self.cookies, timeout=30, **options)

    def form_token(self, client: httpx2.Client, thread_id: str) -> str:
        page = client.get(f"/threads/{thread_id}").text
        return re.search(r'name="form_token" value="([0-9a-f]{64})"', page)[1]


@contextmanager
def serving(home: Path, *arguments: str) -> Iterator[Served]:
    """Run the server until the block ends; it must end by itself then, and without a traceback."""
    process = subprocess.Popen(
        [ROLLBOOK, "serve", "--home", home, "--port", "0", "--no-open", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"ROLLBOOK_WEB_TOKEN": ""},
    )
    try:
        link = process.stdout.readline().strip()
        assert link.startswith("http"), process.stderr.read()
        yield Served(home, link, process)
    finally:
        process.terminate()
        _, rest = process.communicate(timeout=20)
    assert process.returncode == 0, rest
    assert "Traceback" not in rest, rest
