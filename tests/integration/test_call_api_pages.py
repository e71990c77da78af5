"""Lists that `call_api` fetches page by page from a real HTTP server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

import flowkeep
from service.engine.handlers.model import Handler
from tests.integration.stage import ended, made, step
from tests.integration.web import Web, call, failure, serving_web

PAGES = {"next": "body.next", "items": "body.items"}


@pytest.fixture
def other() -> Iterator[Web]:
    """Another origin."""
    with serving_web() as server:
        yield server


def paged(web: Web, path: str, items: Any, following: Any, **headers: str) -> str:
    """Answer with a page, and return its URL."""
    body = json.dumps({"items": items, "next": following})
    return web.answer(path, 200, body, Content_Type="application/json", **headers)


def listed(web: Web) -> str:
    """Answer with three pages, and return the URL of the first."""
    paged(web, "/3", [5], None, X_Last="yes")
    paged(web, "/2", [3, 4], web.url + "/3")
    return paged(web, "/1", [1, 2], "2?x=1")


async def test_items_of_all_pages_in_their_order(caller: Handler, web: Web) -> None:
    output = await call(caller, url=listed(web), pages=PAGES, response_headers=["X-Last"])
    assert output == {"status": 200, "headers": {"x-last": "yes"}, "items": [1, 2, 3, 4, 5], "pages": 3, "next": None}
    assert [each.path for each in web.calls] == ["/1", "/2?x=1", "/3"]


async def test_limit_ends_them_and_tells_where_to_go_on(caller: Handler, web: Web) -> None:
    output = await call(caller, url=listed(web), pages={**PAGES, "limit": 2})
    assert (output["items"], output["pages"], output["next"]) == ([1, 2, 3, 4], 2, f"{web.url}/3")
    output = await call(caller, url=output["next"], pages={**PAGES, "limit": 1})
    assert (output["items"], output["next"]) == ([5], None)


async def test_next_page_may_stand_in_a_header(caller: Handler, web: Web) -> None:
    """The header Link (RFC 8288) is seen also where it is not given."""
    following = (
        """has(headers.link) && headers.link.contains('>; rel="next"')"""
        """ ? headers.link.split('>; rel="next"')[0].substring("""
        """headers.link.split('>; rel="next"')[0].lastIndexOf('<') + 1) : ''"""
    )
    link = f'<{web.url}/0>; rel="prev", <{web.url}/b>; rel="next", <{web.url}/z>; rel="last"'
    web.answer("/b", body="[2]", Content_Type="application/json", Link=f'<{web.url}/a>; rel="prev"')
    url = web.answer("/a", body="[1]", Content_Type="application/json", Link=link)
    output = await call(caller, url=url, pages={"next": following, "items": "body"}, response_headers=[])
    assert (output["items"], output["pages"], output["headers"]) == ([1, 2], 2, {})


@pytest.mark.parametrize(
    "auth",
    [
        {"bearer": "geheim-1"},
        {"api_key": {"header": "X-Tool", "value": "geheim-1"}},
        {"api_key": {"query": "tool", "value": "geheim-1"}},
    ],
)
async def test_auth_is_sent_to_pages_of_the_first_origin_alone(
    caller: Handler, web: Web, other: Web, auth: dict[str, Any]
) -> None:
    """Nor does another origin lead back with it."""
    paged(web, "/4", [4], "")
    paged(other, "/3", [3], web.url + "/4")
    paged(web, "/2", [2], other.url + "/3")
    url = paged(web, "/1", [1], "/2")
    output = await call(caller, url=url, auth=auth, headers={"X-Session": "geheim-2"}, pages=PAGES)
    assert output["items"] == [1, 2, 3, 4]
    first, second, fourth = (f"{each.path} {each.headers}" for each in web.calls)
    (third,) = (f"{each.path} {each.headers}" for each in other.calls)
    assert [(each.count("geheim-1"), each.count("geheim-2")) for each in (first, second, third, fourth)] == [
        *((1, 1), (1, 1), (0, 0), (0, 0))
    ]


async def test_redirect_to_another_origin_ends_the_auth_of_pages_too(caller: Handler, web: Web, other: Web) -> None:
    given = json.dumps({"access_token": "geheim"})
    auth = {"oauth2": {"token_url": web.answer("/token", body=given), "client_id": "a", "client_secret": "b"}}
    paged(web, "/4", [4], None)
    paged(other, "/3", [3], web.url + "/4")
    paged(other, "/2", [2], "/3")
    web.answer("/moved", 302, Location=other.url + "/2")
    url = paged(web, "/1", [1], "/moved")
    output = await call(caller, url=url, auth=auth, redirects="any", pages=PAGES)
    assert output["items"] == [1, 2, 3, 4]
    shown = [(each.path, "authorization" in each.headers) for each in (*web.calls[1:], *other.calls)]
    assert shown == [("/1", True), ("/moved", True), ("/4", False), ("/2", False), ("/3", False)]


async def test_bytes_are_counted_over_all_pages(caller: Handler, web: Web) -> None:
    paged(web, "/2", ["x" * 400], None)
    url = paged(web, "/1", ["x" * 400], "/2")
    assert (await call(caller, url=url, pages=PAGES, max_response_bytes=1000))["pages"] == 2
    error = await failure(caller, url=url, pages=PAGES, max_response_bytes=800)
    assert (error.code, error.retryable, error.details["url"]) == ("RESPONSE_TOO_LARGE", False, f"{web.url}/2")


@pytest.mark.parametrize(
    ("pages", "code", "said"),
    [
        ({**PAGES, "items": "body.itemz"}, "EXPRESSION_ERROR", "pages.items: there is no body.itemz"),
        ({**PAGES, "items": "body"}, "EXPRESSION_ERROR", "pages.items: gives what is no list"),
        ({**PAGES, "next": "7"}, "EXPRESSION_ERROR", "pages.next: gives what is no text"),
        ({**PAGES, "next": "'ftp://host/'"}, "INVALID_RESPONSE", "pages.next gives what is no URL"),
        ({**PAGES, "next": "'/2'"}, "INVALID_RESPONSE", "fetched already"),
        ({**PAGES, "next": "nex"}, "INVALID_PARAMS", "pages.next: "),
    ],
)
async def test_what_the_expressions_give_is_judged(
    caller: Handler, web: Web, pages: dict[str, Any], code: str, said: str
) -> None:
    error = await failure(caller, url=listed(web), pages=pages)
    assert (error.code, error.retryable, said in error.message) == (code, False, True), error
    assert len(web.calls) <= 2


async def test_pages_that_lead_to_each_other_end(caller: Handler, web: Web) -> None:
    """Also where a key is added to their URLs."""
    paged(web, "/2", [2], "/1")
    more: list[dict[str, Any]] = [{}, {"auth": {"api_key": {"query": "tool", "value": "k"}}}]
    for params in more:
        web.calls.clear()
        error = await failure(caller, url=paged(web, "/1", [1], "/2"), pages=PAGES, **params)
        assert (error.code, "fetched already" in error.message) == ("INVALID_RESPONSE", True)
        assert len(web.calls) <= 4


async def test_items_that_no_output_can_hold_are_not_gathered(caller: Handler, web: Web) -> None:
    for number in range(9):
        paged(web, f"/{number}", ["x" * 100_000], f"/{number + 1}")
    error = await failure(caller, url=f"{web.url}/0", pages=PAGES, max_response_bytes=1 << 20)
    assert (error.code, error.retryable, len(web.calls)) == ("INVALID_OUTPUT", False, 3)


async def test_a_page_that_fails_fails_the_call(caller: Handler, web: Web) -> None:
    web.answer("/2", 503, Retry_After="7")
    error = await failure(caller, url=paged(web, "/1", [1], "/2"), pages=PAGES)
    assert (error.code, error.retry_after, error.details["url"]) == ("HTTP_STATUS_5XX", 7.0, f"{web.url}/2")


async def test_pages_of_a_workflow(client: flowkeep.Client, web: Web) -> None:
    name = await made(client, step("a", "call_api", url=listed(web), pages=PAGES))
    execution = await ended(client, (await client.execute(name)).execution_id)
    assert flowkeep.from_value(execution.steps[0].output)["items"] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("following", "said"),
    [("body.", "params.pages.next"), ("input.url", "input"), ("${ body.next }", "params.pages.next")],
)
async def test_cel_that_is_wrong_is_refused_with_the_workflow(
    client: flowkeep.Client, web: Web, following: str, said: str
) -> None:
    with pytest.raises(flowkeep.InvalidArgumentError, match=said):
        await made(client, step("a", "call_api", url=web.url, pages={**PAGES, "next": following}))


async def test_cel_about_an_answer_sees_no_item_of_the_loop_around(client: flowkeep.Client, web: Web) -> None:
    inside = step("a", "call_api", url=web.url, pages={**PAGES, "next": "item"})
    with pytest.raises(flowkeep.InvalidArgumentError, match="item"):
        await made(client, {"id": "all", "for_each": {"items": "[1]", "steps": [inside]}})
