"""The call that runs one step by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict
from uuid import UUID

from typing_extensions import Unpack

from flowkeep.arguments import text, whole
from flowkeep.connection import Connection
from flowkeep.definition import definition as to_definition
from flowkeep.payload import Input, to_struct
from flowkeep.v1.step_test_pb2 import TestStepRequest, TestStepResponse

_SECONDS = 300.0


class TrialOptions(TypedDict, total=False):
    """What a step sees that runs by itself, over what the execution has, if one is named."""

    revision: int
    execution_id: str
    at_seq: int
    input: Input
    variables: Mapping[str, Any]
    outputs: Mapping[str, Any]
    items: Mapping[str, Any]
    params: Input


def trial_request(
    source: str | UUID | Mapping[str, Any], path: str, **options: Unpack[TrialOptions]
) -> TestStepRequest:
    """Return a request of TestStep.

    `source` is the name or id of a workflow, empty for that of the execution; or a written definition, which is not
    kept. Raises DefinitionError, PayloadError.
    """
    request = TestStepRequest(
        path=text("path", path),
        revision=whole("revision", options.get("revision", 0)),
        execution_id=text("execution_id", options.get("execution_id", "")),
        at_seq=whole("at_seq", options.get("at_seq", 0)),
    )
    if isinstance(source, Mapping):
        request.definition.CopyFrom(to_definition(source))
    elif source:
        request.workflow = text("source", source)
    for name in ("input", "params", "variables", "outputs", "items"):
        if name in options:
            getattr(request, name).CopyFrom(to_struct(options[name], name))
    return request


class TrialCalls(Connection):
    """What `Client` offers to try definitions."""

    async def test_step(
        self,
        source: str | UUID | Mapping[str, Any],
        path: str,
        *,
        timeout: float | None = None,
        **options: Unpack[TrialOptions],
    ) -> TestStepResponse:
        """Run one step by itself, and return what became of it and what would come next. Nothing is kept.

        `source` is a workflow, or a definition that is not kept; empty for that of the execution. The handler is really
        called, once; a call that met a broken connection is not made again. It may take `timeout` seconds, 300 by
        default. Raises NotFoundError, InvalidArgumentError, FailedPreconditionError (STEP_NOT_TESTED).
        """
        request = trial_request(source, path, **options)
        return await self._call(
            self._executions.TestStep,
            request,
            may_repeat=lambda _: False,
            timeout=timeout or max(self._timeout, _SECONDS),
        )
