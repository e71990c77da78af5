"""Is a conversation with Postgres read right, wherever the bytes are cut?"""

from __future__ import annotations

import struct

import pytest

from tests.faults.harness.wire import STARTUP, Conversation, is_executed, is_settled


def message(tag: str, body: bytes) -> bytes:
    return tag.encode() + struct.pack("!i", len(body) + 4) + body


def untagged(body: bytes) -> bytes:
    return struct.pack("!i", len(body) + 4) + body


HELLO = untagged(struct.pack("!i", STARTUP) + b"user\0me\0application_name\0flowkeep committer\0\0")
PARSE = message("P", b"one\0WITH a AS (INSERT INTO t VALUES ($1)) SELECT 1\0\0\0")
PARSE_READ = message("P", b"two\0SELECT 1\0\0\0")
BIND = message("B", b"\0one\0\0\0\0\0\0\0")
BIND_READ = message("B", b"\0two\0\0\0\0\0\0\0")
DONE, READY, IN_TRANSACTION = message("C", b"SELECT 1\0"), message("Z", b"I"), message("Z", b"T")


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_write_is_known_by_its_statement(size: int) -> None:
    conversation = Conversation()
    said = HELLO + PARSE + PARSE_READ + BIND
    for start in range(0, len(said), size):
        conversation.heard_client(said[start : start + size])
    assert (conversation.application, conversation.is_writing) == ("flowkeep committer", True)
    conversation.heard_client(BIND_READ)
    assert not conversation.is_writing
    conversation.heard_client(message("Q", b"COMMIT\0"))
    assert conversation.is_writing
    conversation.heard_client(message("Q", b"BEGIN\0"))
    assert not conversation.is_writing


@pytest.mark.parametrize("size", [1, 4, 1000])
def test_the_server_is_cut_into_messages(size: int) -> None:
    conversation = Conversation()
    said, heard = DONE + IN_TRANSACTION + DONE + READY, []
    for start in range(0, len(said), size):
        heard += conversation.heard_server(said[start : start + size])
    assert [body for _, body in heard] == [DONE, IN_TRANSACTION, DONE, READY]
    assert [is_executed(tag) for tag, _ in heard] == [True, False, True, False]
    assert [is_settled(tag, body) for tag, body in heard] == [False, False, False, True]


def test_a_negotiation_comes_first() -> None:
    conversation = Conversation()
    conversation.heard_client(untagged(struct.pack("!i", 80_877_103)))
    conversation.heard_client(HELLO)
    assert conversation.heard_server(b"N" + READY) == [("", b"N"), ("Z", READY)]
    assert conversation.application == "flowkeep committer"
