"""Workflows and handlers, wire to domain and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import Struct, Value

from flowkeep import payload
from flowkeep.definition import definition as to_definition
from flowkeep.definition import short_name
from flowkeep.v1.handler_pb2 import Handler as HandlerMessage
from flowkeep.v1.workflow_pb2 import Workflow as WorkflowMessage
from flowkeep.v1.workflow_pb2 import WorkflowDefinition
from flowkeep.v1.workflow_service_pb2 import ApplyWorkflowsResponse, ValidateWorkflowResponse
from persistence.model import Applied, Execution, Outcome, Workflow
from service.api.payloads import filled_struct, filled_value, is_small
from service.api.times import seconds, timestamp, wrong_span
from service.engine.definition import Definition
from service.engine.kept import Kept
from service.engine.slices import Work, in_slices
from service.engine.violations import DefinitionWarning, ValidationError, Violation
from service.engine.workers.known import Shown

KEPT_BYTES = 4 << 20
"""What the definitions take that executions were shown with last."""

_BYTES_A_MICROSECOND = 8
_STEP = 50


def document(message: WorkflowDefinition) -> Work[dict[str, Any]]:
    """Return a definition as the canonical JSON that is parsed and stored: short enum names, seconds, no defaults.

    Raises ValidationError for spans of time that none are.
    """
    yield _STEP * len(message.steps)
    if found := [Violation(path, wrong) for path, span in _spans(message, "") if (wrong := wrong_span(span))]:
        raise ValidationError(found)
    return (yield from _object(message))


def documents(messages: Iterable[WorkflowDefinition]) -> Work[list[dict[str, Any]]]:
    """Return definitions as `document` does. Raises ValidationError, by fields such as `definitions[3].timeout`."""
    made, found = list[dict[str, Any]](), list[Violation]()
    for index, message in enumerate(messages):
        try:
            made.append((yield from document(message)))
        except ValidationError as error:
            found += (each.under(f"definitions[{index}].{each.field}") for each in error.violations)
    if found:
        raise ValidationError(found)
    return made


def _spans(message: Message, path: str) -> Iterator[tuple[str, Duration]]:
    for field, value in message.ListFields():
        name = f"{path}.{field.name}" if path else field.name
        if isinstance(value, Duration):
            yield name, value
        elif isinstance(value, Message) and not isinstance(value, Struct | Value):
            yield from _spans(value, name)
        elif field.is_repeated and field.message_type and not field.message_type.GetOptions().map_entry:
            for index, item in enumerate(value):
                yield from _spans(item, f"{name}[{index}]")


def _object(message: Message) -> Work[dict[str, Any]]:
    found = {}
    for field, value in message.ListFields():
        if not _is_minus_zero(field, value):
            found[field.name] = yield from _field(field, value)
    return found


def _is_minus_zero(field: FieldDescriptor, value: Any) -> bool:
    """Whether it is the -0.0 of a field that is there unless it is 0: kept it is 0, and would not be there."""
    return field.type == FieldDescriptor.TYPE_DOUBLE and not field.has_presence and value == 0


def _field(field: FieldDescriptor, value: Any) -> Work[Any]:
    yield 5
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return dict(value)
    if not field.is_repeated:
        return (yield from _single(field, value))
    items = []
    for item in value:
        items.append((yield from _single(field, item)))
    return items


def _single(field: FieldDescriptor, value: Any) -> Work[Any]:
    match value:
        case Duration():
            return seconds(value)
        case Struct():
            yield value.ByteSize() // _BYTES_A_MICROSECOND
            return payload.from_struct(value)
        case Value():
            yield value.ByteSize() // _BYTES_A_MICROSECOND
            return payload.from_value(value)
        case Message():
            return (yield from _object(value))
        case float():
            return value + 0.0  # -0.0 is 0
    return short_name(field.enum_type, value) if field.enum_type else value


def definition_message(stored: Mapping[str, Any]) -> Work[WorkflowDefinition]:
    """Return the message of a stored definition. Raises DefinitionError."""
    steps = stored.get("steps")
    if not isinstance(steps, list):
        return to_definition(stored)
    message = to_definition({**_without(stored, "input_schema", "output"), "steps": []})
    yield from _fill(message, stored, "input_schema", "output")
    yield from _fill_steps(message.steps, steps)
    return message


class EncodedDefinitions:
    """Serialized definitions of executions: to make one takes longer than the rest of an answer with it."""

    def __init__(self) -> None:
        self._kept: Kept[tuple[UUID, int], bytes] = Kept(KEPT_BYTES)

    async def of(self, execution: Execution, definition: Definition) -> bytes:
        """Return the definition that an execution runs. Raises DefinitionError."""
        key = execution.workflow_id, execution.revision
        encoded = self._kept.get(key)
        if encoded is None:
            encoded = (await in_slices(definition_message(definition.document))).SerializeToString()
            self._kept.put(key, encoded, len(encoded))
        return encoded


def _fill_steps(messages: Any, steps: Iterable[Any]) -> Work[None]:
    for step in steps:
        yield _STEP
        body = step.get("for_each") if isinstance(step, dict) else None
        inner = body.get("steps") if isinstance(body, dict) else None
        bare = _without(step, "params")
        if isinstance(inner, list):
            bare = {**bare, "for_each": {**_without(body, "output"), "steps": []}}
        messages.extend(to_definition({"steps": [bare]}).steps)
        yield from _fill(messages[-1], step, "params")
        if isinstance(inner, list):
            yield from _fill(messages[-1].for_each, body, "output")
            yield from _fill_steps(messages[-1].for_each.steps, inner)


def _without(stored: Any, *names: str) -> Any:
    """Return an object without these payloads, as far as they are large ones."""
    if not isinstance(stored, dict):
        return stored
    return {name: value for name, value in stored.items() if name not in names or not _is_large(name, value)}


def _fill(message: Message, stored: Any, *names: str) -> Work[None]:
    """Fill in the large ones of these payloads."""
    for name in names:
        if isinstance(stored, dict) and _is_large(name, stored.get(name)):
            target = getattr(message, name)
            yield from (filled_value if isinstance(target, Value) else filled_struct)(target, stored[name])


def _is_large(name: str, value: Any) -> bool:
    """Return whether a payload is large. One of the wrong kind is not: there is no message of it."""
    return isinstance(value, dict | list if name == "output" else dict) and not is_small(value)


def workflow_message(workflow: Workflow, *, full: bool) -> Work[WorkflowMessage]:
    """Return the message of a workflow, with its definition if `full`. What cannot be read is left out, and named."""
    message = bare_message(workflow)
    if full and "document" not in workflow.unreadable:
        try:
            message.definition.CopyFrom((yield from definition_message(workflow.document)))
        except ValueError:  # an object, but no definition
            message.unreadable.append("document")
    return message


def bare_message(workflow: Workflow) -> WorkflowMessage:
    """Return the message of a workflow without its definition."""
    message = WorkflowMessage(
        workflow_id=str(workflow.id),
        name=workflow.name,
        revision=workflow.revision,
        etag=workflow.etag,
        create_time=None if "create_time" in workflow.unreadable else timestamp(workflow.create_time),
        update_time=None if "update_time" in workflow.unreadable else timestamp(workflow.update_time),
        updated_by=workflow.updated_by,
        unreadable=workflow.unreadable,
    )
    if (pause := workflow.pause) is not None:
        message.pause.pause_id, message.pause.paused_by, message.pause.reason = str(pause.id), pause.by, pause.reason
        message.pause.pause_time.CopyFrom(timestamp(pause.time))
        message.pause.running_paused = pause.pauses_running
    return message


def result_message(applied: Applied, *, kept: bool) -> ApplyWorkflowsResponse.Result:
    """Return what became of a definition; of what was not kept, without what it has only then."""
    workflow = bare_message(applied.workflow)
    if not kept and applied.outcome is not Outcome.UNCHANGED:
        workflow.ClearField("etag")
    if not kept and applied.outcome is Outcome.CREATED:
        workflow.ClearField("workflow_id")
    outcome = ApplyWorkflowsResponse.Outcome.Value(f"OUTCOME_{applied.outcome}")
    return ApplyWorkflowsResponse.Result(workflow=workflow, outcome=outcome)


def violation_messages(violations: Iterable[Violation]) -> list[ValidateWorkflowResponse.Violation]:
    """Return violations as messages."""
    kind = ValidateWorkflowResponse.Violation
    return [kind(field=each.field, description=each.description) for each in violations]


def warning_messages(warnings: Iterable[DefinitionWarning], place: str = "") -> list[ValidateWorkflowResponse.Warning]:
    """Return warnings of a definition that stands at `place`, as messages."""
    kind = ValidateWorkflowResponse.Warning
    return [
        kind(
            field=f"{place}.{each.field}" if place else each.field,
            code=kind.Code.Value(f"CODE_{each.code}"),
            description=each.description,
        )
        for each in warnings
    ]


def handler_message(shown: Shown) -> HandlerMessage:
    """Return the message of a handler."""
    handler = shown.handler
    return HandlerMessage(
        name=handler.name,
        description=handler.description,
        params_schema=payload.to_struct(handler.params_schema),
        effect=HandlerMessage.Effect.Value(f"EFFECT_{handler.effect.name}"),
        is_remote=handler.is_remote,
        worker_count=shown.workers,
    )
