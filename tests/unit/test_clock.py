"""The store's time as a replica knows it: never ahead, and right again after every answer."""

from datetime import UTC, datetime, timedelta

from service.engine.clock import StoreClock

T0 = datetime(2026, 11, 21, tzinfo=UTC)


class World:
    """A store and a replica with clocks of their own."""

    def __init__(self):
        self.passed = 1000.0
        self.store_offset = 0.0
        self.clock = StoreClock(lambda: self.passed)

    @property
    def store_time(self):
        return T0 + timedelta(seconds=self.passed + self.store_offset)

    def ask(self, there, back):
        sent = self.passed
        self.passed += there
        answer = self.store_time
        self.passed += back
        self.clock.learn(answer, sent)

    @property
    def behind(self):
        return (self.store_time - self.clock.now()).total_seconds()


def test_it_is_never_ahead_and_behind_by_no_more_than_the_answer_took():
    world = World()
    for there, back in ((0.0, 0.5), (0.2, 0.01), (0.001, 0.3), (1.0, 0.0)):
        world.ask(there, back)
        assert 0.0 <= round(world.behind, 5) <= there + back
        assert 0.0 <= round((world.clock.latest() - world.store_time).total_seconds(), 5) <= there + back
    world.passed += 3600.0
    assert 0.0 <= round(world.behind, 5) <= 1.0


def test_a_better_answer_counts_and_a_worse_one_does_not():
    world = World()
    world.ask(0.0, 0.5)
    assert round(world.behind, 5) == 0.5
    world.ask(0.0, 0.1)
    assert round(world.behind, 5) == 0.1
    world.ask(0.0, 2.0)
    assert round(world.behind, 5) == 0.1


def test_it_follows_a_store_whose_clock_was_set():
    world = World()
    world.ask(0.0, 0.1)
    for offset in (-60.0, 300.0, 0.0):
        world.store_offset = offset
        world.ask(0.0, 0.1)
        assert 0.0 <= round(world.behind, 5) <= 0.1


def test_the_first_answer_counts_also_where_this_machine_is_a_little_ahead():
    world = World()
    world.store_offset = -((T0 - datetime.now(UTC)).total_seconds() + world.passed) - 0.4
    world.ask(0.5, 0.0)
    assert 0.0 <= round(world.behind, 5) <= 0.5
