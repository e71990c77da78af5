"""What handlers see of the engine's own values: copies, so that what they change is theirs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


class Copies(Mapping[str, Any]):
    """Gives plain copies of the JSON of a mapping, each made when it is first asked for."""

    def __init__(self, source: Mapping[str, Any]) -> None:
        self._source = source
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _copied(self._source[name])
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._source)

    def __len__(self) -> int:
        return len(self._source)

    def __repr__(self) -> str:
        return repr(dict(self))


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _copied(member) for name, member in value.items()}
    return [_copied(member) for member in value] if isinstance(value, list | tuple) else value
