"""`call_grpc` against real gRPC servers."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.engine.handlers.model import Handler
from tests.integration.callee import (
    GET,
    ORDERS,
    V1,
    V1ALPHA,
    WATCH,
    Callee,
    descriptor_set,
    rich,
    serving,
    serving_orders,
    to,
)
from tests.integration.web import CONTEXT, call, failure
from tests.patience import PATIENCE


async def test_message_goes_and_comes_by_the_json_mapping(grpc_caller: Handler, callee: Callee) -> None:
    message = {"order_id": "a", "number": "9007199254740993", "seal": "AAE=", "tags": [{"name": "é"}]}
    made = "2026-01-01T00:00:00Z"
    output = await call(grpc_caller, **to(callee, message={**message, "made": made}))
    given = {"orderId": "a", "number": "9007199254740993", "seal": "AAE=", "tags": [{"name": "é"}], "made": made}
    assert output == {"message": given, "metadata": {"x-cost": "7"}}
    assert callee.calls[0].message == given


async def test_fields_without_a_value_have_their_default(grpc_caller: Handler, callee: Callee) -> None:
    output = await call(grpc_caller, **to(callee))
    assert output["message"] == {"orderId": "", "number": "0", "seal": "", "tags": []}


async def test_st5_token_is_equal_over_attempts_and_the_attempt_is_sent_apart(
    grpc_caller: Handler, callee: Callee
) -> None:
    for attempt in (1, 2):
        await call(grpc_caller, replace(CONTEXT, attempt=attempt), **to(callee))
    assert [each.metadata["idempotency-key"] for each in callee.calls] == ["token-of-the-step"] * 2
    assert [each.metadata["x-flowkeep-attempt"] for each in callee.calls] == ["1", "2"]


async def test_metadata(grpc_caller: Handler, callee: Callee) -> None:
    metadata = {"Tenant": "acme", "trace-bin": b64encode(b"\0\xff").decode(), "depth": 3}
    await call(grpc_caller, **to(callee, metadata=metadata))
    seen = callee.calls[0].metadata
    assert (seen["tenant"], seen["trace-bin"], seen["depth"]) == ("acme", b"\0\xff", "3")


@pytest.mark.parametrize(("versions", "asked"), [((V1, V1ALPHA), [V1]), ((V1ALPHA,), [V1ALPHA]), ((V1,), [V1])])
async def test_reflection_of_either_version_is_asked_once(
    grpc_caller: Handler, versions: tuple[str, ...], asked: list[str]
) -> None:
    async with serving_orders(*versions) as callee:
        await asyncio.gather(*(call(grpc_caller, **to(callee)) for _ in range(5)))
        await call(grpc_caller, **to(callee, WATCH))
        assert callee.asked == asked


async def test_service_is_asked_again_for_a_method_that_it_had_not(grpc_caller: Handler, callee: Callee) -> None:
    for _ in range(2):
        await failure(grpc_caller, **to(callee, f"{ORDERS}/Later"))
    assert callee.asked == [V1, V1]


async def test_descriptor_set_stands_in_for_reflection(grpc_caller: Handler) -> None:
    async with serving_orders() as callee:
        error = await failure(grpc_caller, **to(callee))
        assert (error.code, error.retryable) == ("METHOD_NOT_FOUND", False)
        assert "descriptor_set" in error.message
        output = await call(grpc_caller, **to(callee, message={"number": 3}, descriptor_set=descriptor_set()))
        assert output["message"]["number"] == "3"


async def test_stream_is_gathered_and_shown_as_it_comes(grpc_caller: Handler, callee: Callee) -> None:
    shown: list[str] = []
    context = replace(CONTEXT, emitter=shown.append)
    output = await call(grpc_caller, context, **to(callee, WATCH, message={"number": 3}))
    assert [each["number"] for each in output["messages"]] == ["0", "1", "2"]
    assert output["complete"]
    assert [text.count('"number"') for text in shown] == [1, 1, 1]


async def test_stream_is_ended_at_max_messages(grpc_caller: Handler, callee: Callee) -> None:
    output = await call(grpc_caller, **to(callee, WATCH, message={"number": 2, "order_id": "hang"}, max_messages=2))
    assert (len(output["messages"]), output["complete"]) == (2, False)
    async with asyncio.timeout(PATIENCE):
        await callee.stopped.wait()


async def test_stream_that_fails_after_messages_fails(grpc_caller: Handler, callee: Callee) -> None:
    error = await failure(grpc_caller, **to(callee, WATCH, message={"number": 2, "order_id": "fail"}))
    assert (error.code, error.retryable) == ("GRPC_ABORTED", True)


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        ("CANCELLED", True),
        ("UNKNOWN", True),
        ("INVALID_ARGUMENT", False),
        ("DEADLINE_EXCEEDED", True),
        ("NOT_FOUND", False),
        ("ALREADY_EXISTS", False),
        ("PERMISSION_DENIED", False),
        ("RESOURCE_EXHAUSTED", True),
        ("FAILED_PRECONDITION", False),
        ("ABORTED", True),
        ("OUT_OF_RANGE", False),
        ("UNIMPLEMENTED", False),
        ("INTERNAL", True),
        ("UNAVAILABLE", True),
        ("DATA_LOSS", False),
        ("UNAUTHENTICATED", False),
    ],
)
async def test_status(grpc_caller: Handler, callee: Callee, status: str, retryable: bool) -> None:
    error = await failure(grpc_caller, **to(callee, message={"order_id": f"fail-{status}"}))
    assert (error.code, error.retryable) == (f"GRPC_{status}", retryable)
    assert error.details == {
        "method": GET,
        "target": callee.target,
        "status": status,
        "status_message": "it is so, token-of-ann",
    }


async def test_secret_metadata_is_told_nowhere(grpc_caller: Handler, callee: Callee) -> None:
    metadata = {"authorization": "Bearer token-of-ann"}
    error = await failure(grpc_caller, **to(callee, message={"order_id": "fail-NOT_FOUND"}, metadata=metadata))
    assert "it is so, ***" in error.message
    assert "token-of-ann" not in f"{error} {error.details}"


async def test_details_of_google_rpc_are_told_and_the_pause_is_kept(grpc_caller: Handler, callee: Callee) -> None:
    why = error_details_pb2.ErrorInfo(reason="BUSY", domain="shop", metadata={"zone": "a"})
    pause = error_details_pb2.RetryInfo(retry_delay=Duration(seconds=7, nanos=500_000_000))
    order = callee.order(order_id="a")

    async def get(request: Any, context: Any) -> Any:
        context.set_trailing_metadata(rich(grpc.StatusCode.UNAVAILABLE, "busy", (why, pause, order)))
        context.set_code(grpc.StatusCode.UNAVAILABLE)
        context.set_details("busy")
        return request

    handler = grpc.method_handlers_generic_handler(ORDERS, {"Get": grpc.unary_unary_rpc_method_handler(get)})
    async with serving(handler) as (target, _):
        params: dict[str, Any] = {"target": target, "tls": False, "method": GET, "descriptor_set": descriptor_set()}
        error = await failure(grpc_caller, **params)
    assert (error.code, error.retry_after) == ("GRPC_UNAVAILABLE", 7.5)
    assert error.details["error_details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": "BUSY",
            "domain": "shop",
            "metadata": {"zone": "a"},
        },
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.500s"},
        {"@type": "type.googleapis.com/shop.v1.Order"},
    ]


async def test_timeout_is_the_deadline_of_the_other_side(grpc_caller: Handler, callee: Callee) -> None:
    await call(grpc_caller, **to(callee))
    error = await failure(grpc_caller, **to(callee, message={"order_id": "hang"}, timeout="1s"))
    assert (error.code, error.retryable) == ("GRPC_DEADLINE_EXCEEDED", True)
    assert error.details["status"] == "DEADLINE_EXCEEDED"
    default, own = (each.deadline or 0.0 for each in callee.calls)
    assert own < 2.0 < default < 31.0
    async with asyncio.timeout(PATIENCE):
        await callee.stopped.wait()


@pytest.mark.parametrize("method", [GET, WATCH])
async def test_cancel_reaches_the_other_side(grpc_caller: Handler, callee: Callee, method: str) -> None:
    running = asyncio.create_task(call(grpc_caller, **to(callee, method, message={"order_id": "hang"}, timeout=1000)))
    async with asyncio.timeout(PATIENCE):
        await callee.begun.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await callee.stopped.wait()


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ({"order_idd": "a"}, 'no field named "order_idd"'),
        ({"number": "x"}, "number"),
        ({"tags": [{"name": 1}]}, "tags"),
        ([], "must be an object"),
        ({"order_id": "x" * 262_144}, "at most 262144"),
    ],
)
async def test_message_that_the_method_does_not_take(
    grpc_caller: Handler, callee: Callee, message: Any, said: str
) -> None:
    error = await failure(grpc_caller, **to(callee, message=message))
    assert (error.code, error.retryable) == ("INVALID_PARAMS", False)
    assert "message: " in error.message
    assert said in error.message
    assert not callee.calls


@pytest.mark.parametrize(
    ("method", "said"),
    [
        (f"{ORDERS}/Gett", "Get, Send, Watch"),
        ("shop.v1.Carts/Get", "no service 'shop.v1.Carts'"),
        (f"{ORDERS}/Send", "takes a stream"),
    ],
)
async def test_method_that_there_is_not(grpc_caller: Handler, callee: Callee, method: str, said: str) -> None:
    for more in ({}, {"descriptor_set": descriptor_set()}):
        error = await failure(grpc_caller, **to(callee, method, **more))
        assert (error.code, error.retryable) == ("METHOD_NOT_FOUND", False)
        assert said in error.message


@pytest.mark.parametrize(
    ("order_id", "code"),
    [
        ("large-1048577", "RESPONSE_TOO_LARGE"),
        ("large-524289", "RESPONSE_TOO_LARGE"),
        ("large-262144", "RESPONSE_TOO_LARGE"),
        ("many-6000", "INVALID_OUTPUT"),
        ("many-30000", "INVALID_OUTPUT"),
    ],
)
async def test_answer_that_is_too_large(grpc_caller: Handler, callee: Callee, order_id: str, code: str) -> None:
    error = await failure(grpc_caller, **to(callee, message={"order_id": order_id}))
    assert (error.code, error.retryable) == (code, False)


async def test_stream_that_is_too_large_is_not_read_to_its_end(grpc_caller: Handler, callee: Callee) -> None:
    message = {"number": 1000, "order_id": "x" * 1000}
    shown: list[str] = []
    context = replace(CONTEXT, emitter=shown.append)
    error = await failure(grpc_caller, context, **to(callee, WATCH, message=message, max_messages=1000))
    assert len(shown) < 300
    assert error.code == "RESPONSE_TOO_LARGE"
    assert "max_messages" in error.message


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"\xff\xff", "INVALID_RESPONSE"),
        (b"\xfa\x01\x80\x80\x20" + bytes(1 << 19), "RESPONSE_TOO_LARGE"),  # a field that nobody knows
    ],
)
async def test_bytes_that_are_no_message_are_refused(grpc_caller: Handler, answer: bytes, code: str) -> None:
    async def get(request: bytes, context: Any) -> bytes:
        return answer

    handler = grpc.method_handlers_generic_handler(ORDERS, {"Get": grpc.unary_unary_rpc_method_handler(get)})
    async with serving(handler) as (target, _):
        params: dict[str, Any] = {"target": target, "tls": False, "method": GET, "descriptor_set": descriptor_set()}
        error = await failure(grpc_caller, **params)
    assert (error.code, error.retryable) == (code, False)


async def test_compressed_answer_is_bounded_by_what_it_becomes(grpc_caller: Handler) -> None:
    sizes = [100, 64 << 20]

    async def get(request: bytes, context: Any) -> bytes:
        return Callee().order(order_id="x" * sizes.pop(0)).SerializeToString()  # type: ignore[no-any-return]

    handler = grpc.method_handlers_generic_handler(ORDERS, {"Get": grpc.unary_unary_rpc_method_handler(get)})
    async with serving(handler, compression=grpc.Compression.Gzip) as (target, _):
        params: dict[str, Any] = {"target": target, "tls": False, "method": GET, "descriptor_set": descriptor_set()}
        output = await call(grpc_caller, **params)
        assert output["message"]["orderId"] == "x" * 100
        error = await failure(grpc_caller, **params)
    assert (error.code, error.retryable) == ("RESPONSE_TOO_LARGE", False)


async def test_health_of_another_service(grpc_caller: Handler) -> None:
    async with serving() as (target, server):
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        reflection.enable_server_reflection(["grpc.health.v1.Health"], server)
        await servicer.set("shop", health_pb2.HealthCheckResponse.NOT_SERVING)
        params: dict[str, Any] = {"target": target, "tls": False, "message": {"service": "shop"}}
        output = await call(grpc_caller, method="grpc.health.v1.Health/Check", **params)
        assert output["message"] == {"status": "NOT_SERVING"}
        output = await call(grpc_caller, method="grpc.health.v1.Health/Watch", max_messages=1, **params)
        assert output["messages"] == [{"status": "NOT_SERVING"}]
