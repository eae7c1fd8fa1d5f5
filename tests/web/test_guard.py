"""Nobody gets in without the token, by another name, or from another site's page."""

import socket
import subprocess

import httpx2
import pytest

from rollbook.web.guard import Door
from tests.web.conftest import ID
from tests.web.serving import ROLLBOOK, serving

PAGES = ["/", "/projects", f"/threads/{ID}", "/search?q=parser", "/usage", "/logs", "/health"]
API = ["/api/v1/threads", f"/api/v1/threads/{ID}/items", "/api/v1/openapi.json", "/events"]
UNKNOWN = ["/nothing", "/api/v1/nothing"]


@pytest.fixture
def stranger(served):
    """A client that was not let in."""
    with httpx2.Client(base_url=served.address) as client:
        yield client


@pytest.mark.parametrize("path", PAGES + API + UNKNOWN)
@pytest.mark.parametrize("wrong", ["", "token", "cookie", "bearer"])
def test_without_the_token_there_is_nothing(served, stranger, path, wrong):
    headers = {
        "": {},
        "token": {},
        "cookie": {"cookie": f"rollbook-{served.port}=x{served.token}"},
        "bearer": {"authorization": f"Bearer {served.token[:-1]}"},
    }[wrong]
    query = {"token": served.token[:-1]} if wrong == "token" else {}
    answer = stranger.get(path, headers=headers, params=query)
    assert answer.status_code == 401
    assert "parser" not in answer.text
    assert "set-cookie" not in answer.headers


def test_the_link_sets_a_cookie_and_takes_the_token_out_of_the_address(served, stranger):
    answer = stranger.get(f"/search?q=a%26b&token={served.token}")
    assert answer.status_code == 200
    assert served.token not in answer.text
    assert 'content="0; url=/search?q=a%26b"' in answer.text
    assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert stranger.get("/").status_code == 200


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "/%2fevil.example"])
def test_the_link_leads_nowhere_else(served, stranger, path):
    answer = stranger.get(f"{served.address}{path}?token={served.token}")
    assert "url=//" not in answer.text
    assert "url=/\\" not in answer.text
    assert "url=http" not in answer.text


def test_programs_give_the_token_as_a_bearer_to_the_api_only(served, stranger):
    headers = {"authorization": f"Bearer {served.token}"}
    assert stranger.get("/api/v1/threads", headers=headers).status_code == 200
    assert stranger.get("/", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1",
        "127.0.0.1:1",
        "localhost.evil:{port}",
        "",
    ],
)
def test_by_another_name_there_is_nothing(served, host):
    with served.client() as client:
        answer = client.get("/", headers={"host": host.format(port=served.port)})
    assert answer.status_code in {400, 403}
    assert "parser" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_its_own_names_are_fine(served, host):
    with served.client() as client:
        assert client.get("/", headers={"host": f"{host}:{served.port}"}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "https://{host}"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "cors"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"},
        {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
    ],
)
def test_another_site_gets_nothing(served, headers):
    host = f"127.0.0.1:{served.port}"
    with served.client() as client:
        answer = client.get("/", headers={k: v.format(host=host) for k, v in headers.items()})
    assert answer.status_code == 403
    assert "parser" not in answer.text


@pytest.mark.parametrize("path", [*PAGES, *API[:3], *UNKNOWN, "/assets/0/rollbook.js"])
def test_every_answer_tells_the_browser_to_be_strict(served, path):
    with served.client() as client:
        headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"
    assert "server" not in headers


@pytest.mark.parametrize("path", PAGES)
def test_no_page_has_scripts_or_styles_in_it(served, path):
    with served.client() as client:
        page = client.get(path).text.lower()
    assert "<script>" not in page
    assert "<style" not in page
    assert " style=" not in page
    assert "javascript:" not in page
    assert 'src="http' not in page


@pytest.mark.parametrize("action", ["rename", "archive", "unarchive"])
@pytest.mark.parametrize("fault", ["no form token", "wrong form token", "no origin", "too long"])
def test_nothing_is_written_that_its_own_forms_have_not_sent(served, action, fault):
    with served.client() as client:
        right = served.form_token(client, ID)
        form = {"name": "Taken over", "form_token": right}
        headers = {"origin": served.address}
        if fault == "no form token":
            del form["form_token"]
        elif fault == "wrong form token":
            form["form_token"] = served.token
        elif fault == "no origin":
            headers = {}
        else:
            form["name"] = "x" * 70_000
        answer = client.post(f"/threads/{ID}/{action}", data=form, headers=headers)
        assert answer.status_code == 403
        shown = client.get(f"/api/v1/threads/{ID}").json()
    assert shown["name"] is None
    assert shown["archived_at"] is None


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", f"/threads/{ID}", f"/api/v1/threads/{ID}", "/logs"])
def test_what_is_only_read_takes_no_other_method(served, method, path):
    with served.client() as client:
        answer = client.request(method, path, headers={"origin": served.address})
    assert answer.status_code == 405


def test_it_listens_on_this_machine_only(served):
    others = [each[4][0] for each in socket.getaddrinfo(socket.gethostname(), None)]
    for address in [each for each in others if not each.startswith(("127.", "::1"))]:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            assert client.connect_ex((address, served.port)) != 0


def test_where_it_listens_elsewhere_addresses_will_do_and_other_names_will_not(tmp_path):
    home = tmp_path / "home"
    (home / "sessions").mkdir(parents=True)
    with serving(home, "--host", "0.0.0.0") as served, httpx2.Client() as client:
        for host, status in (("192.0.2.7", 200), ("[2001:db8::1]", 200), ("evil.example", 403)):
            headers = {
                "host": f"{host}:{served.port}",
                "cookie": f"rollbook-{served.port}={served.token}",
            }
            answer = client.get(f"http://127.0.0.1:{served.port}/", headers=headers)
            assert answer.status_code == status


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--host", "192.0.2.1"], {}, "can't be used"),
        (["--host", "no.such.host.invalid"], {}, "can't be used"),
        ([], {"ROLLBOOK_WEB_TOKEN": "short"}, "too short"),
        (["--port", "99999"], {}, "99999"),
        (["--home", "/no/such/home"], {}, "/no/such/home"),
    ],
)
def test_what_can_not_be_served_is_told(tmp_path, arguments, environment, says):
    (tmp_path / "sessions").mkdir()
    done = subprocess.run(
        [ROLLBOOK, "serve", "--home", tmp_path, "--port", "0", "--no-open", *arguments],
        env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert done.returncode in {2, 3}
    assert says in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("host", "port", "named", "is_ours"),
    [
        ("127.0.0.1", 80, "127.0.0.1", True),
        ("127.0.0.1", 80, "[::1]", True),
        ("127.0.0.1", 80, "evil.example", False),
        ("127.0.0.1", 7331, "127.0.0.1", False),
        ("127.0.0.1", 7331, ":7331", False),
        ("127.0.0.2", 7331, "127.0.0.2:7331", True),
        ("127.0.0.2", 7331, "192.0.2.1:7331", False),
        ("192.0.2.1", 7331, "192.0.2.9:7331", True),
        ("host.example", 7331, "host.example:7331", True),
        ("host.example", 7331, "evil.example:7331", False),
    ],
)
def test_a_host_header_has_to_mean_this_server(host, port, named, is_ours):
    assert Door(host, port, "a-token-of-tests").is_named(named) == is_ours
