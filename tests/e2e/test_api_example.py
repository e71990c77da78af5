"""The example of an API in pages: `flowkeep run` fetches a token and the pages, and uploads a file."""

from __future__ import annotations

import json
from base64 import b64encode

from tests.e2e.process import flowkeep
from tests.folders import ROOT
from tests.integration.web import Web, serving_web

EXAMPLE = ROOT / "clients" / "examples" / "paged_api.yaml"
SECRETS = {"development": {"shop_secret": "SHOP_SECRET"}}


def answer(web: Web, path: str, **body: object) -> None:
    """Answer calls of a path with JSON."""
    web.answer(path, 200, json.dumps(body), Content_Type="application/json")


async def test_report_of_orders() -> None:
    with serving_web() as web:
        answer(web, "/token", access_token="abc", token_type="Bearer", expires_in=60)
        answer(web, "/orders", orders=[{"id": 1}, {"id": 2}], next="/more")
        answer(web, "/more", orders=[{"id": 3}], next=None)
        web.answer("/reports", 307, Location="/reports/new")
        web.answer("/reports/new", 201)
        given = ("--set", f"shop={web.url}", "--set", "client=reports")
        settings = {"SHOP_SECRET": "geheim", "FLOWKEEP_SECRETS_ENVIRONMENT": json.dumps(SECRETS)}
        outcome = await flowkeep("run", str(EXAMPLE), *given, "-o", "json", settings=settings)
        assert outcome.code == 0, outcome
        assert outcome.json_lines[-1]["finished"]["result"] == {"orders": 3, "pages": 2, "status": 201}
        calls = [(each.method, each.path, each.headers.get("authorization", "")[:6]) for each in web.calls]
        assert web.calls[0].headers["authorization"] == f"Basic {b64encode(b'reports:geheim').decode()}"
        assert calls == [
            ("POST", "/token", "Basic "),
            ("GET", "/orders", "Bearer"),
            ("GET", "/more", "Bearer"),
            ("POST", "/reports", ""),
            ("POST", "/reports/new", ""),
        ]
        assert b'filename="report.csv"\r\nContent-Type: text/csv\r\n\r\norders,3\r\n' in web.calls[-1].body
