"""The logging handler: what a row says, what happens when too much comes (behaviour.md 121 to 124)."""

import asyncio
import contextvars
import inspect
import logging
import math
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import loguru
import pytest
import structlog

from rollbook import (
    AsyncStateRuntime,
    LogLimits,
    LogQuery,
    LogRow,
    RollbookHandler,
    StateRuntime,
    thread_context,
)
from tests.conftest import as_another_program

NEVER = {"flush_interval_s": 3600.0, "batch_size": 1_000_000}  # only written when told to
HERE = __file__
LOST = "log records were lost"


def line_below() -> int:
    return inspect.currentframe().f_back.f_lineno + 1


def fail() -> None:
    raise LookupError("nothing here")


def eventually(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)


@pytest.fixture
def state(home: Path) -> Iterator[StateRuntime]:
    limits = LogLimits(retention_days=10**9)  # records of any time
    with StateRuntime.open(home, backfill=False, log_limits=limits) as opened:
        yield opened


@pytest.fixture
def attached(state: StateRuntime) -> Iterator[Callable[..., RollbookHandler]]:
    """Attach a handler to the logger ``agent``, and take it away afterwards."""
    logger = logging.getLogger("agent")
    before = logger.level, logger.propagate
    logger.setLevel(1)
    logger.propagate = False
    handlers: list[RollbookHandler] = []

    def attach(**options: Any) -> RollbookHandler:
        handler = RollbookHandler(state, **(NEVER | options))
        logger.addHandler(handler)
        handlers.append(handler)
        return handler

    attach.handlers = handlers
    yield attach
    for handler in handlers:
        logger.removeHandler(handler)
        handler.close()
    logger.setLevel(before[0])
    logger.propagate = before[1]


@pytest.fixture
def log(attached) -> logging.Logger:
    attached()
    return logging.getLogger("agent")


@pytest.fixture
def rows(state: StateRuntime, attached: Any) -> Callable[[], list[LogRow]]:
    """Read the rows, with everything written that waits."""

    def read() -> list[LogRow]:
        for handler in attached.handlers:
            handler.flush()
        return state.query_logs()

    return read


def make_record(**fields: Any) -> logging.LogRecord:
    defaults = {
        "name": "agent",
        "msg": "Hello",
        "levelno": 20,
        "levelname": "INFO",
        "pathname": HERE,
        "lineno": 7,
        "module": "test_loghandler",
    }
    return logging.makeLogRecord(defaults | fields)


def messages(found: list[LogRow]) -> list[str | None]:
    return [row.message for row in found]


