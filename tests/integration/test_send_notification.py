"""`send_notification` in a workflow, by a server with settings."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

import yaml

from service.engine.ids import idempotency_token
from tests.folders import ROOT
from tests.integration.certificates import Authority
from tests.integration.conftest import Serve
from tests.integration.post_office import HOST, PASSWORD, USER, serving_mail
from tests.integration.stage import ended, made, step
from tests.integration.web import Web

EXAMPLE = yaml.safe_load((ROOT / "clients" / "examples" / "send_notification.yaml").read_text(encoding="utf-8"))


async def test_the_example_tells_all_four(serve: Serve, web: Web, base: Path) -> None:
    authority = Authority(base)
    async with serving_mail(authority.pair("mail")) as office:
        served = await serve(
            smtp_host=HOST,
            smtp_port=office.port,
            smtp_ca_file=authority.file,
            smtp_username=USER,
            smtp_password=PASSWORD,
            smtp_sender="Shop <shop@example.org>",
        )
        await served.client.apply([EXAMPLE])
        team, system = web.answer("/team", body="ok"), web.answer("/system", 202)
        given = {"order": "7", "customer": "Jörg <j@example.org>", "team_hook": team, "system_hook": system}
        given["clerk"] = "developer"
        execution = await served.client.execute("tell_of_delay", given, wait=True)
        result = await served.client.result(execution.execution_id)
        (shown,) = [each async for each in served.client.list_notifications()]
    message_id = f"<{idempotency_token(UUID(execution.execution_id), 'mail', 1)}@example.org>"
    assert result == {"message_id": message_id, "refused": []}
    assert (shown.title, shown.link) == ("Order 7 is late", "/orders/7")
    (taken,) = office.taken
    assert (taken.recipients, taken.message["Message-ID"]) == (["j@example.org"], message_id)
    assert taken.message["Subject"] == "Your order 7 is late"
    assert {each.path: json.loads(each.body) for each in web.calls} == {
        "/team": {"text": "Order 7 is late; 1 told."},
        "/system": {"order": "7", "message_id": message_id},
    }


async def test_a_header_in_an_input_is_refused_by_its_field(serve: Serve) -> None:
    async with serving_mail() as office:
        served = await serve(smtp_host=HOST, smtp_port=office.port, smtp_tls="none", smtp_sender="it@example.org")
        email = {"to": "ann@example.org", "subject": "${ input.subject }", "text": "x"}
        name = await made(served.client, step("mail", "send_notification", email=email))
        started = await served.client.execute(name, {"subject": "x\r\nBcc: mallory@example.org"})
        failed = (await ended(served.client, started.execution_id)).steps[0].failure
    assert failed.code == "INVALID_PARAMS"
    assert "email.subject: has a line end" in failed.message
    assert not office.taken
