"""The same recorder for asyncio: each method is one hop, in the order of the calls."""

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from rollbook.aio import AsyncStateRuntime
from rollbook.git import GitFacts
from rollbook.model.thread import DynamicToolSpec
from rollbook.recorder.recorder import RolloutRecorder
from rollbook.rollout.lines import RolloutItem

_Result = TypeVar("_Result")


class AsyncRolloutRecorder:
    """:class:`rollbook.RolloutRecorder` as coroutines: same names, arguments, results and errors.

    ``async with await AsyncRolloutRecorder.create(state) as recorder`` closes it at the end.  A
    caller that is cancelled stops waiting; what it has recorded is written all the same.
    """

    def __init__(self, recorder: RolloutRecorder, executor: ThreadPoolExecutor) -> None:
        self._recorder = recorder
        self._executor = executor
        self._is_closed = False

    @classmethod
    async def create(
        cls,
        state: AsyncStateRuntime,
        *,
        cwd: str | os.PathLike[str] | None = None,
        source: str = "exec",
        originator: str = "rollbook",
        model_provider: str | None = None,
        base_instructions: str | None = None,
        dynamic_tools: Sequence[DynamicToolSpec] = (),
        git: GitFacts | bool = True,
        cli_version: str | None = None,
        thread_id: str | None = None,
    ) -> Self:
        """See :meth:`rollbook.RolloutRecorder.create`."""
        return await cls._made(
            partial(
                RolloutRecorder.create,
                state.blocking,
                cwd=cwd,
                source=source,
                originator=originator,
                model_provider=model_provider,
                base_instructions=base_instructions,
                dynamic_tools=dynamic_tools,
                git=git,
                cli_version=cli_version,
                thread_id=thread_id,
            )
        )

    @classmethod
    async def resume(cls, state: AsyncStateRuntime, thread_id: str) -> Self:
        """See :meth:`rollbook.RolloutRecorder.resume`."""
        return await cls._made(partial(RolloutRecorder.resume, state.blocking, thread_id))

    @classmethod
    async def fork(
        cls,
        state: AsyncStateRuntime,
        thread_id: str,
        *,
        cwd: str | os.PathLike[str] | None = None,
        source: str = "exec",
        originator: str = "rollbook",
        cli_version: str | None = None,
    ) -> Self:
        """See :meth:`rollbook.RolloutRecorder.fork`."""
        return await cls._made(
            partial(
                RolloutRecorder.fork,
                state.blocking,
                thread_id,
                cwd=cwd,
                source=source,
                originator=originator,
                cli_version=cli_version,
            )
        )

    @classmethod
    async def _made(cls, make: Callable[[], RolloutRecorder]) -> Self:
        executor = ThreadPoolExecutor(1, thread_name_prefix="rollbook-recorder")
        making = executor.submit(make)
        try:
            recorder = await asyncio.wrap_future(making)
        except BaseException:
            making.add_done_callback(_close_unclaimed)
            executor.shutdown(wait=False)
            raise
        return cls(recorder, executor)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def thread_id(self) -> str:
        """See :attr:`rollbook.RolloutRecorder.thread_id`."""
        return self._recorder.thread_id

    @property
    def rollout_path(self) -> Path:
        """See :attr:`rollbook.RolloutRecorder.rollout_path`."""
        return self._recorder.rollout_path

    @property
    def history(self) -> list[RolloutItem]:
        """See :attr:`rollbook.RolloutRecorder.history`."""
        return self._recorder.history

    async def get_dynamic_tools(self) -> list[DynamicToolSpec]:
        """See :meth:`rollbook.RolloutRecorder.get_dynamic_tools`."""
        return await self._run(self._recorder.get_dynamic_tools)

    async def record_items(self, items: Iterable[RolloutItem | Mapping[str, Any]]) -> int:
        """See :meth:`rollbook.RolloutRecorder.record_items`."""
        return await self._run(self._recorder.record_items, list(items))

    async def flush(self) -> None:
        """See :meth:`rollbook.RolloutRecorder.flush`."""
        await self._run(self._recorder.flush)

    async def close(self) -> None:
        """See :meth:`rollbook.RolloutRecorder.close`."""
        await self._run(self._recorder.close)
        self._is_closed = True
        self._executor.shutdown(wait=False)

    async def _run(self, operation: Callable[..., _Result], *arguments: Any) -> _Result:
        call = partial(operation, *arguments)
        executor = None if self._is_closed else self._executor
        return await asyncio.get_running_loop().run_in_executor(executor, call)


def _close_unclaimed(making: "Future[RolloutRecorder]") -> None:
    """Let go of a thread whose caller was cancelled before it could have the recorder."""
    if not making.cancelled() and making.exception() is None:
        making.result().close()