class TestRow:
    def test_a_row_says_what_the_record_says(self, state, log, rows):
        before = time.time_ns()
        line = line_below()
        log.info("Started %s of %d", "one", 2)
        after = time.time_ns()
        (row,) = rows()
        assert (row.level, row.target, row.message) == ("INFO", "agent", "Started one of 2")
        assert (row.file, row.line, row.thread_id) == (HERE, line, None)
        assert before - 1000 <= row.ts * 10**9 + row.ts_nanos <= after + 1000

    @pytest.mark.parametrize(
        ("number", "level"),
        [
            (1, "TRACE"),
            (9, "TRACE"),
            (logging.DEBUG, "DEBUG"),
            (15, "DEBUG"),
            (logging.INFO, "INFO"),
            (25, "INFO"),
            (logging.WARNING, "WARN"),
            (35, "WARN"),
            (logging.ERROR, "ERROR"),
            (45, "ERROR"),
            (logging.CRITICAL, "ERROR"),
            (60, "ERROR"),
        ],
    )
    def test_every_level_has_one_of_five_names(self, log, rows, number, level):
        log.log(number, "Hello")
        assert rows()[0].level == level

    def test_a_level_with_a_name_of_its_own_keeps_it(self, log, rows):
        logging.addLevelName(27, "Notice")
        try:
            log.log(27, "Hello")
        finally:
            del logging._levelToName[27], logging._nameToLevel["Notice"]
        assert rows()[0].level == "NOTICE"

    @pytest.mark.parametrize(
        "created", [0.0, 0.25, 1.0, 1_790_000_000.123456, math.nextafter(1_790_000_000, 0)]
    )
    def test_the_time_is_that_of_the_record_to_the_nanosecond(self, log, rows, created):
        log.handle(make_record(created=created))
        (row,) = rows()
        assert row.ts == int(created)
        assert row.ts_nanos == int((created % 1) * 10**9)
        assert 0 <= row.ts_nanos < 10**9

    def test_a_clock_before_1970_gives_0(self, log, rows):
        log.handle(make_record(created=-1.5))
        assert (rows()[0].ts, rows()[0].ts_nanos) == (0, 0)

    def test_the_module_path_is_the_name_of_the_logger_where_that_is_the_module(
        self, state, attached, rows
    ):
        handler = attached()
        handler.handle(make_record(name="agent.core.turn", module="turn"))
        handler.handle(make_record(name="agent", module="turn"))
        rows()
        assert len(state.query_logs(LogQuery(module_like=["agent.core.turn"]))) == 1
        assert len(state.query_logs(LogQuery(module_like=["turn"]))) == 2

    def test_extra_fields_stand_behind_the_message(self, log, rows):
        extra = {"turn": 3, "path": "/a b", "empty": "", "text": "it's\nhere", "model": "o=1"}
        log.info("Hello", extra=extra)
        assert messages(rows()) == [
            "Hello turn=3 path='/a b' empty='' text=\"it's\\nhere\" model='o=1'"
        ]

    def test_an_exception_stands_below_the_message(self, log, rows):
        try:
            fail()
        except LookupError:
            log.exception("Failed", extra={"turn": 3})
        first, *below = messages(rows())[0].splitlines()
        assert first == "Failed turn=3"
        assert below[0] == "Traceback (most recent call last):"
        assert below[-1] == "LookupError: nothing here"

    def test_an_exception_that_another_handler_formatted_stands_there_once(self, log, rows):
        record = make_record(exc_text="ValueError: formatted before")
        log.handle(record)
        assert messages(rows()) == ["Hello\nValueError: formatted before"]

    def test_fields_that_a_formatter_added_are_no_extra(self, log, rows):
        record = make_record()
        logging.Formatter("%(asctime)s %(message)s").format(record)
        log.handle(record)
        assert messages(rows()) == ["Hello"]

    def test_a_stack_stands_below_the_message(self, log, rows):
        log.info("Hello", stack_info=True)
        text = messages(rows())[0]
        assert text.startswith("Hello\nStack (most recent call last):\n")
        assert "test_a_stack_stands_below_the_message" in text

    def test_a_formatter_makes_the_message(self, attached, rows):
        handler = attached()
        handler.setFormatter(logging.Formatter("%(name)s says %(message)s"))
        handler.handle(make_record())
        assert messages(rows()) == ["agent says Hello"]

    def test_a_filter_and_a_level_keep_records_out(self, attached, log, rows):
        (handler,) = attached.handlers
        handler.setLevel("WARNING")
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        for text in ("Hello", "secret"):
            log.warning(text)
            log.info(text)
        assert messages(rows()) == ["Hello"]

    @pytest.mark.parametrize("text", ["", "\0", "\ud800", "é" * 100_000, "a\r\nb", "{}%s"])
    def test_any_text_is_a_message(self, log, rows, text):
        log.info(text)
        expected = text.replace("\0", "\ufffd").replace("\ud800", "\ufffd")
        assert messages(rows()) == [expected]


