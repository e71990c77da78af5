"""What the docstring of a handler says of its parameters stands in its schema."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
from pydantic import Field

from flowkeep.handlers import handler
from flowkeep.typed.docstrings import parameter_texts
from tests.unit.attempts import carried

GOOGLE = """Sends it.

    Args:
        to (list[str], optional): Whom it goes to:
            each by name.
        text: What it says.
        **rest: More of it.

    Returns:
        nothing: of note
    """
NUMPY = """Sends it.

    Parameters
    ----------
    to : list of str, optional
        Whom it goes to:
        each by name.
    text
        What it says.
    **rest
        More of it.

    Returns
    -------
    nothing
        of note
    """
SPHINX = """Sends it.

    :param list[str] to: Whom it goes to:
        each by name.
    :type to: list
    :param text: What it says.
    :param rest: More of it.
    :returns: nothing
    """


@pytest.mark.parametrize("docstring", [GOOGLE, NUMPY, SPHINX], ids=["Google", "NumPy", "Sphinx"])
def test_each_form_is_read(docstring: str) -> None:
    said = {"to": "Whom it goes to: each by name.", "text": "What it says.", "rest": "More of it."}
    assert {name: text for name, text in parameter_texts(docstring).items() if name in said} == said


@pytest.mark.parametrize(
    "docstring", ["", "Args:", "Args:\n", "Parameters\n---", ":param", ":param x", "x: y\n\n    z: a"]
)
def test_what_says_nothing_of_parameters_gives_nothing(docstring: str) -> None:
    assert parameter_texts(docstring) == {}


def test_texts_stand_beside_types_and_defaults() -> None:
    @handler("send")
    def send(to: list[str], text: Annotated[str, Field(description="As the type says.")] = "x") -> None:
        """Send it.

        Args:
            to: Whom it goes to.
            text: As the docstring says.
            absent: Nobody.
        """

    schema: Any = carried(send).params_schema
    assert schema["properties"]["to"]["description"] == "Whom it goes to."
    assert schema["properties"]["text"]["description"] == "As the type says."
    assert schema["properties"].keys() == {"to", "text"}
