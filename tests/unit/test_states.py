"""The states of the protos are those of the stores."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import pytest

from flowkeep.v1.execution_pb2 import Execution, StepExecution
from flowkeep.watch import ENDED
from persistence.model import FINAL_STATES, ExecutionState, StepState


@pytest.mark.parametrize(("wire", "kept"), [(Execution.State, ExecutionState), (StepExecution.State, StepState)])
def test_each_state_has_its_number(wire: Any, kept: type[StrEnum]) -> None:
    names = [name.removeprefix("STATE_") for name, _ in wire.items()]
    assert names[0] == "UNSPECIFIED"
    assert sorted(names[1:]) == sorted(kept)


def test_the_ends_are_the_same() -> None:
    assert {Execution.State.Name(state).removeprefix("STATE_") for state in ENDED} == FINAL_STATES


def test_what_is_being_undone_has_not_ended() -> None:
    assert not ExecutionState.COMPENSATING.is_end
