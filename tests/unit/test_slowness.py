"""What could not be read in time is left alone, the longer the more often; what was read meanwhile is not."""

from uuid import uuid4

from persistence.postgres.slowness import FIRST_PAUSE, LONGEST_PAUSE, Slow

SLOW, OTHER, THIRD = (uuid4() for _ in range(3))


def test_it_is_left_alone_for_longer_each_time_up_to_a_limit():
    slow, now = Slow(), 100.0
    for pause in (FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE):
        slow.blame([SLOW], now)
        assert slow.left_alone(now + pause - 0.1) == [SLOW]
        now += pause
        assert not slow.left_alone(now)
    for _ in range(20):
        slow.blame([SLOW], now)
    assert slow.left_alone(now + LONGEST_PAUSE - 0.1) == [SLOW]
    assert not slow.left_alone(now + LONGEST_PAUSE)


def test_the_reason_is_one_of_them_and_sooner_who_was_it_before():
    slow = Slow()
    slow.blame([OTHER, SLOW], 100.0)
    assert slow.left_alone(100.0) == [OTHER]
    slow.blame([SLOW], 100.0)
    slow.blame([SLOW], 100.0)
    later = 100.0 + 2 * FIRST_PAUSE
    slow.blame([THIRD, OTHER, SLOW], later)
    assert slow.left_alone(later) == [SLOW]


def test_of_many_or_none_no_one_is_known_to_be_the_reason():
    slow = Slow()
    slow.blame([SLOW, OTHER, THIRD], 100.0)
    slow.blame([], 100.0)
    assert not slow.left_alone(100.0)


def test_what_was_read_is_forgotten():
    slow = Slow()
    slow.blame([SLOW], 100.0)
    slow.forget(SLOW)
    assert not slow.left_alone(100.0)
    slow.blame([SLOW], 100.0)
    assert not slow.left_alone(100.0 + FIRST_PAUSE)


def test_no_more_are_remembered_than_a_claim_may_leave_out():
    slow, executions = Slow(), [uuid4() for _ in range(1_001)]
    for each in executions:
        slow.blame([each], 100.0)
    assert slow.left_alone(100.0) == executions[1:]
