"""The HTTP API: as it describes itself, and with what the commands answer in JSON."""

import json
import subprocess

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from tests.web.conftest import ID
from tests.web.serving import ROLLBOOK

# The token is given to each of its requests; what is a cursor or a word is more than a schema says.
EXCLUDED = [ignored_auth, positive_data_acceptance]
ENDPOINTS = [
    f"/api/v1{path}"
    for path in (
        "/threads",
        "/threads/{id}",
        "/threads/{id}/tools",
        "/threads/{id}/items",
        "/search",
        "/usage",
        "/projects",
        "/logs",
        "/health",
    )
]


@pytest.fixture(scope="module")
def api(served):
    headers = {"authorization": f"Bearer {served.token}"}
    with httpx2.Client(base_url=f"{served.address}/api/v1", headers=headers) as client:
        yield client


@pytest.mark.parametrize("path", ENDPOINTS)
def test_it_does_what_its_description_says(served, path):
    headers = {"authorization": f"Bearer {served.token}"}
    address = f"{served.address}/api/v1/openapi.json"
    described = schemathesis.openapi.from_url(address, headers=headers)
    assert [each.ok().path for each in described.get_all_operations()] == ENDPOINTS

    @given(described[path]["GET"].as_strategy())
    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    def ask(case):
        if "id" in case.path_parameters and len(case.query or {}) % 2:
            case.path_parameters["id"] = ID  # or nearly all of them would be unknown
        case.call_and_validate(headers=headers, timeout=30, excluded_checks=EXCLUDED)

    ask()


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/threads", "list"),
        ("/threads?limit=1&sort=created&archived=true", "list --limit 1 --sort created --archived"),
        ("/threads?project=/work/beta&all=true", "list --project /work/beta --all"),
        (f"/threads/{ID[:4]}", f"show {ID}"),
        (f"/threads/{ID}/tools", f"tools {ID}"),
        (f"/threads/{ID}/items?limit=3&at=start", f"show {ID} --transcript --limit 3 --at start"),
        ("/search?q=parser&limit=2", "search parser --limit 2"),
        (
            "/search?q=step+1*&role=assistant&sort=newest",
            "search step\u00a01* --role assistant --sort newest",
        ),
        ("/usage?by=month&by=model", "stats --by month --by model --all"),
        ("/projects", "projects"),
    ],
)
def test_it_answers_as_the_commands_do(served, api, path, command):
    answer = api.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    arguments = [word.replace("\u00a0", " ") for word in command.split(" ")]
    done = subprocess.run(
        [ROLLBOOK, *arguments, "--json", "--home", served.home],
        capture_output=True,
        text=True,
        check=True,
    )
    theirs, ours = json.loads(done.stdout), answer.json()
    if path.startswith("/search"):  # scores fall with time, and cursors say which
        for page in (theirs, ours):
            assert page.pop("next_cursor")
            assert all(0 <= hit.pop("score") <= 1 for hit in page["items"])
    assert ours == theirs


def test_logs_and_health_are_there_too(served, api):
    rows = api.get("/logs", params={"search": "row 14", "limit": 5}).json()["items"]
    assert [row["id"] for row in rows] == [145, 146, 147, 148, 149]
    asked = ["--no-follow", "--search", "row 14", "--backfill", "5", "--json"]
    done = subprocess.run(
        [ROLLBOOK, "logs", *asked, "--home", served.home],
        capture_output=True,
        text=True,
        check=True,
    )
    assert rows == [json.loads(line) for line in done.stdout.splitlines()]
    health = api.get("/health").json()
    assert {check["check"] for check in health["checks"]} >= {"index", "home", "logs"}


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/threads/nonsense", 404, "not_found"),
        ("/threads/99999999", 404, "not_found"),
        ("/threads/4", 200, ""),
        (f"/threads/{ID}/items?at=x", 400, "invalid_cursor"),
        (f"/threads/{ID}/items?at=start&before=x", 400, "usage"),
        ("/threads?cursor=", 400, "invalid_cursor"),
        ("/threads?limit=1000", 400, "usage"),
        ("/threads?unknown=1", 400, "usage"),
        ("/usage?by=size", 400, "usage"),
        ("/usage?time_zone=Nowhere/At_all", 400, "usage"),
        ("/usage?since=99999999999999", 400, "usage"),
        ("/nothing", 404, "not_found"),
    ],
)
def test_what_makes_no_sense_is_told_in_json(api, path, status, code):
    answer = api.get(path)
    assert answer.status_code == status
    if code:
        assert answer.json()["error"]["code"] == code
        assert answer.json()["error"]["message"]


def test_pages_lead_to_everything(api):
    positions, place = [], {}
    while place is not None:
        page = api.get(f"/threads/{ID}/items", params={"limit": 50} | place).json()
        positions = [item["position"] for item in page["items"]] + positions
        place = {"before": page["before"]} if page["before"] else None
    whole = api.get(f"/threads/{ID}/items", params={"limit": 200, "at": "start"}).json()
    assert positions == [item["position"] for item in whole["items"]]
    assert len(positions) == len(set(positions)) > 100
