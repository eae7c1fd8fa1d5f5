"""What pages show, without a browser."""

import re
from html import unescape

import pytest
from backports import zstd

from rollbook import LogEntry, StateRuntime
from rollbook.testing import message, session_meta, user_message, write_rollout
from tests.web.conftest import FORK, ID, OLD, log_as_codex, write_home
from tests.web.serving import serving


def test_threads_are_listed_filtered_and_paged(served):
    with served.client() as client:
        assert ids(client.get("/")) == [FORK, ID]
        assert ids(client.get("/?title=PARSER")) == [ID]
        assert ids(client.get("/?archived=true&title=&sort=")) == [OLD]
        assert ids(client.get("/?project=/work/beta")) == [FORK]
        assert ids(client.get("/?limit=1")) == [FORK]
        [more] = re.findall(r'data-more rel="next" href="([^"]+)"', client.get("/?limit=1").text)
        assert ids(client.get("/" + unescape(more))) == [ID]
        nothing = client.get("/?title=nowhere").text
        assert "No threads" in nothing
        assert "/search?q=nowhere" in nothing


def test_a_thread_shows_its_end_and_leads_to_the_rest(served):
    with served.client() as client:
        page = client.get(f"/threads/{ID}").text
        assert "The end" in page
        assert "Step 119 of the <strong>parser</strong>" in page
        assert "Step 0 of" not in page
        assert "lookup" in page
        assert f'href="/threads/{FORK}#end"' in page
        texts = [page]
        while earlier := re.search(r'data-earlier rel="prev" href="([^"]+)"', texts[-1]):
            texts.append(client.get(f"/threads/{ID}{earlier[1]}").text)
        steps = [step for text in reversed(texts) for step in re.findall(r"Step (\d+) of", text)]
        assert [int(step) for step in steps] == list(range(120))


def test_a_hit_leads_to_its_place(served):
    with served.client() as client:
        found = client.get('/search?q="step+7"').text
        assert "<mark>Step 7</mark>" in found
        [link] = re.findall(rf'href="(/threads/{ID}\?at=[^"]+)"', found)
        page = client.get(link.partition("#")[0]).text
    position = link.partition("#")[2]
    assert page.index(f'id="{position}"') < page.index("Step 7 of") < page.index("Step 8 of")


def test_long_texts_are_cut_and_there_as_a_whole(tmp_path):
    home = tmp_path / "home"
    text = "beginning " + "x" * 100_000 + " ending"
    write_rollout(home, ID, [session_meta(ID), user_message(text), message(text)])
    with serving(home) as served, served.client() as client:
        page = client.get(f"/threads/{ID}").text
        assert len(page) < 60_000
        [link] = re.findall(r'class="omission"><a href="([^"]+)"', page)
        assert " ending" in client.get(link).text


def test_threads_are_renamed_archived_and_brought_back(own):
    with own.client(headers={"origin": own.address}) as client:
        form = {"form_token": own.form_token(client, ID)}
        answer = client.post(f"/threads/{ID}/rename", data=form | {"name": "The <b>parser</b>"})
        assert (answer.status_code, answer.headers["location"]) == (303, f"/threads/{ID}")
        assert "The &lt;b&gt;parser&lt;/b&gt;" in client.get("/").text
        assert client.post(f"/threads/{ID}/archive", data=form).status_code == 303
        assert ids(client.get("/")) == [FORK]
        assert sorted(ids(client.get("/?archived=true"))) == [ID, OLD]
        client.post(f"/threads/{ID}/unarchive", data=form)
        client.post(f"/threads/{ID}/rename", data=form | {"name": " "})
        assert ids(client.get("/")) == [FORK, ID]
    with StateRuntime.open(own.home, backfill=False) as state:
        assert state.get_thread(ID).name is None


@pytest.mark.parametrize(("form", "begins"), [("markdown", "# "), ("html", "<!DOC"), ("json", "{")])
def test_a_thread_is_exported_as_a_file(served, form, begins):
    with served.client() as client:
        answer = client.get(f"/threads/{ID}/export?format={form}")
    assert answer.status_code == 200
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''The%20")
    assert answer.text.lstrip("-\n").startswith(begins) or form == "markdown"
    assert "Step 0 of the" in answer.text
    assert "The end" in answer.text


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("/usage", 0),
        ("/usage?days=14", 0),
        ("/usage?days=0", 1),
        ("/usage?days=0&by=month", 1),
        ("/usage?since=1769472000&until=1769558400&by=week", 1),
        ("/usage?days=36500&by=day", 1),
    ],
)
def test_usage_is_shown_by_time_and_by_what(served, path, columns):
    with served.client() as client:
        page = client.get(path).text
    assert page.count('class="fresh" x=') == columns
    assert ("Nothing was used" in page) == (columns == 0)
    if columns:
        assert re.search(rf'href="/threads/{ID}">The parser fails</a>', page)
        assert "2026-01" in page


