"""What tells executions and steps from each other."""

from __future__ import annotations

from uuid import UUID, uuid5

from service.engine.ids import idempotency_token


def test_each_iteration_of_a_step_has_a_token_of_its_own():
    """ST5. That of the first is the one that a step had before there were iterations."""
    one, other = UUID(int=1), UUID(int=2)
    asked = [(one, "a", 1), (one, "a", 2), (one, "a", 12), (one, "b", 1), (other, "a", 1)]
    assert len({idempotency_token(*each) for each in asked}) == len(asked)
    assert idempotency_token(one, "a", 2) == idempotency_token(one, "a", 2)
    for path in ("a", "for_each[12].ä", "x" * 500):
        assert idempotency_token(one, path, 1) == str(uuid5(one, path))