class TestThreadId:
    @pytest.mark.parametrize("thread_id", ["a", uuid.UUID(int=5), 7])
    def test_a_record_has_a_thread_id_of_its_own_before_that_of_the_context(
        self, log, rows, thread_id
    ):
        with thread_context("context"):
            log.info("Hello", extra={"thread_id": thread_id})
        assert [(row.thread_id, row.message) for row in rows()] == [(str(thread_id), "Hello")]

    def test_of_nested_contexts_the_inner_counts_and_the_outer_returns(self, log, rows):
        log.info("none")
        with thread_context("outer"):
            log.info("outer")
            with pytest.raises(ZeroDivisionError), thread_context("inner"):
                log.info("inner")
                raise ZeroDivisionError
            with thread_context(None):
                log.info("none")
            log.info("outer")
        log.info("none")
        assert all(str(row.thread_id).lower() == row.message for row in rows())
        assert len(rows()) == 6

    def test_each_task_has_the_context_that_it_entered(self, log, rows):
        async def work(name: str, turns: asyncio.Barrier) -> None:
            with thread_context(name):
                for _ in range(5):
                    await turns.wait()
                    log.info(name)
                await asyncio.create_task(inherits(name))
                await asyncio.to_thread(log.info, name)
            log.info("None")

        async def inherits(name: str) -> None:
            log.info(name)

        async def main() -> None:
            turns = asyncio.Barrier(4)
            await asyncio.gather(*(work(f"task {number}", turns) for number in range(4)))

        asyncio.run(main())
        assert len(rows()) == 4 * 8
        assert all(str(row.thread_id) == row.message for row in rows())

    def test_each_thread_has_the_context_that_it_entered(self, log, rows):
        turns = threading.Barrier(4)

        def work(name: str) -> None:
            log.info("None")
            with thread_context(name):
                for _ in range(5):
                    turns.wait(20)
                    log.info(name)

        with thread_context("of the main thread"):
            threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        assert len(rows()) == 4 * 6
        assert all(str(row.thread_id) == row.message for row in rows())

    def test_a_copied_context_keeps_its_thread(self, log, rows):
        with thread_context("copied"):
            copied = contextvars.copy_context()
        copied.run(log.info, "Hello")
        assert rows()[0].thread_id == "copied"


