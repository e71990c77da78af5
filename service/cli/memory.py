"""How often Python looks for garbage."""

from __future__ import annotations

import gc


def collect_rarely() -> None:
    """Look through new objects each 20,000, not each 700: loading a program, or serving, makes few that are garbage.

    It takes a tenth off the time of a start. More at a time would hold the loop: a flood of which all is in use takes
    a microsecond each where the machine is busy.
    """
    gc.set_threshold(20_000, 5, 1_000)
