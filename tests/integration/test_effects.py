"""What a handler declares decides when it begins: with no effect outside, before the commit of its start (ST12)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flowkeep.handlers import StepContext, handler
from persistence.repository import Repository
from persistence.transition import CommitResult, Transition
from tests.integration.conftest import Serve
from tests.integration.stage import Stage, Store, kinds, log, made, step
from tests.patience import PATIENCE


class Held:
    """A store in which transitions wait until the test lets them through, or are lost."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Transition, asyncio.Future[CommitResult]]] = []
        self.is_open = False
        self._repository: Any = None
        self._submitted = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def wrap(self, repository: Repository) -> Store:
        """Return the store."""
        self._repository = repository
        return Store(repository, submit=self._submit)

    async def submitted(self, count: int) -> None:
        """Return when so many transitions wait."""
        async with asyncio.timeout(PATIENCE), self._submitted:
            await self._submitted.wait_for(lambda: len(self.waiting) >= count)

    def let_through(self) -> None:
        """Write what waits, and from now on all."""
        self.is_open = True
        while self.waiting:
            self._write(*self.waiting.pop(0))

    async def let_first_through(self) -> None:
        """Write the first that waits, and return when what follows from that has happened."""
        transition, shown = self.waiting.pop(0)
        self._write(transition, shown)
        await shown
        await settled()

    def _write(self, transition: Transition, shown: asyncio.Future[CommitResult]) -> None:
        self._repository.submit(transition).add_done_callback(lambda done: shown.set_result(done.result()))

    def lose(self) -> None:
        """Write nothing of what waits, and say that its fate is unknown; from now on write all."""
        self.is_open = True
        for _, shown in self.waiting:
            shown.set_result(CommitResult.UNKNOWN)

    def _submit(self, transition: Transition) -> asyncio.Future[CommitResult]:
        if self.is_open:
            return self._repository.submit(transition)  # type: ignore[no-any-return]
        shown: asyncio.Future[CommitResult] = asyncio.get_running_loop().create_future()
        self.waiting.append((transition, shown))
        task = asyncio.create_task(self._tell())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return shown

    async def _tell(self) -> None:
        async with self._submitted:
            self._submitted.notify_all()


def handlers(stage: Stage) -> list[Callable[..., Any]]:
    """One handler for each effect, each of which says that it was called."""

    def declared(effect: Any) -> Callable[..., Any]:
        async def call(context: StepContext) -> Any:
            await stage._enter(context)
            return context.step_path

        call.__name__ = effect
        return handler(effect, effect=effect)(call)

    return [declared(effect) for effect in ("none", "idempotent", "external")]


async def settled() -> None:
    """Let all happen that is ready to."""
    for _ in range(50):
        await asyncio.sleep(0)


STEPS = (step("first", "idempotent"), step("a", "none"), step("b", "none"))


@pytest.mark.parametrize(
    "last",
    [step("last", "idempotent"), step("last", "external"), step("last", "none", delivery="AT_MOST_ONCE")],
    ids=["idempotent", "external", "none, at most once"],
)
async def test_only_steps_without_effect_begin_before_the_commits_that_they_depend_on(
    serve: Serve, stage: Stage, last: dict[str, Any]
) -> None:
    held = Held()
    served = await serve(handlers(stage), wrap=held.wrap)
    workflow = await made(served.client, *STEPS, last)
    execution = await served.client.execute(workflow)
    # The ends of three steps, of which the last begins the next one.
    await held.submitted(3)
    await settled()
    assert stage.calls == [("first", 1), ("a", 1), ("b", 1)]
    seen = await served.client.get_execution(execution.execution_id)
    assert seen.last_seq == execution.last_seq, "nothing of it is told before it is committed"
    held.let_through()
    found = kinds(await log(served.client, execution.execution_id))
    assert stage.attempts("last") == [1]
    order = ["step_completed a", "step_started b", "step_completed b", "step_started last", "step_completed last"]
    assert [kind for kind in found if kind in order] == order


async def test_what_was_not_committed_happens_again_without_a_trace(serve: Serve, stage: Stage) -> None:
    held = Held()
    served = await serve(handlers(stage), wrap=held.wrap)
    execution = await served.client.execute(await made(served.client, step("first", "none"), *STEPS[1:]))
    await held.submitted(3)
    held.lose()
    found = kinds(await log(served.client, execution.execution_id))
    assert stage.attempts("a") == stage.attempts("b") == [1, 1]
    assert (found.count("step_started a"), found.count("step_started b"), found.count("step_retrying b")) == (1, 1, 0)
    assert found[-1] == "finished"


async def test_what_a_step_emits_is_not_seen_before_the_commit_of_its_start(serve: Serve, stage: Stage) -> None:
    @handler("talks", effect="none")
    async def talks(context: StepContext) -> None:
        await stage._enter(context)
        context.emit("one")
        await asyncio.sleep(0)
        context.emit(" two")

    held = Held()
    held.is_open = True
    served = await serve([*stage.handlers(), talks], wrap=held.wrap)
    steps = step("first", "gate"), step("talks", "talks"), step("last", "gate", name="last")
    execution = await served.client.execute(await made(served.client, *steps))
    seen: list[Any] = []
    is_watching = asyncio.Event()

    async def watch() -> None:
        async for response in served.client.watch_responses(execution.execution_id):
            is_watching.set()
            seen.append(response)
            if response.HasField("output"):
                stage.open("last")

    watching = asyncio.create_task(watch())
    async with asyncio.timeout(PATIENCE):
        await is_watching.wait()
        await stage.called("first")
        held.is_open = False
        stage.open("gate")
        await held.submitted(2)  # the start of the step that talks, and its end
        held.let_through()
        await watching
    assert "".join(each.output.text for each in seen if each.HasField("output")) == "one two"
    found = ["output" if each.HasField("output") else kinds(each.events.events) for each in seen]
    assert "step_started talks" in str(found[: found.index("output")])


async def test_a_long_run_of_such_steps_does_not_get_far_ahead_of_the_store(serve: Serve, stage: Stage) -> None:
    held = Held()
    served = await serve(handlers(stage), wrap=held.wrap)
    steps = [step(f"s{number}", "none") for number in range(60)]
    execution = await served.client.execute(await made(served.client, *steps))
    await held.submitted(10)
    await settled()
    assert 10 <= len(stage.calls) < 30
    held.let_through()
    assert kinds(await log(served.client, execution.execution_id))[-1] == "finished"
