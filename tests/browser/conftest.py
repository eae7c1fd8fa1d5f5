"""A real Chromium, and pages of a real server in it that are watched all the time."""

import re
from contextlib import contextmanager

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.browser.chromium import launch_options
from tests.browser.watching import Watching
from tests.web.conftest import own, served  # noqa: F401 - fixtures

_TIMEOUT_MS = 20_000
expect.set_options(timeout=_TIMEOUT_MS)


@pytest.fixture(scope="module")  # as long as it is there, no other event loop can run
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        yield browser
        browser.close()


@pytest.fixture
def visit(browser):
    """Enter a server by its link; gives a page, in which nothing may go wrong until the end."""
    with _visits(browser) as enter:
        yield enter


@pytest.fixture(scope="module")
def visit_once(browser):
    """Enter a server once for all tests of a file that only look."""
    with _visits(browser) as enter:
        yield enter


@contextmanager
def _visits(browser):
    opened = []

    def enter(server, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | options)
        context.set_default_timeout(_TIMEOUT_MS)
        page = context.new_page()
        page.watching = Watching(context, server.address)
        opened.append(page)
        page.goto(server.link)
        page.wait_for_url(re.compile(r"/$"))
        return page

    yield enter
    for page in opened:
        found = page.watching.found()
        page.context.close()
        assert not found


def settle(page):
    """Wait until the page listens to what changes."""
    page.wait_for_selector("html[data-live]", state="attached")
