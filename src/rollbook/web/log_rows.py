"""Log rows, Rollbook's own or those that Codex keeps, which are only read."""

from rollbook.logs.reader import LogReader
from rollbook.model.log import LogRow
from rollbook.runtime import StateRuntime
from rollbook.web.parameters import LogsOf, LogsParameters


def find_rows(state: StateRuntime, asked: LogsParameters) -> list[LogRow]:
    """Find what was asked for, oldest first."""
    if asked.of is LogsOf.CODEX:
        reader = LogReader.of_agent(state.codex_home)
        rows = [] if reader is None else reader.query_logs(asked.query())
    else:
        rows = state.query_logs(asked.query())
    return sorted(rows, key=lambda row: row.id)


def last_row_id(state: StateRuntime, of: LogsOf) -> int:
    """Find the largest id; 0 where there are no rows."""
    if of is LogsOf.CODEX:
        reader = LogReader.of_agent(state.codex_home)
        return 0 if reader is None else reader.last_id()
    return state.max_log_id()


def usual_logs(state: StateRuntime) -> LogsOf:
    """Choose the logs that are looked at first: Rollbook's, unless only Codex has any."""
    has_any = last_row_id(state, LogsOf.ROLLBOOK) or LogReader.of_agent(state.codex_home) is None
    return LogsOf.ROLLBOOK if has_any else LogsOf.CODEX