def test_costs_are_shown_where_there_are_prices(own):
    prices = own.home / "rollbook" / "prices.toml"
    prices.write_text('currency = "EUR"\n[models."*"]\ninput = 1\noutput = 1000000\n')
    with own.client() as client:
        assert "EUR" in client.get("/usage?days=0").text
        prices.write_text("nonsense")
        answer = client.get("/usage?days=0")
    assert answer.status_code == 400
    assert "prices.toml" in answer.text


def test_logs_are_paged(served):
    with served.client() as client:
        page = client.get("/logs").text
        assert re.findall(r"row (\d+)<", page) == [str(n) for n in range(51, 151)]
        [earlier] = re.findall(r'data-earlier rel="prev" href="([^"]+)"', page)
        page = client.get("/logs" + unescape(earlier)).text
        assert re.findall(r"row (\d+)<", page) == [str(n) for n in range(1, 51)]
        assert "data-earlier" not in page
        page = client.get("/logs?search=row+14&level=warn&after=140").text
        assert re.findall(r"row (\d+)<", page) == [str(n) for n in range(141, 150)]


def test_the_logs_of_codex_are_shown_first_where_there_are_no_others(home):
    log_as_codex(home, "from Codex", "and more")
    with serving(home) as served, served.client() as client:
        assert ">from Codex<" in client.get("/logs").text
        assert "No log rows" in client.get("/logs?of=rollbook").text
        rows = client.get("/api/v1/logs?of=codex&search=more").json()["items"]
        assert [(row["target"], row["message"]) for row in rows] == [("codex_core", "and more")]
        assert client.get("/api/v1/logs").json() == {"items": []}
        with StateRuntime.open(home, backfill=False) as state:
            state.insert_log(LogEntry(1, 0, "INFO", "t", "our own"))
        assert ">our own<" in client.get("/logs").text
        assert client.get("/events?logs=others").status_code == 400


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/threads/99999999", 404),
        ("/threads/nonsense", 404),
        (f"/threads/{ID}?at=nonsense", 400),
        (f"/threads/{ID}/items/nonsense", 400),
        (f"/threads/{ID}/items/{ID}:1", 400),
        (f"/threads/{ID}/export?format=pdf", 400),
        ("/?limit=0", 400),
        ("/?sort=size", 400),
        ("/?cursor=nonsense", 400),
        ("/?what=else", 400),
        ("/?title=a&title=b", 400),
        ('/search?q="', 400),
        ("/usage?days=x", 400),
        ("/logs?after=-1", 400),
        ("/nothing", 404),
        ("/assets/0000/rollbook.js", 404),
        ("/assets/0000/..%2f..%2fguard.py", 404),
    ],
)
def test_what_makes_no_sense_is_told_as_a_page(served, path, status):
    with served.client() as client:
        answer = client.get(path)
    assert answer.status_code == status
    assert "That didn&#39;t work" in answer.text or "That didn't work" in answer.text
    assert "Traceback" not in answer.text


def test_of_a_thread_whose_rollout_can_not_be_read_all_else_is_shown(tmp_path):
    home = write_home(tmp_path / "home")
    [path] = home.glob(f"sessions/**/*{ID}.jsonl")
    whole = zstd.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".zst").write_bytes(whole[: len(whole) // 2])
    with serving(home) as served, served.client() as client:
        page = client.get(f"/threads/{ID}")
    assert page.status_code == 200
    assert "The parser fails" in page.text
    assert re.search(r'class="empty">[^<]*be read: Compressed file', page.text)


def test_a_thread_whose_rollout_is_gone_is_shown_as_such(own):
    for path in own.home.glob(f"sessions/**/*{ID}.jsonl"):
        path.unlink()
    with own.client() as client:
        answer = client.get(f"/threads/{ID}")
    assert answer.status_code == 404 or "is gone" in answer.text


def ids(answer):
    assert answer.status_code == 200, answer.text
    return re.findall(r'<li data-id="([^"]+)"', answer.text)
