"""What was made at some cost and may be wanted again, as much of it as fits into a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """The values that were used last. Their sizes are told by whoever brings them; too large a one is not kept."""

    def __init__(self, most_bytes: int) -> None:
        self._most = most_bytes
        self._values: OrderedDict[Key, tuple[Value, int]] = OrderedDict()
        self.bytes = 0
        """The sizes of all values together."""

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: Key) -> Value | None:
        """Return a value if it is kept."""
        found = self._values.get(key)
        if found is None:
            return None
        self._values.move_to_end(key)
        return found[0]

    def put(self, key: Key, value: Value, size: int) -> None:
        """Keep a value that fits at all, and let go of those whose last use is longest ago until all do."""
        _, before = self._values.pop(key, (None, 0))
        if size > self._most:
            self.bytes -= before
            return
        self._values[key] = value, size
        self.bytes += size - before
        while self.bytes > self._most:
            _, (_, freed) = self._values.popitem(last=False)
            self.bytes -= freed
