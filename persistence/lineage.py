"""Where an execution comes from that was made from another one."""

from __future__ import annotations

from uuid import UUID

import msgspec


class Lineage(msgspec.Struct, frozen=True, omit_defaults=True):
    """The execution `source` as it was after its event `seq`, and the step from which the new one began.

    `step_path` is empty where that was the beginning. The events up to `inherited` tell what was copied or given. The
    source may have been removed since: nothing of the new execution refers to it.
    """

    source: UUID
    seq: int
    step_path: str = ""
    step_iteration: int = 0
    inherited: int = 0
