"""Time until a browser shows something: of a list of 100,000 threads, and of a thread of 300 MB.

    python benchmarks/bench_page.py [--directory build/bench] [--factor 1] [--rounds 7]

It is what Chromium itself tells of its first paint, and, for the thread, until its end is in sight.
The floor is the very same page as files, from Python's own web server.
"""

import functools
import http.server
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from figures import Figure, Goal, Scale, run_alone
from homes import database_of, long_home, small_home, small_id
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from rollbook import StateRuntime

THREADS = 100_000
_CHROMIUM = Path(__file__).parents[1] / "tests" / "browser" / "chromium.py"
_PAINT = """() => new Promise(resolve => new PerformanceObserver(seen => {
    const paint = seen.getEntriesByName("first-contentful-paint")[0];
    if (paint) resolve(paint.startTime);
}).observe({ type: "paint", buffered: true }))"""
_END = """() => new Promise(resolve => {
    const look = () => {
        const end = document.getElementById("end");
        if (end && end.getBoundingClientRect().top <= innerHeight) resolve(performance.now());
        else requestAnimationFrame(look);
    };
    look();
})"""


def measure(scale: Scale) -> Iterator[Figure]:
    """The first paint of both pages, and the end of the second."""
    many = small_home(scale, scale.of(THREADS))
    long = long_home(scale)
    options = subprocess.run(
        [sys.executable, _CHROMIUM], capture_output=True, text=True, check=True
    ).stdout
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**json.loads(options))
        threads = f"{scale.of(THREADS):,} threads"
        yield from _measure(browser, scale, many, "/", f"first paint of {threads}", _PAINT)
        thread = f"/threads/{small_id(0)}#end"
        size = f"{300 * scale.factor:.0f} MB"
        yield from _measure(browser, scale, long, thread, f"first paint of {size}", _PAINT)
        yield from _measure(browser, scale, long, thread, f"end of {size} in sight", _END)
        browser.close()


def _measure(
    browser: Browser, scale: Scale, home: Path, path: str, name: str, script: str
) -> Iterator[Figure]:
    database = database_of(home)
    with StateRuntime.open(home, database=database, backfill=False) as state:
        state.sync(metadata_only=True)
    with _served(home, database) as link, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.goto(link)
        page.wait_for_url(re.compile(r"/$"))
        address = link.partition("/?")[0]
        folder = scale.directory / "page"
        _save(context, address, path, folder)
        ours, floor = [], []
        with _files(folder) as files:
            for _ in range(3 * scale.rounds):
                for base, times in ((address, ours), (files, floor)):
                    page.goto("about:blank")
                    page.goto(base + path, wait_until="commit")
                    times.append(page.evaluate(script))
    yield Figure(
        area="page",
        name=name,
        value=statistics.median(ours),
        unit="ms",
        floor="the same page as files",
        floor_value=statistics.median(floor),
        goal=Goal.MOST,
        limit=300.0,
    )


@contextmanager
def _served(home: Path, database: Path) -> Iterator[str]:
    """Run `rollbook serve`; gives its link."""
    rollbook = Path(sys.executable).with_name("rollbook")
    command = [rollbook, "serve", "--port", "0", "--no-open"]
    process = subprocess.Popen(
        [*command, "--home", home, "--db", database], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(30)


def _save(context: BrowserContext, address: str, path: str, folder: Path) -> None:
    """Keep a page and what it loads as files."""
    page = context.request.get(address + path.partition("#")[0]).text()
    places = {path.partition("#")[0].strip("/") + "/index.html": page.encode()}
    for asset in re.findall(r'"/(assets/[^"]+)"', page):
        places[asset] = context.request.get(f"{address}/{asset}").body()
    for place, content in places.items():
        file = folder / place.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


@contextmanager
def _files(folder: Path) -> Iterator[str]:
    handler = functools.partial(_Quiet, directory=os.fspath(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class _Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    run_alone(measure, __doc__)
