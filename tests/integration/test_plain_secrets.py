"""A credential in plain text is taken with a warning, which tells where it stands and never what it is."""

from __future__ import annotations

import logging

import pytest

from tests.integration.conftest import Serve
from tests.integration.stage import step

VALUE = "sk-3f9b7c51-geheim"
FIELD = "steps[0].params.auth.bearer"


async def test_each_call_that_takes_a_definition_warns_of_it(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    client = (await serve()).client
    call = step("call", "call_api", url="https://example.com", auth={"bearer": VALUE})
    definition = {"name": "w", "steps": [call]}
    checked = await client.validate_workflow(definition)
    with caplog.at_level(logging.WARNING, "flowkeep"):
        await client.create_workflow(definition)
        await client.update_workflow("w", {**definition, "description": "Other."})
    applied = await client.apply([{"name": "v", "steps": [step("a")]}, definition])

    assert checked == []
    assert [(each.field, each.code) for each in checked.warnings] == [(FIELD, "PLAIN_SECRET")]
    assert [each.field for each in applied.warnings] == [f"definitions[1].{FIELD}"]
    logged = [each.getMessage().partition(" is a ")[0] for each in caplog.records if each.name == "flowkeep"]
    assert logged == [f"workflow w: {FIELD}:"] * 2
    assert "${ secret('name') }" in str(checked.warnings)
    assert VALUE not in f"{checked.warnings} {applied.warnings} {caplog.text}"
