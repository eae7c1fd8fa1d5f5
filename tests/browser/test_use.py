"""The page as a person uses it: by keys, while agents write, without scripts, on a phone."""

import pytest
from playwright.sync_api import expect

from rollbook import LogEntry, StateRuntime
from rollbook.testing import message, session_meta, user_message, write_rollout
from tests.browser.conftest import settle
from tests.browser.hostile import ALL
from tests.web.conftest import FORK, ID, OLD, log_as_codex
from tests.web.serving import serving

NEW = "88888888-8888-4888-8888-888888888888"


def rollout_of(served, thread_id):
    return next(served.home.glob(f"sessions/**/*{thread_id}.jsonl"))


def home_of(folder, threads):
    """A home of so many threads that was never indexed."""
    for number in range(threads):
        thread_id = f"{number:08x}-0000-4000-8000-000000000000"
        lines = [session_meta(thread_id), user_message(f"No {number}.")]
        write_rollout(folder / "home", thread_id, lines)
    return folder / "home"


def append(path, *lines):
    with path.open("ab") as file:
        file.write(b"".join(line + b"\n" for line in lines))


def test_keys_alone_lead_to_a_thread_and_back(served, visit):
    page = visit(served)
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/threads/{ID}#end")
    expect(page.get_by_text("The end", exact=True)).to_be_in_viewport()
    for key, path in {"s": "/search", "p": "/projects", "u": "/usage", "l": "/logs"}.items():
        page.keyboard.press("Escape")  # out of the field of the search
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(f"**{path}")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url("**/health")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_keys_go_through_a_thread(served, visit):
    page = visit(served)
    page.goto(f"{served.address}/threads/{ID}?at=start&limit=10")
    page.keyboard.press("j")
    page.keyboard.press("j")
    assert "Step 0" in page.evaluate("document.activeElement.innerText")
    page.keyboard.press("k")
    assert "The parser fails" in page.evaluate("document.activeElement.innerText")
    page.keyboard.press("/")
    page.wait_for_url("**/search")
    expect(page.locator("[data-search]")).to_be_focused()


def test_threads_are_filtered_while_one_types(served, visit):
    page = visit(served)
    page.keyboard.press("/")
    expect(page.locator("[data-search]")).to_be_focused()
    page.keyboard.type("数据")
    expect(page.locator("[data-rows] > li")).to_have_count(1)
    assert "title=" in page.url
    page.keyboard.press("Escape")
    page.reload()
    expect(page.locator("[data-search]")).to_have_value("数据")
    page.fill("[data-search]", "")
    expect(page.locator("[data-rows] > li")).to_have_count(2)
    page.select_option("[name=archived]", "true")
    expect(page.locator(f"[data-id='{OLD}']")).to_be_visible()


def test_a_search_while_one_types_leads_to_the_place(served, visit):
    page = visit(served)
    page.goto(f"{served.address}/search")
    page.locator("[data-search]").press_sequentially('"step 7"')
    expect(page.locator("[data-rows] mark").first).to_have_text("Step 7")
    page.locator("[data-rows] .title").first.click()
    expect(page.locator(".item:target")).to_contain_text("Step 7 of")
    expect(page.locator(".item:target")).to_be_in_viewport()


def test_what_can_not_be_looked_for_is_told_while_one_types(served, visit):
    page = visit(served)
    page.goto(f"{served.address}/search")
    page.locator("[data-search]").press_sequentially('"')
    expect(page.locator("#results")).to_contain_text("no word")
    page.fill("[data-search]", "parser")
    expect(page.locator("[data-rows] > li").first).to_be_visible()


def test_earlier_and_later_items_come_as_one_scrolls(served, visit):
    page = visit(served)
    page.goto(f"{served.address}/threads/{ID}#end")
    items = page.locator("[data-items] > .item")
    while page.locator("[data-earlier]").count():
        shown = items.count()
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_function(
            f"() => document.querySelectorAll('[data-items] > .item').length > {shown}"
            " || !document.querySelector('[data-earlier]')"
        )
    texts = items.all_inner_texts()
    steps = [int(text.split("Step ")[1].split()[0]) for text in texts if "Step " in text]
    assert steps == list(range(120))
    page.goto(f"{served.address}/threads/{ID}?at=start&limit=40")
    page.keyboard.press("End")
    page.wait_for_function("() => document.querySelectorAll('[data-items] > .item').length > 40")


def test_new_threads_appear_by_themselves_and_the_place_is_kept(own, visit):
    page = visit(own)
    settle(page)
    page.keyboard.press("j")
    lines = [session_meta(NEW), user_message("Brand new"), message("Brand new")]
    write_rollout(own.home, NEW, lines, time="2026-02-01T10-00-00")
    expect(page.locator(f"[data-id='{NEW}']")).to_contain_text("Brand new")
    assert page.evaluate("document.activeElement.closest('li').dataset.id") == FORK


def test_a_home_that_was_never_indexed_fills_while_one_looks(tmp_path, visit):
    with serving(home_of(tmp_path, 300)) as served:
        page = visit(served)
        settle(page)
        expect(page.locator("#results > .note")).to_have_count(0)
        page.fill("[data-search]", "No 7.")
        expect(page.locator("[data-rows] > li")).to_have_count(1)


def test_rows_that_were_loaded_stay_when_the_list_changes(tmp_path, visit):
    with serving(home_of(tmp_path, 120)) as served:
        page = visit(served)
        settle(page)
        rows = page.locator("[data-rows] > li")
        expect(rows.first).to_be_visible()
        while rows.count() < 120:
            shown = rows.count()
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_function(
                f"() => document.querySelectorAll('[data-rows] > li').length > {shown}"
            )
        lines = [session_meta(NEW), user_message("Brand new"), message("Brand new")]
        write_rollout(served.home, NEW, lines, time="2026-02-01T10-00-00")
        expect(page.locator(f"[data-id='{NEW}']")).to_be_attached()
        ids = rows.evaluate_all("rows => rows.map(row => row.dataset.id)")
        assert len(ids) == len(set(ids)) == 121
        assert page.locator("[data-more]").count() == 0


