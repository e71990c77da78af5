"""Parsed definitions: each revision is one object while anybody holds it, and none for nobody."""

from __future__ import annotations

import asyncio
import gc
from typing import Any
from weakref import ref

import pytest

from persistence.memory import MemoryRepository
from persistence.model import Execution, Scope
from service.engine import workflows
from service.engine.handlers.registry import Registry
from service.engine.handlers.wait import wait
from service.engine.parsing import Defaults
from service.engine.workflows import Workflows
from tests.conformance.builders import execution

DOCUMENT: dict[str, Any] = {"name": "w", "steps": [{"id": "a", "handler": "wait", "params": {"duration": 1}}]}


@pytest.fixture
def kept_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing fits into what is kept of parsed definitions."""
    monkeypatch.setattr(workflows, "KEPT_BYTES", 0)


async def made() -> tuple[Workflows, Execution]:
    """Return workflows, of another process than the one that created the only one, and an execution of that."""
    repository, registry, defaults = MemoryRepository(), Registry([wait()]), Defaults()
    workflow = await Workflows(repository, registry, defaults).create("", DOCUMENT, "ada")
    return Workflows(repository, registry, defaults), execution(workflow)


@pytest.mark.usefixtures("kept_bytes")
async def test_executions_of_one_revision_share_what_it_means_though_it_is_not_kept() -> None:
    known, one = await made()
    first, (_, at_once) = await asyncio.gather(known.of(one), known.resolve(Scope(one.org), "w", 1))
    assert first is at_once
    assert await known.of(one) is first


@pytest.mark.usefixtures("kept_bytes")
async def test_what_nobody_holds_and_what_is_not_kept_is_gone() -> None:
    known, one = await made()
    gone = ref(await known.of(one))
    await asyncio.sleep(0)  # the loop lets go of the read's own result
    gc.collect()
    assert gone() is None
    assert (await known.of(one)).name == "w"
