"""An execution that is in trouble again and again is taken up later each time."""

from uuid import uuid4

from service.engine.reconciler import CALM, LONGEST_PAUSE, Pauses


def test_each_time_it_is_left_alone_for_longer_up_to_a_limit():
    pauses, execution, now, seen = Pauses(), uuid4(), 100.0, []
    for _ in range(9):
        seen.append(pauses.after(execution, now))
        now += seen[-1]
    assert seen == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, LONGEST_PAUSE, LONGEST_PAUSE]


def test_others_do_not_wait_and_calm_is_rewarded():
    pauses, execution = Pauses(), uuid4()
    assert [pauses.after(execution, 100.0), pauses.after(execution, 100.0)] == [0.0, 0.1]
    assert pauses.after(uuid4(), 100.0) == 0.0
    assert pauses.after(execution, 100.1 + CALM) == 0.0