def test_what_an_agent_says_appears_at_the_end_of_its_thread(own, visit):
    page = visit(own)
    page.goto(f"{own.address}/threads/{ID}#end")
    settle(page)
    append(rollout_of(own, ID), message("One more thing", "assistant"))
    expect(page.get_by_text("One more thing")).to_be_in_viewport()
    append(rollout_of(own, ID), message(ALL, "user"), message(f"{ALL} done", "assistant"))
    expect(page.get_by_text("<!-- -->").last).to_be_attached()
    page.keyboard.press("Home")
    append(rollout_of(own, ID), message("While you read", "assistant"))
    expect(page.locator("#fresh")).to_be_visible()
    page.click("#fresh")
    expect(page.get_by_text("While you read")).to_be_in_viewport()


def test_many_lines_at_once_lose_none(own, visit):
    page = visit(own)
    page.goto(f"{own.address}/threads/{FORK}#end")
    settle(page)
    append(rollout_of(own, FORK), *(message(f"Burst {n}.", "assistant") for n in range(230)))
    expect(page.get_by_text("Burst 229.")).to_be_attached()
    texts = page.locator("[data-items] > .item").all_inner_texts()
    found = [int(text.split("Burst ")[1].rstrip(".")) for text in texts if "Burst" in text]
    assert found == list(range(230))


def test_logs_are_followed_as_filtered(own, visit):
    page = visit(own)
    page.goto(f"{own.address}/logs?level=warn")
    settle(page)
    expect(page.get_by_text("row 150", exact=True)).to_be_in_viewport()
    with StateRuntime.open(own.home, backfill=False) as state:
        state.insert_logs(
            [LogEntry(200, 0, level, "loop", f"{level} came") for level in ("INFO", "WARN")]
        )
    expect(page.get_by_text("WARN came")).to_be_in_viewport()
    assert page.get_by_text("INFO came").count() == 0
    page.fill("[data-search]", "row 14")
    expect(page.locator(".logs > li")).to_have_count(11)


def test_the_logs_of_codex_are_followed_once_they_are_chosen(own, visit):
    log_as_codex(own.home, "one of Codex")
    page = visit(own)
    page.goto(f"{own.address}/logs")
    settle(page)
    page.select_option("[name=of]", "codex")
    expect(page.get_by_text("one of Codex")).to_be_visible()
    log_as_codex(own.home, "two of Codex")
    expect(page.get_by_text("two of Codex")).to_be_visible()
    assert page.get_by_text("row 150").count() == 0


def test_a_thread_is_renamed_and_archived(own, visit):
    page = visit(own)
    page.goto(f"{own.address}/threads/{ID}")
    page.get_by_text("Rename", exact=True).click()
    page.get_by_label("Name").fill("The parser, fixed")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("The parser, fixed")
    page.get_by_role("button", name="Archive").click()
    expect(page.get_by_role("button", name="Unarchive")).to_be_visible()
    page.goto(f"{own.address}/?archived=true")
    expect(page.locator(f"[data-id='{ID}']")).to_contain_text("The parser, fixed")
    page.goto(f"{own.address}/threads/{ID}")
    page.get_by_role("button", name="Unarchive").click()
    expect(page.get_by_role("button", name="Archive", exact=True)).to_be_visible()
    with StateRuntime.open(own.home, backfill=False) as state:
        assert state.get_thread(ID).name == "The parser, fixed"
        assert state.get_thread(ID).archived_at is None


def test_a_thread_is_saved_as_a_file(served, visit, tmp_path):
    page = visit(served, accept_downloads=True)
    page.goto(f"{served.address}/threads/{ID}")
    page.get_by_text("Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("link", name="HTML").click()
    path = tmp_path / "thread.html"
    download.value.save_as(path)
    assert download.value.suggested_filename == "The parser fails 22222222.html"
    assert "Step 0 of the" in path.read_text("utf-8")


def test_light_and_dark_are_chosen_and_stay(served, visit):
    page = visit(served, color_scheme="light")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(ground)
    assert dark != light
    page.goto(f"{served.address}/usage")
    assert page.evaluate(ground) == dark
    page.keyboard.press("d")
    assert page.evaluate(ground) == light


def test_all_of_it_can_be_read_without_scripts(served, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(served.link)
    page.wait_for_url("**/")
    page.fill("[data-search]", "parser")
    page.get_by_role("button", name="Apply").click()
    page.locator("[data-rows] .title").click()
    page.get_by_role("link", name="Earlier").click()
    assert "Step 30 of" in page.content()
    page.get_by_role("link", name="Search").click()
    page.fill("[data-search]", "数据")
    page.get_by_role("button", name="Search").click()
    assert page.locator("mark").count()
    page.get_by_role("link", name="Logs").click()
    assert page.locator(".logs > li").count() == 100
    context.close()


@pytest.mark.parametrize(
    "path",
    ["/", "/projects", f"/threads/{ID}", "/search?q=parser", "/usage?days=0", "/logs", "/health"],
)
def test_nothing_is_wider_than_a_narrow_screen(served, visit, path):
    page = visit(served, viewport={"width": 360, "height": 700})
    page.goto(served.address + path)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_server_that_ends_is_told_of_and_a_new_one_is_found_again(own, visit):
    page = visit(own)
    settle(page)
    own.process.terminate()
    own.process.wait(20)
    expect(page.locator("#live")).to_have_text("not connected")
