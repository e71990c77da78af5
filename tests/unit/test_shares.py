"""Places that are shared: nobody alone is held back much, and nobody takes those of all others."""

import pytest

from persistence.shares import Shares
from service.config import Config
from service.server import OPTIONS


def filled(shares, org, subject, at_most=10_000):
    """How many places an identity gets that takes all that it may."""
    taken = 0
    while taken < at_most and shares.has_place(org, subject):
        shares.take(org, subject)
        taken += 1
    return taken


@pytest.mark.parametrize("most", [1, 2, 3, 5, 9])
def test_of_a_few_places_one_may_have_all(most):
    assert filled(Shares(most), "org", "me") == most


def test_whoever_is_alone_gets_nearly_all_and_leaves_some_to_each_who_comes():
    shares = Shares(2_000)
    assert filled(shares, "flood", "a") == 1_781
    assert filled(shares, "flood", "b") >= 15
    assert filled(shares, "polite", "a") >= 150
    assert filled(shares, "third", "a") >= 10
    assert shares.has_place("fourth", "a")


def test_those_who_want_all_come_to_equal_parts_as_places_become_free():
    shares = Shares(1_000)
    held = {"flood": filled(shares, "flood", "a"), "other": 0}
    for _ in range(5_000):  # a call of the flood ends, and both want its place
        shares.give_back("flood", "a")
        held["flood"] -= 1
        for org in ("other", "flood"):
            held[org] += filled(shares, org, "a", at_most=1)
        if held["other"] >= held["flood"]:
            break
    assert abs(held["flood"] - held["other"]) <= 1
    assert sum(held.values()) > 900


def test_a_limit_of_its_own_binds_an_org_that_is_alone():
    shares = Shares(100, most_per_org=20)
    assert filled(shares, "org", "a") == 18
    assert filled(shares, "org", "b") == 2
    assert shares.has_place("other", "a")


def test_by_default_one_identity_may_have_a_thousand_watches_and_hears_of_its_limit_on_a_single_connection():
    config = Config()
    assert 1_000 <= filled(Shares(config.max_streams, config.max_streams_per_org), "org", "me") < config.max_streams
    # Beyond what a connection may have gRPC would let a client wait, and tell it nothing.
    assert filled(Shares(config.max_concurrent_rpcs), "org", "me") < dict(OPTIONS)["grpc.max_concurrent_streams"]


@pytest.mark.parametrize("most", [1, 2, 5, 8, 100, 2_000])
@pytest.mark.parametrize("others", [0, 1, 60])
@pytest.mark.parametrize("most_per_org", [None, 3, 40])
def test_the_room_of_an_org_is_what_it_could_take(most, others, most_per_org):
    for held in {0, 1, most // 2, most}:
        shares = Shares(most)
        for _ in range(min(others, most)):
            shares.take("other", "x")
        for _ in range(held):
            shares.take("org", "a")
        assert shares.room("org") == filled(shares, "org", "a")


def test_nothing_is_kept_of_those_who_have_left():
    shares = Shares(10)
    shares.take("org", "a")
    assert shares.orgs == ["org"]
    shares.give_back("org", "a")
    assert (shares.orgs, shares.held, shares._identities) == ([], 0, {})
