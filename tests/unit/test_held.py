"""What is in use is counted by org until it is let go of."""

from service.engine.held import Held


class Thing:
    pass


def test_an_org_alone_may_hold_nine_tenths_and_leaves_some_to_others():
    held, things = Held(1_000), [Thing() for _ in range(4)]
    held.hold("a", things[0], 890)
    assert not held.is_full("a")
    held.hold("a", things[1], 10)
    assert (held.is_full("a"), held.is_full("b"), list(held.full)) == (True, False, ["a"])
    held.hold("b", things[2], 90)
    assert held.is_full("b")


def test_what_nobody_refers_to_counts_no_more():
    held, thing = Held(1_000), Thing()
    held.hold("a", thing, 1_000)
    assert held.is_full("b")
    del thing
    assert (held.is_full("a"), held.is_full("b"), list(held.full)) == (False, False, [])
