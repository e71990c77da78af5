"""The client for code that is not async: the calls of `flowkeep.Client` under the same names, blocking.

with flowkeep.sync.Client("localhost:50051") as client:
    result = client.run("hello", {"name": "world"})
    for event in client.watch(execution_id):
        ...
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import grpc

from flowkeep import client
from flowkeep.channel import Token
from flowkeep.durations import Span

P = ParamSpec("P")
T = TypeVar("T")


def _blocking(
    method: Callable[Concatenate[client.Client, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Client, P], T]:
    """Return the call that waits for what a method gives."""

    @functools.wraps(method)
    def call(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[client.Client, P], AsyncIterator[T]],
) -> Callable[Concatenate[Client, P], Iterator[T]]:
    """Return the iterator over what a method yields. Left early, it ends the call."""

    @functools.wraps(method)
    def iterate(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        items: Any = method(self._client, *args, **kwargs)
        try:
            while (item := self._wait(_next(items))) is not _END:
                yield item
        finally:
            if (left := self._begin(items.aclose())) is not None:
                left.result()

    return iterate


class Client:
    """A connection to Flowkeep, used as `with Client("host:port") as client`, from any number of threads.

    Takes what `flowkeep.Client` takes, and its methods give and raise the same; iterators are plain ones. The
    connection lives in a thread of its own, which `close` ends. Async code uses `flowkeep.Client`: a call of this one
    stops the event loop in whose thread it is made.
    """

    def __init__(
        self,
        target: str = "localhost:50051",
        *,
        token: Token = None,
        tls: bool | grpc.ChannelCredentials = False,
        options: Sequence[tuple[str, Any]] = (),
        timeout: Span = 30.0,
    ) -> None:
        self._client = client.Client(target, token=token, tls=tls, options=options, timeout=timeout)
        # Nothing is handed to the loop once it is to end: whoever waited for that would wait for ever.
        self._lock, self._is_closing = threading.Lock(), False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="flowkeep-client", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end its thread. Calls and watches under way in other threads are cancelled."""
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
            end = asyncio.run_coroutine_threadsafe(self._end(), self._loop)
        end.result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        await self._client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        # Each has to end, since a thread waits for what it gives.
        await asyncio.gather(*others, return_exceptions=True)
        await asyncio.get_running_loop().shutdown_asyncgens()

    create_workflow = _blocking(client.Client.create_workflow)
    update_workflow = _blocking(client.Client.update_workflow)
    apply = _blocking(client.Client.apply)
    get_workflow = _blocking(client.Client.get_workflow)
    list_workflows = _iterating(client.Client.list_workflows)
    delete_workflow = _blocking(client.Client.delete_workflow)
    pause_workflow = _blocking(client.Client.pause_workflow)
    resume_workflow = _blocking(client.Client.resume_workflow)
    set_workflow_breakpoints = _blocking(client.Client.set_workflow_breakpoints)
    get_workflow_breakpoints = _blocking(client.Client.get_workflow_breakpoints)
    validate_workflow = _blocking(client.Client.validate_workflow)
    list_handlers = _blocking(client.Client.list_handlers)
    list_mcp_servers = _blocking(client.Client.list_mcp_servers)
    list_workers = _blocking(client.Client.list_workers)
    execute = _blocking(client.Client.execute)
    start = _blocking(client.Client.start)
    batch_execute = _blocking(client.Client.batch_execute)
    get_execution = _blocking(client.Client.get_execution)
    list_steps = _iterating(client.Client.list_steps)
    steps_page = _blocking(client.Client.steps_page)
    get_step = _blocking(client.Client.get_step)
    compare_executions = _blocking(client.Client.compare_executions)
    explain_execution = _blocking(client.Client.explain_execution)
    explain_queue = _blocking(client.Client.explain_queue)
    list_executions = _iterating(client.Client.list_executions)
    list_page = _blocking(client.Client.list_page)
    cancel = _blocking(client.Client.cancel)
    pause = _blocking(client.Client.pause)
    resume = _blocking(client.Client.resume)
    set_breakpoints = _blocking(client.Client.set_breakpoints)
    edit_step_input = _blocking(client.Client.edit_step_input)
    edit_variables = _blocking(client.Client.edit_variables)
    terminate = _blocking(client.Client.terminate)
    signal = _blocking(client.Client.signal)
    signal_with_start = _blocking(client.Client.signal_with_start)
    retry = _blocking(client.Client.retry)
    fork = _blocking(client.Client.fork)
    start_bulk = _blocking(client.Client.start_bulk)
    preview_bulk = _blocking(client.Client.preview_bulk)
    get_bulk = _blocking(client.Client.get_bulk)
    list_bulks = _iterating(client.Client.list_bulks)
    watch_bulk = _iterating(client.Client.watch_bulk)
    stop_bulk = _blocking(client.Client.stop_bulk)
    list_bulk_results = _iterating(client.Client.list_bulk_results)
    test_step = _blocking(client.Client.test_step)
    watch = _iterating(client.Client.watch)
    watch_responses = _iterating(client.Client.watch_responses)
    get_task = _blocking(client.Client.get_task)
    list_tasks = _iterating(client.Client.list_tasks)
    watch_tasks = _iterating(client.Client.watch_tasks)
    claim_task = _blocking(client.Client.claim_task)
    release_task = _blocking(client.Client.release_task)
    complete_task = _blocking(client.Client.complete_task)
    delegate_task = _blocking(client.Client.delegate_task)
    comment_task = _blocking(client.Client.comment_task)
    result = _blocking(client.Client.result)
    run = _blocking(client.Client.run)
    list_notifications = _iterating(client.Client.list_notifications)
    count_unread_notifications = _blocking(client.Client.count_unread_notifications)
    mark_notifications_read = _blocking(client.Client.mark_notifications_read)
    watch_notifications = _iterating(client.Client.watch_notifications)

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what a call gives. It is cancelled when the thread that waits for it is interrupted."""
        future = self._begin(call)
        if future is None:
            raise RuntimeError("the client is closed")
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def _begin(self, call: Coroutine[Any, Any, T]) -> Future[T] | None:
        """Hand a call to the loop, None when the client ends or has ended, and with it what is under way."""
        with self._lock:
            if not self._is_closing:
                return asyncio.run_coroutine_threadsafe(call, self._loop)
        call.close()
        return None


_END: Any = object()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items, _END)
