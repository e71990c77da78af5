"""Dry runs: what has to be given that stands in the place of steps, so that nothing is sent outside."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from persistence.dry_runs import DryRun, Mock
from service.engine.debugging import named, no_step
from service.engine.definition import Ask, Call, Definition, Repeat, StepSpec
from service.engine.handlers.registry import Registry
from service.engine.payload import MAX_COLLECTED_BYTES, normalising, size
from service.engine.slices import Work
from service.engine.violations import ValidationError, Violation

MOCKS, HANDLERS, DEFAULT = "dry_run.mocks", "dry_run.handlers", "dry_run.default_mock"
"""The fields of a request that hold mocks."""

_LOOK = 2  # microseconds for a step or a mock
_BYTES_A_MICROSECOND = 50


def of_name(field: str, name: str) -> str:
    """Return the path of the mock that a field has by a name."""
    return f'{field}["{name}"]'


def normal(given: DryRun) -> Work[DryRun]:
    """Return mocks as they can be kept. Raises ValidationError."""
    mocks = yield from _normal_all(given.mocks, MOCKS)
    handlers = yield from _normal_all(given.handlers, HANDLERS)
    default = None if given.default is None else (yield from _normal(given.default, DEFAULT))
    found = replace(given, mocks=mocks, handlers=handlers, default=default)
    total = size(found)
    yield total // _BYTES_A_MICROSECOND
    if total > MAX_COLLECTED_BYTES:
        wrong = f"its mocks come to {total:,} bytes as JSON; they may to {MAX_COLLECTED_BYTES:,}"
        raise ValidationError([Violation("dry_run", wrong)])
    return found


def _normal_all(given: Mapping[str, Mock], field: str) -> Work[Mapping[str, Mock]]:
    found = dict[str, Mock]()
    for name, mock in given.items():
        found[name] = yield from _normal(mock, of_name(field, name))
    return found


def _normal(mock: Mock, field: str) -> Work[Mock]:
    output = yield from normalising(mock.output, f"{field}.output")
    if mock.failure is None:
        return replace(mock, output=output)
    details = yield from normalising(dict(mock.failure.details), f"{field}.failure.details")
    return replace(mock, output=output, failure=replace(mock.failure, details=details))


def checking(definition: Definition, org: str, registry: Registry, asked: DryRun) -> Work[DryRun]:
    """Return how an execution runs of which this was asked.

    Raises ValidationError with all mocks that are of no step, and all steps that have none and may send something.
    """
    wrong = [*_wrong_paths(definition, asked.mocks), *_wrong_handlers(definition, asked.handlers)]
    yield _LOOK * (1 + len(asked.mocks) + len(asked.handlers))
    places = yield from _finding_defaulted(definition, org, registry, asked)
    for place in places if asked.default is None else ():
        spec = definition.places[place]
        needs = "asks people" if isinstance(spec.action, Ask) else f"calls {spec.handler!r}, which may send something"
        wrong.append(Violation(of_name(MOCKS, place), f"is required: the step {needs}; or give {DEFAULT}"))
    if asked.default is not None and any(isinstance(definition.places[place].action, Ask) for place in places):
        wrong += _wrong_times(asked.default, DEFAULT)
    if wrong:
        raise ValidationError(wrong)
    return replace(asked, defaulted=places)


def resolving(definition: Definition, org: str, registry: Registry, given: DryRun | None) -> Work[DryRun | None]:
    """Return how an execution runs by a definition, of which nothing is judged."""
    if given is None:
        return None
    return replace(given, defaulted=(yield from _finding_defaulted(definition, org, registry, given)))


def _finding_defaulted(definition: Definition, org: str, registry: Registry, given: DryRun) -> Work[tuple[str, ...]]:
    """Return the places of steps that may send something, by what this process knows of handlers, and have no own mock.

    So it is known from the beginning where the default stands, whichever process drives the execution.
    """
    places = list[str]()
    for place, spec in definition.places.items():
        if given.named(place, place, spec.handler) is None and _may_send(spec, org, registry):
            places.append(place)
        yield _LOOK
    return tuple(places)


def _may_send(spec: StepSpec, org: str, registry: Registry) -> bool:
    if not isinstance(spec.action, Call):
        return isinstance(spec.action, Ask)
    handler = registry.get(spec.handler, org)
    # Of workers each declares for itself what it does.
    return handler is None or not handler.is_unseen


def _wrong_paths(definition: Definition, mocks: Mapping[str, Mock]) -> Iterator[Violation]:
    for path, mock in mocks.items():
        spec = named(definition, path)
        if spec is None:
            yield no_step(definition, path, of_name(MOCKS, path))
        elif isinstance(spec.action, Repeat):
            wanted = f"runs other steps, and has no mock itself: name one of them, such as {path}.…"
            yield Violation(of_name(MOCKS, path), wanted)
        elif not isinstance(spec.action, Call):
            yield from _wrong_times(mock, of_name(MOCKS, path))


def _wrong_handlers(definition: Definition, mocks: Mapping[str, Mock]) -> Iterator[Violation]:
    actions = {spec.handler: spec.action for spec in definition.places.values()}
    for name, mock in mocks.items():
        action = actions.get(name)
        if action is None:
            told = f"no step of the workflow has the handler {name!r}"
            yield Violation(of_name(HANDLERS, name), told, f": {', '.join(sorted(actions))}")
        elif isinstance(action, Repeat):
            yield Violation(of_name(HANDLERS, name), "runs other steps, and has no mock itself: name their handlers")
        elif not isinstance(action, Call):
            yield from _wrong_times(mock, of_name(HANDLERS, name))


def _wrong_times(mock: Mock, field: str) -> Iterator[Violation]:
    if mock.failure is not None and mock.failure.times:
        wanted = "must be 0: the server runs the step itself, in one go and without attempts"
        yield Violation(f"{field}.failure.times", wanted)
