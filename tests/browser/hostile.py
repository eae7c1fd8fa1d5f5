"""A home in which every text tries to be more than text."""

import json
from pathlib import Path

from rollbook import LogEntry, StateRuntime
from rollbook.testing import (
    make_line,
    message,
    session_meta,
    token_count,
    user_message,
    write_rollout,
)

ID, CHILD = "55555555-5555-4555-8555-555555555555", "66666666-6666-4666-8666-666666666666"
LONG = 10_000_000  # characters of one line
TRICKS = [
    "<script>pwned('script')</script>",
    "<img src=x onerror=\"pwned('img')\">",
    "<svg onload=\"pwned('svg')\"></svg>",
    "\"><svg/onload=pwned('attribute')><\"",
    "' autofocus onfocus='pwned()' x='",
    '"autofocus onfocus="pwned()" x="',
    "</title><script>pwned('title')</script>",
    "</textarea></pre></code></details></option></select><script>pwned('end')</script>",
    "<style>*{background:url(http://evil.example/css)}</style>",
    "<iframe srcdoc=\"<script>parent.pwned('iframe')</script>\"></iframe>",
    "<base href=//evil.example>",
    "<meta http-equiv=refresh content='0;url=http://evil.example'>",
    "<a href=javascript:pwned('link')>x</a>",
    "<form action=http://evil.example><input name=q></form>",
    "[x](javascript:pwned('md')) <javascript:pwned('auto')> ![x](http://evil.example/i.png)",
    "[x](data:text/html,<script>pwned()</script>) [x](//evil.example/p)",
    "```\"><script>pwned('fence')</script>\n</code></pre><script>pwned('code')</script>\n```",
    "{{ 7 * 7 }} {% include 'x' %} ${7*7} <!-- --> <![CDATA[",
    "\x1b[31mred\x1b]0;title\x07\x1b[2J \x9b31m \x00 \x08",
    "safe\u202etxt.exe\u202c \u2066hidden\u2069 \u200f\u200e \ufeff",
    "\u2028pwned('line')\u2029",
]
ALL = "\n".join(TRICKS)
DIFF = f"--- a/x\n+++ b/x\n@@ -1 +1 @@\n-{ALL}\n+{ALL}"


def write_hostile_home(home: Path, longest: int = LONG) -> Path:
    """Write threads, logs, names and tags; two lines of one thread are very long."""
    one_line = " ".join(TRICKS).replace("\n", " ")
    tools = [
        {"name": trick, "description": ALL, "inputSchema": {trick: ALL}} for trick in TRICKS[:3]
    ]
    meta = {
        "cwd": f"/work/{one_line}",
        "originator": one_line,
        "cli_version": TRICKS[0],
        "model_provider": one_line,
        "git": {"branch": one_line, "commit_hash": TRICKS[1], "repository_url": one_line},
        "dynamic_tools": tools,
    }
    lines = [session_meta(ID, **meta), user_message(ALL), _turn_context(one_line)]
    lines += [message(ALL, "user"), message(ALL, "assistant"), message(ALL, "developer")]
    for trick in TRICKS:
        lines += [message(trick, "user"), message(trick, "assistant")]
    lines += [
        _item("reasoning", summary=[{"type": "summary_text", "text": ALL}]),
        _item("function_call", name=one_line, call_id="c", arguments=json.dumps({"cmd": ALL})),
        _item("function_call", name="shell", call_id="d", arguments=ALL),
        _item("custom_tool_call", name="apply_patch", call_id="e", input=DIFF),
        _item("function_call_output", call_id="c", output=ALL),
        _item("function_call_output", call_id="d", output=DIFF),
        _item("function_call_output", call_id="e", output=json.dumps({"output": ALL})),
        _item("web_search_call", action={"type": "search", "query": ALL}),
        make_line("compacted", {"message": ALL}),
        message((ALL + "\n") * (longest // len(ALL)), "assistant"),
        _item("function_call_output", call_id="f", output=DIFF * (longest // len(DIFF))),
        token_count(7),
        message(f"The end {ALL}", "assistant"),
    ]
    write_rollout(home, ID, lines)
    child = {"subagent": {"thread_spawn": {"parent_thread_id": ID, "depth": 1}}}
    role = {"agent_nickname": one_line, "agent_role": one_line}
    meta = session_meta(CHILD, source=child, cwd=f"/{TRICKS[3]}", **role)
    write_rollout(home, CHILD, [meta, user_message(one_line), message(one_line, "user")])
    torn = "44444444-4444-4444-8444-444444444444"
    write_rollout(
        home, torn, [session_meta(torn), user_message("x"), b"<script>pwned('torn')", b"\xff{"]
    )
    evil = home / "sessions" / "2026" / "01" / "27" / "rollout-<img src=x onerror=pwned()>.jsonl"
    evil.write_bytes(b"{}")
    with StateRuntime.open(home, backfill=False) as state:
        state.sync()
        state.rename_thread(CHILD, one_line)
        state.tag_thread(ID, [trick.replace("\n", " ")[:90] for trick in TRICKS])
        state.insert_logs(
            [
                LogEntry(n, 0, trick, trick, ALL, trick, trick, trick, n)
                for n, trick in enumerate(TRICKS)
            ]
        )
    return home


def _item(kind: str, **payload: object) -> bytes:
    return make_line("response_item", {"type": kind, **payload})


def _turn_context(text: str) -> bytes:
    return make_line("turn_context", {"model": text, "effort": text, "cwd": "/", "turn_id": text})
