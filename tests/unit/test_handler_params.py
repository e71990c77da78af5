"""What the parameters of declared functions take, and what becomes of it."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from typing import Annotated, Any, Literal, NamedTuple
from uuid import UUID

import pydantic
import pytest
from pydantic import Field
from typing_extensions import TypedDict

from flowkeep.handlers import StepContext, handler
from tests.unit.attempts import carried, run


class Colour(Enum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Lead(pydantic.BaseModel):
    name: str
    points: int = 0


class OpenLead(Lead):
    model_config = pydantic.ConfigDict(extra="ignore")


class Aliased(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(populate_by_name=True)

    class_: str = Field(alias="class")


@dataclass
class Point:
    x: int
    y: int = 0


class Pair(NamedTuple):
    left: int
    right: int = 2


class Shape(TypedDict):
    sides: int


class Side(typing.TypedDict):
    length: int
    name: typing.NotRequired[str]


class OldShape(typing.TypedDict, total=False):
    sides: typing.Required[list[Side]]
    area: float


TYPES = [
    (int, 3, 3),
    (float, 3, 3.0),
    (bool, True, True),
    (str, "a", "a"),
    (Decimal, 0.1, Decimal("0.1")),
    (Decimal, "12.50", Decimal("12.50")),
    (UUID, str(UUID(int=7)), UUID(int=7)),
    (datetime, "2026-01-31T09:00:00Z", datetime(2026, 1, 31, 9, tzinfo=UTC)),
    (date, "2026-01-31", date(2026, 1, 31)),
    (timedelta, "PT5M", timedelta(minutes=5)),
    (Colour, "red", Colour.RED),
    (Level, 3, Level.HIGH),
    (Literal["a", 2], 2, 2),
    (int | None, None, None),
    (int | str, "x", "x"),
    (list[int], [1, 2], [1, 2]),
    (tuple[int, str], [1, "a"], (1, "a")),
    (set[str], ["a"], {"a"}),
    (dict[str, list[int]], {"a": [1]}, {"a": [1]}),
    (Annotated[int, Field(ge=0)], 1, 1),
    (Lead, {"name": "x"}, Lead(name="x")),
    (Point, {"x": 1}, Point(1)),
    (Pair, [1], Pair(1)),
    (Shape, {"sides": 3}, {"sides": 3}),
    (Any, {"a": 1}, {"a": 1}),
    (OldShape, {"sides": [{"length": 1}]}, {"sides": [{"length": 1}]}),
    (list[Side], [{"length": 1, "name": "a"}], [{"length": 1, "name": "a"}]),
    (Side | None, None, None),
    (typing.Optional[Annotated[Side, "a note"]], {"length": 1}, {"length": 1}),  # noqa: UP045 - another form of it
    (dict[str, Side], {"a": {"length": 1}}, {"a": {"length": 1}}),
]


@pytest.mark.parametrize(("kind", "given", "got"), TYPES, ids=[str(kind) for kind, _, _ in TYPES])
async def test_a_param_becomes_an_argument_of_its_type(kind: Any, given: Any, got: Any) -> None:
    seen = []

    @handler("f")
    def function(first, other=1) -> None:
        seen.append(first)

    function.__annotations__["first"] = kind
    assert carried(function).validate({"first": given}) == []
    await run(function, {"first": given})
    assert seen == [got]
    assert type(seen[0]) is type(got)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (datetime, "2026-01-01T00:00:00", 'must be a time with a time zone, such as "2030-01-31T09:00:00Z"'),
        (datetime, "2026-01-01", 'must be a time with a time zone, such as "2030-01-31T09:00:00Z"'),
        (datetime | None, "2026-01-01 00:00", 'must be a time with a time zone, such as "2030-01-31T09:00:00Z"'),
        (date, "1.2.2026", 'must be a date such as "2030-01-31"'),
        (time, "09:00:00", 'must be a time of day with a time zone, such as "09:00:00Z"'),
        (timedelta, "5m", 'must be a duration of ISO 8601, such as "PT1H30M"'),
        (UUID, "7", "must be a UUID such as"),
    ],
)
def test_a_time_of_another_form_is_refused_with_the_right_one(kind: Any, given: str, message: str) -> None:
    @handler("f")
    def function(when) -> None: ...

    function.__annotations__["when"] = kind
    ((path, said),) = carried(function).validate({"when": given})
    assert path == "when"
    assert message in said


async def test_a_time_that_has_no_zone_by_its_type_is_taken_without() -> None:
    @handler("f")
    def function(when: pydantic.NaiveDatetime) -> bool:
        return when.tzinfo is None

    assert carried(function).validate({"when": "2026-01-01T00:00:00"}) == []
    assert await run(function, {"when": "2026-01-01T00:00:00"}) is True


async def test_defaults_made_for_each_call() -> None:
    @handler("f")
    def function(
        x: int,
        y: list[int] = Field(default_factory=list),  # noqa: B008 - as people write it for pydantic
        z: Annotated[list[int], Field(default_factory=lambda: [7])] = Field(max_length=2),  # noqa: B008
        from_: int = Field(default=5, alias="from", ge=0),
    ) -> list[Any]:
        y.append(x)
        return [x, y, z, from_]

    schema = carried(function).params_schema
    assert schema["required"] == ["x"]
    assert schema["properties"]["from"]["minimum"] == 0
    assert [await run(function, {"x": 1}) for _ in range(2)] == [[1, [1], [7], 5]] * 2
    assert await run(function, {"x": 1, "y": [0], "z": [], "from": 6}) == [1, [0, 1], [], 6]


def whole_model(lead: Lead) -> Any:
    return [lead.name, lead.points]


def whole_annotated(lead: Annotated[Lead, "all of it"]) -> Any:
    return [lead.name, lead.points]


def whole_dataclass(point: Point) -> Any:
    return dataclasses.astuple(point)


def whole_tuple(pair: Pair) -> Any:
    return pair


def whole_typed_dict(shape: Shape, context: StepContext | None = None) -> Any:
    return [shape["sides"], context is not None]


def whole_old_typed_dict(side: Side) -> Any:
    return side["length"]


@pytest.mark.parametrize(
    ("function", "params", "result"),
    [
        (whole_model, {"name": "x"}, ["x", 0]),
        (whole_annotated, {"name": "x", "points": 3}, ["x", 3]),
        (whole_dataclass, {"x": 1}, [1, 0]),
        (whole_tuple, {"left": 1}, [1, 2]),
        (whole_typed_dict, {"sides": 3}, [3, True]),
        (whole_old_typed_dict, {"length": 3}, 3),
    ],
)
async def test_a_single_parameter_takes_all_params(function: Any, params: Any, result: Any) -> None:
    declared = handler("f")(function)
    assert await run(declared, params) == result
    assert "is required" in [message for _, message in carried(declared).validate({})]
    problems = carried(declared).validate({**params, "nmae": 1})
    assert [path for path, message in problems if "is unknown" in message] == ["nmae"]


async def test_fields_that_are_not_known_are_refused_at_every_depth_unless_their_type_takes_them() -> None:
    @handler("f")
    def function(leads: list[Lead], point: Point, shape: Shape, ignoring: OpenLead, aliased: Aliased) -> Any:
        return aliased.class_

    params = {
        "leads": [{"name": "x", "a": 1}],
        "point": {"x": 1, "b": 1},
        "shape": {"sides": 3, "c": 1},
        "ignoring": {"name": "x", "d": 1},
        "aliased": {"class_": "by its name"},
    }
    assert [path for path, _ in carried(function).validate(params)] == ["leads[0].a", "point.b", "shape.c"]
    params |= {"leads": [], "point": {"x": 1}, "shape": {"sides": 3}}
    assert carried(function).validate(params) == []
    assert await run(function, params) == "by its name"


@pytest.mark.parametrize(
    "hint",
    ["StepContext", "typing.Optional[StepContext]", "Annotated[StepContext, 1]", "StepContext | None", "'StepContext'"],
)
async def test_the_context_is_given_however_it_is_annotated(hint: str) -> None:
    @handler("f")
    async def function(a: int, *, step=None) -> Any:
        return [a, step.attempt]

    function.__annotations__["step"] = hint
    assert list(carried(function).params_schema["properties"]) == ["a"]
    assert await run(function, {"a": 1}) == [1, 2]


def test_a_type_that_is_not_known_at_run_time_is_only_missed_where_it_is_needed() -> None:
    @handler("f")
    def function(a: int) -> NotThere:  # type: ignore[name-defined]  # noqa: F821
        return a

    assert carried(function).validate({"a": 1}) == []

    @handler("g")
    def needs(a: list[NotThere]) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(TypeError) as caught:
        carried(needs)
    for part in (f"{__file__}:", "handler 'g'", "parameter 'a'", "NotThere", "TYPE_CHECKING"):
        assert part in str(caught.value)


# --- what can be called


class Scorer:
    """Scores."""

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, points: int) -> int:
        return self.factor * points

    def twice(self, points: int) -> int:
        return 2 * self.factor * points

    async def later(self, points: int) -> int:
        return self(points)


class AsyncScorer(Scorer):
    async def __call__(self, points: int) -> int:  # type: ignore[override]
        return self.factor * points


def scaled(points: int, factor: int, connection: object = None) -> int:
    """Scales."""
    return points * factor


@pytest.mark.parametrize(
    ("function", "description"),
    [
        (Scorer(3), "Scores."),
        (AsyncScorer(3), ""),
        (Scorer(3).__call__, ""),
        (Scorer(3).later, ""),
        (functools.partial(scaled, factor=3, connection=object()), "Scales."),
        (functools.partial(Scorer(3)), "Scores."),
        (functools.partial(AsyncScorer(3)), ""),
        (functools.lru_cache(Scorer(3).__call__), ""),
        (staticmethod(Scorer(3)), "Scores."),
    ],
    ids=lambda case: type(case).__name__,
)
async def test_whatever_can_be_called_can_be_declared(function: Callable[..., Any], description: str) -> None:
    declared = handler("f")(function)
    assert carried(declared).description == description
    assert list(carried(declared).params_schema["properties"]) == ["points"]
    assert await run(declared, {"points": 2}) == 6


# --- what cannot be


class Ratio(pydantic.BaseModel):
    value: float = math.inf


Nested: Any = int
for _ in range(25):
    Nested = dict[str, Nested]


@dataclass
class Unfinished:
    value: NotThere  # type: ignore[name-defined]  # noqa: F821


def unfinished(a: Unfinished) -> None: ...
def unfinished_inside(a: list[Unfinished], b: int) -> None: ...


def default(value: Any, hint: Any = Any) -> Callable[..., Any]:
    def function(a=value) -> None: ...

    function.__annotations__["a"] = hint
    return function


def positional(a: int, /) -> None: ...
def star(*a: int) -> None: ...
def unresolved(a: NotThere) -> None: ...  # type: ignore[name-defined]  # noqa: F821
def called(a: Callable[[], int]) -> None: ...
def open_thing(**a: Scorer) -> None: ...
def unpacked(**a: typing.Unpack[Shape]) -> None: ...
def nested(a: list[dict[str, Scorer]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (positional, "cannot be given by name"),
        (star, "cannot be given by name"),
        (unresolved, "name 'NotThere' is not defined; import it outside of `if TYPE_CHECKING:`"),
        (unfinished, "name 'NotThere' is not defined; import it outside of `if TYPE_CHECKING:`"),
        (unfinished_inside, "name 'NotThere' is not defined; import it outside of `if TYPE_CHECKING:`"),
        (called, "no JSON form"),
        (open_thing, "no JSON form"),
        (nested, "no JSON form"),
        (unpacked, "take the typed dict itself as the only parameter"),
        (default(math.inf, float), "default must be a finite number"),
        (default(math.nan, float), "default must be a finite number"),
        (default(2**60, int), "default must be between"),
        (default(b"\xff", bytes), "bytes, cannot be written as JSON"),
        (default(object()), "object, cannot be written as JSON"),
        (default({"x": [math.nan]}), r"default x\[0\] must be a finite number"),
        (default("\0"), "NUL"),
        (default("\ud800"), "surrogate"),
        (default(Ratio(), Ratio), "value.default: must be a finite number"),
        (default(None, Ratio), "value.default: must be a finite number"),
        (default(None, Nested), "must be nested at most"),
    ],
)
def test_what_json_cannot_give_is_refused_by_name(function: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message) as caught:
        carried(handler("f")(function))
    for part in (f"{__file__}:", "handler 'f'", "parameter 'a'"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)