class TestQueue:
    def test_a_full_batch_is_written_without_waiting_for_the_interval(self, state, attached):
        handler = attached(batch_size=5)
        for number in range(4):
            handler.handle(make_record(msg=str(number)))
        assert state.query_logs() == []
        handler.handle(make_record(msg="4"))
        eventually(lambda: messages(state.query_logs()) == list("01234"))

    def test_what_is_no_full_batch_is_written_after_the_interval(self, state, attached):
        handler = attached(flush_interval_s=0.01)
        for text in ("first", "second"):  # the second finds the writer waiting again
            handler.handle(make_record(msg=text))
            eventually(lambda text=text: text in messages(state.query_logs()))

    def test_the_handler_writes_with_the_defaults_too(self, state):
        handler = RollbookHandler(state)
        for number in range(200):
            handler.handle(make_record(msg=str(number)))
        eventually(lambda: len(state.query_logs()) == 200)
        assert messages(state.query_logs()) == [str(number) for number in range(200)]

    def test_what_does_not_fit_is_dropped_counted_and_told_in_one_row(self, attached, rows):
        handler = attached(queue_size=10)
        for number in range(25):
            handler.handle(make_record(msg=str(number)))
        assert handler.lost == 15
        *kept, told = rows()
        assert messages(kept) == [str(number) for number in range(10)]
        assert told.message.startswith(f"15 {LOST}")
        assert (told.level, told.thread_id) == ("WARN", None)
        handler.handle(make_record(msg="later"))
        assert messages(rows())[11:] == ["later"]

    def test_each_loss_is_told_once(self, attached, rows):
        handler = attached(queue_size=2)
        for count in (3, 2, 7):
            for _ in range(count):
                handler.handle(make_record())
            rows()
        told = [text for text in messages(rows()) if LOST in text]
        assert [text.split()[0] for text in told] == ["1", "5"]
        assert handler.lost == 6

    def test_nobody_waits_for_a_locked_database(self, state, home, attached, rows):
        rows()
        locker = as_another_program(home / "rollbook" / "logs.sqlite")
        locker.execute("BEGIN IMMEDIATE")
        handler = attached(queue_size=50, batch_size=10, flush_interval_s=0.001)
        for number in range(400):
            handler.handle(make_record(msg=str(number)))
        assert handler.lost >= 300
        locker.execute("COMMIT")
        locker.close()
        found = messages(rows())
        kept = [int(text) for text in found if LOST not in text]
        told = [int(text.split()[0]) for text in found if LOST in text]
        assert kept == sorted(set(kept))
        assert len(kept) + sum(told) == 400
        assert sum(told) == handler.lost

    def test_records_of_many_threads_are_all_written_or_counted(self, attached, rows):
        handler = attached(queue_size=40, batch_size=8, flush_interval_s=0.001)

        def work(name: int) -> None:
            for number in range(300):
                handler.handle(make_record(msg=f"{name} {number}"))

        threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        found = messages(rows())
        kept = [text for text in found if LOST not in text]
        told = [int(text.split()[0]) for text in found if LOST in text]
        assert len(set(kept)) == len(kept)
        assert sum(told) == handler.lost == 1200 - len(kept)
        for name in range(4):
            numbers = [int(text.split()[1]) for text in kept if text.split()[0] == str(name)]
            assert numbers == sorted(numbers)

    def test_a_database_that_can_not_be_written_costs_records_and_nothing_else(
        self, state, home, attached, rows, monkeypatch
    ):
        (home / "rollbook" / "logs.sqlite").mkdir()
        handler = attached()
        for _ in range(3):
            handler.handle(make_record())
        handler.flush()
        assert handler.lost == 3
        (home / "rollbook" / "logs.sqlite").rmdir()
        handler.handle(make_record(msg="now"))
        first, second = messages(rows())
        assert first == "now"
        assert second.startswith(f"3 {LOST}")

    def test_what_was_lost_in_the_end_is_said_on_stderr(self, state, home, attached, capsys):
        (home / "rollbook" / "logs.sqlite").mkdir()
        handler = attached()
        handler.handle(make_record())
        handler.close()
        assert "rollbook: 1 log records were lost" in capsys.readouterr().err

    def test_a_message_that_can_not_be_formatted_raises_nothing(self, attached, rows, capsys):
        class Unprintable:
            def __str__(self) -> str:
                raise ZeroDivisionError

        handler = attached()
        for fields in (
            {"msg": "%d of %d", "args": (1,)},
            {"msg": Unprintable()},
            {"turn": Unprintable()},
            {"thread_id": Unprintable()},
            {"msg": "after"},
        ):
            handler.handle(make_record(**fields))
        assert messages(rows()) == ["after"]
        assert capsys.readouterr().err.count("--- Logging error ---") == 4

    @pytest.mark.parametrize(
        "fields",
        [
            {"lineno": 2**70},
            {"created": 1e300},
            {"pathname": Path(HERE)},
            {"lineno": "seven"},
            {"name": None},
            {"levelname": None},
        ],
        ids=str,
    )
    def test_a_record_that_can_not_be_stored_costs_nothing_but_itself(
        self, attached, rows, monkeypatch, fields
    ):
        monkeypatch.setattr(logging, "raiseExceptions", False)
        handler = attached()
        for record in (make_record(msg="before"), make_record(**fields), make_record(msg="after")):
            handler.handle(record)
        assert {"before", "after"} <= set(messages(rows()))

    @pytest.mark.filterwarnings("default::pytest.PytestUnhandledThreadExceptionWarning")
    def test_the_writer_goes_on_after_a_record_that_can_not_be_stored(self, state, attached):
        handler = attached(batch_size=1)
        handler.handle(make_record(lineno=2**70))
        eventually(lambda: not handler._waiting)
        handler.handle(make_record(msg="after"))
        eventually(lambda: "after" in messages(state.query_logs()))


