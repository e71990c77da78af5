"""Workers as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from flowkeep.v1.worker_service_pb2 import Worker
from service.cli.columns import FittingTable
from service.cli.rendering import plain, time_text


def workers_table(workers: Iterable[Worker]) -> FittingTable:
    """Return workers as rows, each with how much of its room is taken."""
    table = FittingTable(
        "NAME", "VERSION", "LABELS", "RUNNING", "HANDLERS", "SUBJECT", "SERVER", "HEARD OF",
        leave_out=("SUBJECT", "SERVER", "LABELS", "VERSION", "HEARD OF"),
        wraps="HANDLERS",
    )  # fmt: skip
    for worker in workers:
        running = f"{worker.running} of {worker.capacity}"
        table.add_row(
            plain(worker.name or worker.worker_id, "bold"),
            plain(worker.version),
            plain(", ".join(f"{key}={value}" for key, value in sorted(worker.labels.items()))),
            plain(f"{running}, draining", "yellow") if worker.is_draining else running,
            plain(", ".join(worker.handlers)),
            plain(worker.subject),
            plain(worker.server),
            time_text(worker.heartbeat_time),
        )
    return table


def attempts_table(workers: Iterable[Worker]) -> FittingTable:
    """Return the attempts that workers run as rows."""
    table = FittingTable("WORKER", "EXECUTION", "STEP", "ATTEMPT")
    for worker in workers:
        for each in worker.attempts:
            name = plain(worker.name or worker.worker_id)
            table.add_row(name, plain(each.execution_id), plain(each.step_path), str(each.attempt))
    return table
