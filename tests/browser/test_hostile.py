"""What rollouts and logs say is text in every view, whatever it looks like."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from rollbook import StateRuntime
from rollbook.export.documents import DocumentFormat, thread_document, write_document
from tests.browser.hostile import CHILD, ID, TRICKS, write_hostile_home
from tests.browser.watching import Watching
from tests.web.serving import serving


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(write_hostile_home(tmp_path_factory.mktemp("hostile") / "home")) as served:
        yield served


@pytest.fixture(scope="module")
def page(served, visit_once):
    return visit_once(served)


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/?title=script&all=true",
        "/?title=%3Cscript%3Epwned()%3C/script%3E%22%27",
        "/?tag=%22%3E%3Csvg/onload=pwned()%3E&project=%22%3E%3Csvg/onload=pwned()%3E",
        "/?cursor=%3Cscript%3Epwned()%3C/script%3E",
        "/projects",
        f"/threads/{ID}#end",
        f"/threads/{ID}?at=start",
        f"/threads/{ID}?at=start&limit=200",
        f"/threads/{ID}?at=%3Cscript%3Epwned()%3C/script%3E",
        f"/threads/{CHILD}",
        "/threads/%3Cscript%3Epwned()%3C%2Fscript%3E",
        "/search?q=script",
        "/search?q=%60onerror%60",
        "/search?q=%22%3E%3Cscript%3Epwned()%3C/script%3E",
        "/search?q=pwned&role=tool&substring=true",
        "/usage?days=0",
        "/usage?days=0&by=month&thread_id=" + ID,
        "/logs",
        "/logs?search=%22%3E%3Csvg/onload=pwned()%3E&level=%3Cscript%3E",
        "/health",
        "/%3Cscript%3Epwned()%3C/script%3E",
        "/api/v1/threads",
        f"/api/v1/threads/{ID}/items?at=start&limit=200",
        "/api/v1/%3Cscript%3Epwned()%3C/script%3E",
    ],
)
def test_nothing_is_run_loaded_or_sent(served, page, path):
    page.goto(served.address + path)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.evaluate(
        "document.querySelectorAll('[autofocus], input, a').forEach(each => each.focus())"
    )
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
    page.wait_for_load_state("load")
    assert not page.watching.found()


def test_it_is_all_there_as_text(served, page):
    page.goto(f"{served.address}/threads/{ID}?at=start&limit=200")
    messages = page.locator(".item.message.user .words").all_inner_texts()
    for trick in TRICKS[:14]:
        assert trick in messages


def test_what_arrives_while_one_looks_is_text_too(served, visit):
    page = visit(served)
    page.goto(f"{served.address}/search")
    for trick in ("<script>pwned()</script>", '"><img src=x onerror=pwned()>', "pwned"):
        page.fill("[data-search]", trick)
        page.wait_for_url(lambda url: "q=" in url)
    page.goto(f"{served.address}/")
    page.fill("[data-search]", "'\"><img src=x onerror=pwned()>")
    page.wait_for_selector("text=No threads")


def test_every_item_is_there_as_a_whole_and_as_text(served, visit):
    with StateRuntime.open(served.home, backfill=False) as state:
        items = [item for item in state.read_thread(ID, limit=200).items if len(item.text) > 3_000]
    page = visit(served)
    for item in items[-6:]:
        page.goto(f"{served.address}/threads/{ID}/items/{item.position}")
        assert page.locator(".item").count() == 1


def test_an_exported_thread_is_text_wherever_it_is_opened(browser, tmp_path):
    home, path = write_hostile_home(tmp_path / "home", 10_000), tmp_path / "thread.html"
    with StateRuntime.open(home, backfill=False) as state:
        write_document(path, thread_document(state, ID, DocumentFormat.HTML))
    context = browser.new_context()
    watching = Watching(context, tmp_path.as_uri())
    page = context.new_page()
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    page.wait_for_load_state("load")
    found = set(watching.found())
    context.close()
    assert found == {"an element style"}  # its own, which its policy names


PROOFS = {
    "run": "<script>pwned('x')</script>",
    "run: img": "<img src=x onerror=\"pwned('img')\">",
    "request": "<img src=http://evil.example/i.png>",
    "dialog": "<script>alert(1)</script>",
    "attribute": "<p onclick=pwned()>x</p>",
    "href": "<a href=javascript:pwned()>x</a>",
    "href=data": "<a href=data:text/html,x>x</a>",
    "action": "<form action=http://evil.example></form>",
    "iframe": "<iframe></iframe>",
    "style": "<p style=color:red>x</p>",
    "control": "<p>safe\u202etxt</p>",
    "isn't the server's": "<script src=/other.js></script>",
    "error": "<script>throw new Error('x')</script>",
    "the policy": "<meta http-equiv=Content-Security-Policy content=\"script-src 'none'\"><script>1</script>",
}


@pytest.mark.parametrize("sign", PROOFS)
def test_whoever_watches_would_have_seen_it(browser, sign):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            body = f"<!DOCTYPE html><meta charset=utf-8>{PROOFS[sign]}".encode()
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("content-type", "text/html")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        context = browser.new_context()
        watching = Watching(context, address)
        page = context.new_page()
        page.goto(address + "/")
        page.wait_for_load_state("load")
        page.evaluate("0")
        found = watching.found()
        context.close()
        server.shutdown()
    assert any(sign.partition(":")[0] in each for each in found), found