class TestClosing:
    def test_closing_writes_what_waits_and_takes_no_more(self, state, attached):
        handler = attached()
        handler.handle(make_record(msg="before"))
        handler.close()
        handler.close()
        handler.handle(make_record(msg="after"))
        handler.flush()
        found = messages(state.query_logs())
        assert found[0] == "before"
        assert "after" not in found
        assert handler.lost == 1

    def test_closing_the_state_writes_what_waits(self, home):
        for number, face in enumerate(("sync", "async")):
            opened = StateRuntime.open(home, backfill=False)
            handler = RollbookHandler(opened, **NEVER)
            handler.handle(make_record(msg=face))
            opened.close()
            with StateRuntime.open(home, backfill=False) as again:
                assert len(again.query_logs()) == number + 1

    def test_a_state_for_asyncio_is_written_to_the_same_way(self, home):
        async def main() -> list[LogRow]:
            async with AsyncStateRuntime.open(home, backfill=False) as opened:
                handler = RollbookHandler(opened, **NEVER)
                handler.handle(make_record(msg="flushed"))
                handler.flush()
                found = await opened.query_logs()
                handler.handle(make_record(msg="closed"))
                return found

        assert messages(asyncio.run(main())) == ["flushed"]
        with StateRuntime.open(home, backfill=False) as again:
            assert messages(again.query_logs()) == ["flushed", "closed"]

    def test_handlers_of_one_state_are_closed_with_it_each_and_only_once(self, home):
        opened = StateRuntime.open(home, backfill=False)
        handlers = [RollbookHandler(opened, **NEVER) for _ in range(3)]
        for handler in handlers:
            handler.handle(make_record())
        handlers[0].close()
        assert len(opened.query_logs()) == 1
        opened.close()
        with StateRuntime.open(home, backfill=False) as again:
            assert len(again.query_logs()) == 3

    def test_a_closed_handler_leaves_no_thread_behind(self, state, attached):
        before = set(threading.enumerate())
        handler = attached(batch_size=1)
        handler.handle(make_record())
        eventually(lambda: state.max_log_id() == 1)
        handler.close()
        names = {thread.name for thread in set(threading.enumerate()) - before}
        assert "rollbook-log-writer" not in names


