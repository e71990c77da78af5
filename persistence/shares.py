"""Places of which there are only so many, shared so that nobody takes those of all others."""

from __future__ import annotations

from collections import defaultdict

TIMES = 9
"""How many times what is free an org may hold, and an identity how many times what is left to its org: alone an org
gets nine tenths of all, two that want all nine of nineteen each."""


class Shares:
    """Counts the places that orgs, and identities in them, hold at a time.

    What one may hold goes by what is left: whoever is alone gets nearly all, those who want all come to equal parts as
    places become free, and for whoever comes then there are some. Of less than ten places nothing is kept back.
    """

    def __init__(self, most: int, most_per_org: int | None = None) -> None:
        self._most = most
        self._most_per_org = most_per_org
        self._orgs: defaultdict[str, int] = defaultdict(int)
        self._identities: defaultdict[tuple[str, str], int] = defaultdict(int)
        self.held = 0
        """Places that are taken."""

    @property
    def orgs(self) -> list[str]:
        """Who holds places."""
        return list(self._orgs)

    def held_by(self, org: str) -> int:
        """Return how many places an org holds."""
        return self._orgs.get(org, 0)

    def has_place(self, org: str, subject: str, aside: int = 0) -> bool:
        """Whether an identity may take one place more, beside those that are taken and `aside` others."""
        free = self._most - self.held - aside
        of_org = TIMES * free
        if self._most_per_org is not None:
            of_org = min(of_org, self._most_per_org)
        left = of_org - self._orgs.get(org, 0)
        return free > 0 < left and self._identities.get((org, subject), 0) < TIMES * left

    def room(self, org: str) -> int:
        """Return how many places more an org may take that is all one identity."""
        free, held = self._most - self.held, self._orgs.get(org, 0)
        # The least number with which `has_place` is no longer true.
        room = _rounded_up(TIMES * TIMES * free - (1 + TIMES) * held, 1 + TIMES + TIMES * TIMES)
        if self._most_per_org is not None:
            room = min(room, _rounded_up(TIMES * self._most_per_org - (1 + TIMES) * held, 1 + TIMES))
        return max(0, min(free, room))

    def take(self, org: str, subject: str) -> None:
        """Count a place, whether there is one or not."""
        self.held += 1
        self._orgs[org] += 1
        self._identities[org, subject] += 1

    def give_back(self, org: str, subject: str) -> None:
        """Count a place as free again."""
        self.held -= 1
        self._orgs[org] -= 1
        if not self._orgs[org]:
            del self._orgs[org]
        self._identities[org, subject] -= 1
        if not self._identities[org, subject]:
            del self._identities[org, subject]


def _rounded_up(numerator: int, denominator: int) -> int:
    return -(-numerator // denominator)
