"""The handler `wait_signal`: lets a step wait for signals, which callers send by name."""

from __future__ import annotations

from service.engine import awaited_signals
from service.engine.definition import Listen
from service.engine.handlers.model import Effect, Handler


def wait_signal() -> Handler:
    """Return the handler."""
    return Handler(
        name=Listen.handler,
        description=(
            "Waits for a signal, which somebody sends the execution by its name: {name, payload, signal_id, sender,"
            " send_time, timed_out}. Of several it waits for the first, which it gives like that, or for one of each:"
            " {signals: {NAME: {payload, ...}}, missing, timed_out}.\n"
            "A signal that came before is taken at once, and each by one step only. Fails with SIGNAL_TIMEOUT when"
            " none comes in time and it is not to go on then, with SIGNAL_INVALID when one that came before does not"
            " meet its schema. Signals are sent by SignalExecution, or by `flowkeep signal`."
        ),
        params_schema=awaited_signals.PARAMS,
        effect=Effect.NONE,
        check=awaited_signals.check,
        compile=lambda params: Listen(params.template),
    )