class TestOtherLibraries:
    @pytest.fixture
    def structured(self, log) -> Iterator[Any]:
        known = logging.getLoggerClass()
        structlog.configure(
            processors=[structlog.stdlib.render_to_log_kwargs],
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
        name = f"agent.n{uuid.uuid4().hex}"  # made by structlog's factory, as in a program
        yield structlog.get_logger(name)
        structlog.reset_defaults()
        logging.setLoggerClass(known)

    def test_structlog_gives_level_message_fields_and_place(self, structured, rows):
        line = line_below()
        structured.warning("Hello", turn=3, note="two words")
        (row,) = rows()
        assert row.message == "Hello turn=3 note='two words'"
        assert row.level == "WARN"
        assert row.target.startswith("agent.n")
        assert (row.file, row.line) == (HERE, line)

    def test_structlog_gives_exceptions_and_thread_ids(self, structured, rows):
        try:
            fail()
        except LookupError:
            structured.exception("Failed", thread_id="own", turn=3)
        with thread_context("context"):
            structured.bind(turn=4).critical("Hello")
        failed, hello = rows()
        assert (failed.level, failed.thread_id) == ("ERROR", "own")
        assert failed.message.startswith("Failed turn=3\nTraceback (most recent call last):\n")
        assert failed.message.endswith("\nLookupError: nothing here")
        assert (hello.level, hello.thread_id, hello.message) == ("ERROR", "context", "Hello turn=4")

    @pytest.fixture
    def guru(self, state) -> Iterator[Any]:
        loguru.logger.remove()
        loguru.logger.add(RollbookHandler(state, **NEVER), format="{message}", level=0)
        yield loguru.logger
        loguru.logger.remove()

    def test_loguru_gives_level_message_fields_and_place(self, state, guru):
        line = line_below()
        guru.bind(turn=3, note="two words").warning("Hello {}", "you")
        for level in ("TRACE", "DEBUG", "INFO", "SUCCESS", "ERROR", "CRITICAL"):
            guru.log(level, level)
        guru.remove()
        row, *others = state.query_logs()
        assert row.message == "Hello you turn=3 note='two words'"
        assert (row.level, row.target) == ("WARN", __name__)
        assert (row.file, row.line) == (HERE, line)
        assert [other.level for other in others] == [
            *("TRACE", "DEBUG", "INFO", "SUCCESS", "ERROR", "ERROR")
        ]
        assert len(state.query_logs(LogQuery(module_like=[__name__]))) == 7

    def test_loguru_gives_thread_ids(self, state, guru):
        guru.bind(thread_id="own").info("own")
        with guru.contextualize(thread_id="contextualized"), thread_context("context"):
            guru.info("contextualized")
        with thread_context("context"):
            guru.info("context")
        guru.info("None")
        guru.remove()
        assert [str(row.thread_id) for row in state.query_logs()] == messages(state.query_logs())

    def test_loguru_gives_an_exception_once_below_the_message(self, state, guru):
        try:
            fail()
        except LookupError:
            guru.exception("Failed")
        guru.remove()
        (row,) = state.query_logs()
        assert row.level == "ERROR"
        assert row.message.startswith("Failed\nTraceback (most recent call last):\n")
        assert row.message.count("LookupError: nothing here") == 1
        assert row.message.endswith("\nLookupError: nothing here")

    def test_loguru_gives_fields_behind_the_message_of_an_exception(self, state, guru):
        try:
            fail()
        except LookupError:
            guru.bind(turn=3).exception("Failed")
        guru.remove()
        lines = state.query_logs()[0].message.splitlines()
        assert lines[0] == "Failed turn=3"
        assert lines[-1] == "LookupError: nothing here"


# Logs from a signal handler at every line of the handler's own code, as a signal may come there.
INTERRUPTED = """
import faulthandler, logging, signal, sys
from rollbook import RollbookHandler, StateRuntime
faulthandler.dump_traceback_later(8, exit=True)
state = StateRuntime.open(sys.argv[1], backfill=False)
handler = RollbookHandler(state, queue_size=4, batch_size=1000, flush_interval_s=3600)
log = logging.getLogger("agent")
log.setLevel(1)
log.addHandler(handler)
logged = interrupted = 0

def on_signal(number, frame):
    global logged
    logged += 1
    log.info("from the signal handler")

signal.signal(signal.SIGUSR1, on_signal)

def trace(frame, event, argument):
    global interrupted
    if not frame.f_code.co_filename.endswith("loghandler.py"):
        return None
    if event == "line" and frame.f_code.co_name in PLACES:
        interrupted += 1
        signal.raise_signal(signal.SIGUSR1)
    return trace

PLACES = sys.argv[2].split(",")
sys.settrace(trace)
for number in range(10):
    logged += 1
    log.info("in between")
sys.settrace(None)
handler.flush()
assert interrupted
rows = state.query_logs()
told = [row for row in rows if "were lost" in row.message]
kept = len(rows) - len(told)
assert kept + handler.lost == logged, (kept, handler.lost, logged)
faulthandler.cancel_dump_traceback_later()
"""


@pytest.mark.parametrize("places", ["emit,handle,_entry", "_start_writer", "_lose"])
def test_a_signal_handler_may_log_at_any_moment_of_logging(home, places):
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, home, places],
        timeout=60,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
