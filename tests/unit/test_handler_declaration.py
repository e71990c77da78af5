"""What `@handler` takes, and that the package it is of needs nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from flowkeep.handlers import Effect, HandlerError, handler
from flowkeep.handlers.declaration import declarations


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": lambda: None}, 'the name by which steps call the function: @handler."name"'),
        ({"name": 7}, "name must be text, not int"),
        ({"name": ""}, "name must have 1 to 128 characters"),
        ({"name": "n" * 129}, "name must have 1 to 128 characters"),
        ({"name": "a\nb"}, "name must be printable"),
        ({"name": " a"}, "name must be printable"),
        ({"name": "\ud800"}, "name must not contain half"),
        ({"description": 7}, "handler 'f': description must be text"),
        ({"description": "\0"}, "handler 'f': description must not contain the character NUL"),
        ({"effect": "NONE"}, """handler 'f': effect must be "none", "idempotent" or "external", not 'NONE'"""),
        ({"effect": True}, """handler 'f': effect must be "none", "idempotent" or "external", not True"""),
        ({"effect": None}, """handler 'f': effect must be "none", "idempotent" or "external", not None"""),
    ],
)
def test_a_declaration_that_is_wrong_is_refused_where_it_is_made(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((TypeError, ValueError), match=message):
        handler(**{"name": "f", **arguments})


@pytest.mark.parametrize("effect", [*Effect, "none", "idempotent", "external"])
def test_an_effect_is_declared_by_its_name_or_its_member(effect: Any) -> None:
    declared = declarations(handler("f", effect=effect)(print))[-1]
    assert declared.effect is Effect(effect)


@pytest.mark.parametrize("thing", [7, "f", int, HandlerError])
def test_only_what_can_be_called_is_declared(thing: Any) -> None:
    with pytest.raises(TypeError, match=r"handler 'f': .* is no function"):
        handler("f")(thing)


def test_the_package_needs_nothing_but_python() -> None:
    theirs = "{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names - {'__main__'}"
    text = f"import sys, flowkeep.handlers; print(*{theirs})"
    command = [sys.executable, "-ISc", f"import sys; sys.path[:0] = {sys.path!r}; {text}"]
    done = subprocess.run(command, check=True, capture_output=True)
    assert (done.stdout.split(), done.stderr) == ([b"flowkeep"], b"")
