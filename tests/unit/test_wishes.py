"""Which workers a step may be given to: what is wished of them, and the share of executions that tries others."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from uuid import UUID

import pytest

from service.engine.wishes import NONE, Ramp, Wishes, WorkerSelector, awaited, is_of, parted, share


@pytest.mark.parametrize(
    ("wanted", "met", "missed"),
    [
        ("2.1.3", ["2.1.3"], ["", "2.1", "2.1.30", "2.1.3.1", "v2.1.3"]),
        ("2.*", ["2", "2.0", "2.1.3", "2."], ["", "20", "20.1", "1.2.0", "v2.1"]),
        ("2.1.*", ["2.1", "2.1.0", "2.1.x"], ["2", "2.10", "2.10.1"]),
        ("main", ["main"], ["main.1", "Main"]),
        ("main.*", ["main", "main.7f3a"], ["mainly", "7f3a"]),
    ],
)
def test_a_version_is_met_exactly_or_by_its_beginning(wanted: str, met: list[str], missed: list[str]):
    assert [version for version in (*met, *missed) if is_of(version, wanted)] == met


def test_all_labels_must_be_met_and_one_of_the_versions():
    wishes = Wishes((("gpu", ""), ("region", "eu")), ("1.0", "2.*"))
    assert wishes.are_met_by({"region": "eu", "gpu": "", "more": "x"}, "2.5")
    assert wishes.are_met_by({"region": "eu", "gpu": ""}, "1.0")
    assert not wishes.are_met_by({"region": "eu"}, "2.5")
    assert not wishes.are_met_by({"region": "us", "gpu": ""}, "2.5")
    assert not wishes.are_met_by({"region": "eu", "gpu": ""}, "1.0.1")
    assert not wishes.are_met_by({"region": "eu", "gpu": ""}, "")
    assert NONE.are_met_by({}, "") and NONE.are_met_by({"region": "eu"}, "2")


def test_wishes_have_a_text_by_which_processes_know_them():
    wishes = WorkerSelector({"region": "eu", "gpu": "a\tb"}, ("2.*", "1.0")).wishes(UUID(int=1))
    assert wishes.text == '[{"gpu":"a\\tb","region":"eu"},["1.0","2.*"]]'
    assert wishes.text == WorkerSelector({"gpu": "a\tb", "region": "eu"}, ("1.0", "2.*")).wishes(UUID(int=2)).text
    assert Wishes.of(wishes.text) == wishes
    assert parted(awaited("draw", wishes.text)) == ("draw", wishes.text)
    assert (NONE.text, Wishes.of(""), parted(awaited("draw", ""))) == ("", NONE, ("draw", ""))
    assert str(wishes) == "the labels gpu=a\tb, region=eu and the version 1.0 or 2.*"
    assert str(Wishes((("region", "eu"),))) == "the label region=eu"
    assert str(Wishes((), ("2.*",))) == "the version 2.*"


@pytest.mark.parametrize("text", ["x", "{}", "[]", "[{},[1]]", '[{"a":1},[]]', "[[],{}]", "\0"])
def test_what_is_no_text_of_wishes_is_refused(text: str):
    with pytest.raises(ValueError, match="is no text of wishes"):
        Wishes.of(text)


def test_the_share_of_an_execution_is_the_same_for_ever():
    """Executions that run when the server is renewed stay with the versions that they began with."""
    ids = [UUID(f"0198c5f2-7a00-7000-8000-{number:012x}") for number in range(8)]
    assert [share(each) for each in ids] == [85, 42, 53, 27, 22, 92, 48, 3]
    assert share(UUID(int=0)) == 69 and share(UUID(int=2**128 - 1)) == 77


def test_shares_are_even():
    draw = random.Random(7)
    counts = Counter(share(UUID(int=draw.getrandbits(128))) for _ in range(20_000))
    assert len(counts) == 100
    assert min(counts.values()) > 140 and max(counts.values()) < 260  # of 200 each


def test_a_ramp_grows_by_executions_and_takes_none_back():
    ids = [UUID(int=number) for number in range(2_000)]

    def ramped(percent: int) -> set[UUID]:
        selector = WorkerSelector({}, ("1.*",), Ramp(("2.*",), percent))
        chosen = {each: selector.wishes(each).versions for each in ids}
        assert set(chosen.values()) <= {("1.*",), ("2.*",)}
        return {each for each, versions in chosen.items() if versions == ("2.*",)}

    steps = [ramped(percent) for percent in (0, 1, 10, 50, 99, 100)]
    assert not steps[0] and steps[-1] == set(ids)
    for fewer, more in itertools.pairwise(steps):
        assert fewer < more
    assert 140 < len(steps[2]) < 260


def test_what_is_not_in_a_ramp_keeps_the_labels():
    selector = WorkerSelector({"region": "eu"}, ("1.*",), Ramp(("2.*",), 50))
    found = {selector.wishes(UUID(int=number)) for number in range(50)}
    assert found == {Wishes((("region", "eu"),), ("1.*",)), Wishes((("region", "eu"),), ("2.*",))}
