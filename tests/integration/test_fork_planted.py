"""A bug planted in what forks are made by: the oracle must see it (FAULTS M30)."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest

from persistence.postgres.commit.sharing import Sharing
from persistence.postgres.shared_payloads import PayloadKey
from tests.conformance.journal import test_forks
from tests.integration.postgres_store import PostgresStore


class _OfAny(OrderedDict[PayloadKey, None]):
    """Takes a payload for kept that any execution has."""

    def __contains__(self, key: Any) -> bool:
        return any(digest == key[1] for _, digest in self)


@pytest.fixture
def m30(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fork shares a large payload with its original."""
    monkeypatch.setattr(Sharing, "__init__", lambda self: setattr(self, "known", _OfAny()))


@pytest.mark.usefixtures("m30")
async def test_m30_turns_its_oracle_red(store: PostgresStore):
    with pytest.raises(AssertionError):
        await test_forks.test_it_has_its_payloads_when_the_other_one_is_removed(store.repository, store)
