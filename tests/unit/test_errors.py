"""Errors as they travel: whole where they are small, and never more than clients take, whatever stands in them."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from flowkeep.v1.error_pb2 import ErrorReason
from service.api import trailers
from service.api.errors import Refusal, refusal_of, status
from service.engine.violations import ValidationError, Violation

TEXTS = {
    "ASCII": "a" * 20_000,
    "percent signs": "%" * 20_000,
    "line breaks": "\n" * 20_000,
    "umlauts": "ü" * 20_000,
    "emoji": "🙂" * 20_000,
    "behind ASCII": "a" * 700 + "🙂" * 20_000,
    "half a surrogate pair": "\ud800" * 20_000,
}


def sent(refusal: Refusal) -> tuple[int, Any]:
    """How many bytes travel, and the violations that arrive."""
    told = status(refusal)
    details = {each.type_url.rpartition(".")[2]: each for each in told.details}
    request = error_details_pb2.BadRequest()
    if "BadRequest" in details:
        details["BadRequest"].Unpack(request)
    return trailers.encoded_length(told.message) + len(b64encode(told.SerializeToString())), request.field_violations


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_an_error_is_never_larger_than_clients_take(text: str) -> None:
    refusals = [
        Refusal(grpc.StatusCode.NOT_FOUND, ErrorReason.ERROR_REASON_WORKFLOW_NOT_FOUND, text, {"workflow": text}),
        refusal_of(ValidationError([Violation(text, text)])),
        refusal_of(ValidationError([Violation("a", "b"), *[Violation(text, text)] * 1_000])),
        refusal_of(ValidationError([Violation(f"steps[{n}].id", text[:20]) for n in range(1_000)])),
    ]
    for refusal in refusals:
        assert refusal is not None
        size, _ = sent(refusal)
        assert size <= trailers.LARGEST, refusal
        assert status(refusal).message[:20] == refusal.message[:20].encode(errors="replace").decode()


def test_what_is_cut_says_so() -> None:
    refusal = refusal_of(ValidationError([Violation("a" * 600, "🙂" * 300)]))
    assert refusal is not None
    assert status(refusal).message.endswith("…")
    (violation,) = sent(refusal)[1]
    assert (len(violation.field.encode()), len(violation.description.encode())) == (512, 1023)
    assert (violation.field[-1], violation.description[-1]) == ("…", "…")


def test_violations_that_do_not_fit_are_counted() -> None:
    refusal = refusal_of(ValidationError([Violation(f"steps[{n}].id", "must be another one") for n in range(1_000)]))
    assert refusal is not None
    assert status(refusal).message == "steps[0].id: must be another one (and 999 more)"
    *listed, rest = sent(refusal)[1]
    assert 50 < len(listed) < 1_000
    assert [each.field for each in listed] == [f"steps[{n}].id" for n in range(len(listed))]
    assert (rest.field, rest.description) == ("", f"and {1_000 - len(listed)} more violations")


def test_an_error_that_is_small_is_whole() -> None:
    refusal = refusal_of(ValidationError([Violation("größe", "must be 1 %"), Violation("b", "is\nwrong")]))
    assert refusal is not None
    assert status(refusal).message == "größe: must be 1 % (and 1 more)"
    assert [(each.field, each.description) for each in sent(refusal)[1]] == [
        ("größe", "must be 1 %"),
        ("b", "is\nwrong"),
    ]
