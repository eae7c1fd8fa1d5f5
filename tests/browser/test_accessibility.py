"""Every view, light and dark, wide and narrow, as axe looks at it."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from rollbook.testing import make_line, message, session_meta, user_message, write_rollout
from tests.web.conftest import ID, write_home
from tests.web.serving import serving

CODE = "99999999-9999-4999-8999-999999999999"
CODES = """
```python
@decorated(1, name="x")
class Parser(Base):  # a comment
    \"\"\"What it does.\"\"\"
    async def read(self, *, size: int = 0x1F) -> bytes | None:
        raise ValueError(f"no {size!r} {self.name:>10}") from None
```

```bash
export NAME="$HOME/x"; for each in *.py; do echo "${each%.py}" | grep -v 'x' > /dev/null; done
```

| a | b |
| - | -: |
| `c` | 1 |

> quoted, with [a link](https://example.com)
"""
DIFF = "diff --git a/x b/x\nindex 1..2 100644\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@ def f():\n-old\n+new\n same"
VIEWS = [
    "/",
    "/?title=nowhere",
    "/projects",
    f"/threads/{ID}?at=start",
    f"/threads/{CODE}",
    "/search",
    "/search?q=parser",
    "/usage?days=0",
    "/logs",
    "/health",
    "/nothing",
]


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    home = write_home(tmp_path_factory.mktemp("axe") / "home")
    lines = [session_meta(CODE), user_message("Code"), message("Code"), message(CODES, "assistant")]
    call = {"type": "function_call", "name": "shell", "arguments": '{"cmd": "ls", "n": [1, true]}'}
    output = {"type": "function_call_output", "output": DIFF}
    calls = [make_line("response_item", each | {"call_id": "c"}) for each in (call, output)]
    write_rollout(home, CODE, [*lines, *calls])
    with serving(home) as served:
        yield served


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("dark", 360)])
def test_axe_finds_nothing(served, visit, scheme, width):
    page = visit(served, color_scheme=scheme, viewport={"width": width, "height": 800})
    found = {}
    for path in VIEWS:
        page.goto(served.address + path)
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        results = Axe().run(page)
        if results.violations_count:
            found[path] = results.generate_report()
    assert not found


def test_axe_would_find_something(served, visit):
    page = visit(served)
    page.evaluate("document.querySelector('[data-search]').removeAttribute('aria-label')")
    page.evaluate("document.querySelector('[data-search]').removeAttribute('placeholder')")
    page.evaluate("document.querySelector('.title').closest('ol').role = 'none'")
    assert Axe().run(page).violations_count
