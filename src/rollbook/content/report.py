"""Tell what was used by day, model, project and the like."""

from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal

import msgspec

from rollbook.content.database import ContentDatabase
from rollbook.index.projects import ProjectNames
from rollbook.index.source import Readable, Source
from rollbook.model.paging import ThreadFilter
from rollbook.model.prices import Prices
from rollbook.model.times import to_epoch, whole_seconds
from rollbook.model.usage import Tokens, UsageKey, UsageReport, UsageRow
from rollbook.rollout.usage import BUCKET_S
from rollbook.store import threads, usage
from rollbook.store.engine import Transaction
from rollbook.store.threads import ThreadFacts
from rollbook.store.usage import Used

_OF_THREADS = {UsageKey.PROJECT, UsageKey.SOURCE, UsageKey.PROVIDER, UsageKey.THREAD}
_LONGEST_TIME = 1 << 40  # seconds: longer than any calendar
_NOT_INDEXED = ThreadFacts(id="")


class UsageRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What :meth:`rollbook.StateRuntime.usage` was asked; ``anywhere``: archived or not."""

    by: tuple[UsageKey, ...]
    since: datetime | None
    until: datetime | None
    time_zone: tzinfo | None
    thread_id: str | None
    threads: ThreadFilter
    anywhere: bool
    prices: Prices | None

    @property
    def needs_threads(self) -> bool:
        """Whether one has to know of each thread what it has used."""
        is_filtered = self.threads != ThreadFilter(include_silent=True) or not self.anywhere
        return is_filtered or self.thread_id is not None or not _OF_THREADS.isdisjoint(self.by)


class _Sum:
    """What was used by one value of each key."""

    def __init__(self) -> None:
        self.requests = 0
        self.tokens = Tokens()
        self.cost: Decimal | None = Decimal(0)

    def add(self, used: Used, cost: Decimal | None) -> None:
        """Add what was used, and what it costs; None for what has no price."""
        self.requests += used.requests
        self.tokens = self.tokens.plus(used.tokens)
        self.cost = None if cost is None or self.cost is None else self.cost + cost

    def row(self, keys: tuple[str, ...]) -> UsageRow:
        """Make the row of it."""
        return UsageRow(keys=keys, requests=self.requests, tokens=self.tokens, cost=self.cost)


def usage_report(
    content: ContentDatabase, source: Source, request: UsageRequest, *, is_shared: bool = False
) -> UsageReport:
    """Add up what was used, by the content database, or by what is shared of it."""
    since = 0 if request.since is None else _bucket_of(request.since)
    until = _LONGEST_TIME if request.until is None else _bucket_of(request.until)

    def used_between(tx: Transaction) -> list[Used]:
        return usage.between(tx, since, until, by_thread=request.needs_threads)

    if is_shared:
        with source.engine.read() as tx:
            found = used_between(tx)
    else:
        found = content.read(used_between)
    facts: dict[str, ThreadFacts] = {}
    if request.needs_threads:
        found, facts = _of_threads(source.engine, request, found)
    prices = request.prices
    total, sums = _Sum(), dict[tuple[str, ...], _Sum]()
    unpriced: set[str] = set()
    names = source.project_names()
    keys_of = [_key(key, request.time_zone, facts, names) for key in request.by]
    for used in found:
        cost = None if prices is None else prices.cost(used.model, used.tokens)
        if prices is not None and cost is None:
            unpriced.add(used.model)
        keys = tuple(key_of(used) for key_of in keys_of)
        sums.setdefault(keys, _Sum()).add(used, cost)
        total.add(used, cost)
    return UsageReport(
        by=request.by,
        rows=[each.row(keys) for keys, each in sorted(sums.items())],
        total=total.row(()),
        currency="" if prices is None else prices.currency,
        unpriced=tuple(sorted(unpriced)),
        is_complete=is_shared or content.state().completed_at is not None,
    )


def _bucket_of(time: datetime) -> int:
    seconds = to_epoch(whole_seconds(time))
    return seconds - seconds % BUCKET_S


def _of_threads(
    index: Readable, request: UsageRequest, found: Iterable[Used]
) -> tuple[list[Used], dict[str, ThreadFacts]]:
    """Leave out the threads that were not asked for, and tell of the others."""
    wanted = {used.thread_id for used in found}
    if request.thread_id is not None:
        wanted &= {request.thread_id}
    with index.read() as tx:
        allowed = threads.among(tx, wanted, request.threads, anywhere=request.anywhere)
        facts = {each.id: each for each in threads.facts(tx, allowed)}
    return [used for used in found if used.thread_id in allowed], facts


def _key(
    key: UsageKey, time_zone: tzinfo | None, facts: dict[str, ThreadFacts], names: ProjectNames
) -> Callable[[Used], str]:
    """Make the function that says which value of a key something was used by."""
    if key is UsageKey.MODEL:
        return lambda used: used.model
    if key is UsageKey.THREAD:
        return lambda used: used.thread_id
    if key is UsageKey.SOURCE:
        return lambda used: facts.get(used.thread_id, _NOT_INDEXED).source
    if key is UsageKey.PROVIDER:
        return lambda used: facts.get(used.thread_id, _NOT_INDEXED).model_provider
    if key is UsageKey.PROJECT:
        projects = {each.id: names.of(each.cwd, each.git_origin_url) for each in facts.values()}
        return lambda used: projects.get(used.thread_id, "")
    return _Calendar(key, time_zone)


class _Calendar:
    """Says in which day, week or month of a time zone something was used."""

    def __init__(self, key: UsageKey, time_zone: tzinfo | None) -> None:
        self._key = key
        self._time_zone = time_zone
        self._known: dict[int, str] = {}

    def __call__(self, used: Used) -> str:
        if used.bucket not in self._known:
            self._known[used.bucket] = self._name(used.bucket)
        return self._known[used.bucket]

    def _name(self, bucket: int) -> str:
        day = datetime.fromtimestamp(bucket, UTC).astimezone(self._time_zone).date()
        if self._key is UsageKey.WEEK:
            day -= timedelta(days=day.weekday())
        return _month(day) if self._key is UsageKey.MONTH else day.isoformat()


def _month(day: date) -> str:
    return day.isoformat()[: len("2026-01")]
