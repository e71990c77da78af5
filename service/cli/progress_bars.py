"""The progress of an execution as live bars on a terminal."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flowkeep.v1.event_pb2 import ExecutionEvent
from flowkeep.v1.execution_service_pb2 import StepOutput
from service.cli.failures import cause_code
from service.cli.progress_state import ENDED_STEPS, Progress, StepProgress
from service.cli.rendering import clean, one_line, plain, span_text, state_text

_BAR_WIDTH = 20
_LONGEST_NAME = 40
_REFRESHES_PER_SECOND = 10
# Lines of the terminal that are no steps: the head, the count of hidden steps, and the prompt.
_OTHER_LINES = 5
_SIGNS = {
    "COMPLETED": ("✔", "green"),
    "FAILED": ("✖", "bold red"),
    "SKIPPED": ("○", "dim"),
    "CANCELLED": ("■", "yellow"),
    "COMPENSATED": ("↩", "yellow"),
    "WAITING": ("◔", "cyan"),
}


class Bars:
    """A bar for each step and one for the execution, redrawn in place until the context is left."""

    def __init__(self, console: Console, progress: Progress) -> None:
        self._console = console
        self._progress = progress
        self._spinner = Spinner("dots", style="blue")
        # Live draws in a thread of its own, so that bars move while events do not come or the event loop is busy.
        self._live = Live(
            get_renderable=self.render, console=console, refresh_per_second=_REFRESHES_PER_SECOND, transient=False
        )

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show(self, event: ExecutionEvent, progress: Progress) -> None:
        """Let the next redraw show the event; there may be many between two."""

    def show_output(self, output: StepOutput, progress: Progress) -> None:
        """Let the next redraw show its last line."""

    def render(self) -> RenderableType:
        """Return the picture of this moment."""
        now = time.time()
        steps = tuple(self._progress.steps)  # the other thread may add some meanwhile
        shown = visible_steps(steps, max(3, self._console.height - _OTHER_LINES))
        # Not to the last column: what the terminal shows of Ctrl-C must not begin a line that is not ours.
        table = Table.grid(padding=(0, 1))
        table.width = max(_BAR_WIDTH, self._console.width - len("^C") - 1)
        table.add_column(width=1)
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=_LONGEST_NAME)
        table.add_column(width=_BAR_WIDTH)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)  # what room is left
        for step in shown:
            table.add_row(*self._row(step, now))
        return Group(_head(self._progress, now), table, *_hidden(steps, shown))

    def _row(self, step: StepProgress, now: float) -> tuple[RenderableType, ...]:
        sign: RenderableType = Text(*_SIGNS.get(step.state, (" ", "")))
        if step.state == "RUNNING":
            sign = self._spinner
        end = step.ended or (None if step.state in ENDED_STEPS else now)
        took = span_text(max(0.0, end - step.started)) if step.started and end else ""
        attempt = f"attempt {step.attempt}" if step.attempt > 1 else ""
        return sign, plain(step.name), _bar(step), Text(attempt, "dim"), Text(took, "dim"), self._note(step, now)

    def _note(self, step: StepProgress, now: float) -> Text:
        finished = self._progress.finished
        if finished is not None and finished.failure.step_path == step.path:
            return plain(cause_code(finished.failure), "red")  # below it is said in full
        wait = f"for {span_text(max(0.0, step.wakes - now))}" if step.wakes else ""
        said = one_line("  ".join(filter(None, (wait, step.note))))
        return plain(said, "red" if step.state == "FAILED" else "dim")


def visible_steps(steps: Sequence[StepProgress], room: int) -> list[StepProgress]:
    """Return the steps to show in the room there is: what moves or failed, then what is next and what just ended."""
    if len(steps) <= room:
        return list(steps)
    active = [step for step in steps if step.state in ("RUNNING", "WAITING", "FAILED")]
    pending = [step for step in steps if step.state == "PENDING"]
    ended = [step for step in steps if step.state in ENDED_STEPS - {"FAILED"}]
    ended.sort(key=lambda step: step.ended or 0.0, reverse=True)
    rest = max(0, room - len(active))
    following = pending[: max(rest - len(ended), rest // 2)]
    chosen = [*active, *following, *ended[: rest - len(following)]][:room]
    return [step for step in steps if any(step is each for each in chosen)]


def _head(progress: Progress, now: float) -> RenderableType:
    counts = progress.counts
    done = counts.completed + counts.failed + counts.skipped + counts.cancelled
    title = Text.assemble((clean(progress.title), "bold"), "  ", (clean(progress.execution_id), "dim"))
    elapsed = span_text(max(0.0, (progress.ended or now) - progress.started)) if progress.started else ""
    line = Table.grid(padding=(0, 1))
    # Of what ended early nothing is to come: a bar would look as if something were.
    ended_early = progress.finished is not None and progress.state != "COMPLETED"
    share = f"{counts.completed}/{counts.total} steps completed" if ended_early else f"{done}/{counts.total} steps"
    bar = () if ended_early else (ProgressBar(100, progress.percent, width=2 * _BAR_WIDTH), f"{progress.percent} %")
    line.add_row(state_text(progress.state), *bar, Text(share, "dim"), Text(elapsed, "dim"))
    return Group(title, line)


def _bar(step: StepProgress) -> RenderableType:
    match step.state:
        case "RUNNING" if step.percent is None:
            return ProgressBar(pulse=True, width=_BAR_WIDTH)
        case "RUNNING":
            return ProgressBar(100, step.percent or 0, width=_BAR_WIDTH)
        case "COMPLETED":
            return ProgressBar(100, 100, width=_BAR_WIDTH)
        case state:
            return state_text(state.lower() if state == "PENDING" else state)


def _hidden(steps: Sequence[StepProgress], shown: Sequence[StepProgress]) -> list[Text]:
    number = len(steps) - len(shown)
    if not number:
        return []
    counts = Counter(step.state for step in steps) - Counter(step.state for step in shown)
    return [
        Text(f"… {number} more: " + ", ".join(f"{count} {state.lower()}" for state, count in counts.items()), "dim")
    ]
