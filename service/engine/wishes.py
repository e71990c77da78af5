"""Which workers a step may be given to: what it wishes for in labels and versions, and the share that tries others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

import msgspec

SHARES = 100
"""Into so many shares all executions fall, evenly: one of them is a percent."""

_BELOW = ".*"
_BETWEEN = "\t"


@dataclass(frozen=True)
class Wishes:
    """What a worker must have: all `labels`, and one of the `versions`, if any are named. Both are sorted."""

    labels: tuple[tuple[str, str], ...] = ()
    versions: tuple[str, ...] = ()

    def are_met_by(self, labels: Mapping[str, str], version: str) -> bool:
        """Whether a worker with these labels, of this version, may be given the step."""
        has_labels = all(labels.get(key) == value for key, value in self.labels)
        return has_labels and (not self.versions or any(is_of(version, wanted) for wanted in self.versions))

    @cached_property
    def text(self) -> str:
        """Them in one line, empty for none; they are equal where it is."""
        return msgspec.json.encode([dict(self.labels), self.versions]).decode() if self != NONE else ""

    @classmethod
    def of(cls, text: str) -> Wishes:
        """Return the wishes that have this text. Raises ValueError where none have it."""
        if not text:
            return NONE
        try:
            labels, versions = msgspec.json.decode(text, type=tuple[dict[str, str], tuple[str, ...]])
        except msgspec.DecodeError as error:
            raise ValueError(f"{text!r} is no text of wishes: {error}") from None
        return cls(tuple(sorted(labels.items())), tuple(sorted(versions)))

    def __str__(self) -> str:
        """Them for people, as the end of "a worker that has …"."""
        said = [f"{key}={value}" for key, value in self.labels]
        labels = f"the label{'s' * (len(said) > 1)} {', '.join(said)}" if said else ""
        version = f"the version {' or '.join(self.versions)}" if self.versions else ""
        return " and ".join(filter(None, (labels, version)))


NONE = Wishes()
"""Any worker will do."""


@dataclass(frozen=True, slots=True)
class Ramp:
    """So many of a hundred executions wish for these versions instead."""

    versions: tuple[str, ...]
    percent: int


@dataclass(frozen=True, slots=True)
class WorkerSelector:
    """Which workers may run a step, as a definition says it."""

    labels: Mapping[str, str] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    ramp: Ramp | None = None

    def wishes(self, execution_id: UUID) -> Wishes:
        """Return what the steps of an execution wish for: the same at any time, in any process."""
        is_in_ramp = self.ramp is not None and share(execution_id) < self.ramp.percent
        versions = self.ramp.versions if self.ramp is not None and is_in_ramp else self.versions
        return Wishes(tuple(sorted(self.labels.items())), tuple(sorted(versions)))


def share(execution_id: UUID) -> int:
    """Return the share that an execution falls into, 0 to 99. It must never be another one: executions run by it."""
    return int.from_bytes(hashlib.sha256(execution_id.bytes).digest()[:8]) % SHARES


def is_of(version: str, wanted: str) -> bool:
    """Whether a version is the wanted one; `2.*` is 2 and all that begins with `2.`."""
    if not wanted.endswith(_BELOW):
        return version == wanted
    return version == wanted.removesuffix(_BELOW) or version.startswith(wanted.removesuffix("*"))


def awaited(handler: str, wishes: str) -> str:
    """Return what a step waits for in one text: a handler, and the text of what it wishes of a worker, if anything."""
    return f"{handler}{_BETWEEN}{wishes}" if wishes else handler  # no name of a handler has a tab in it


def parted(name: str) -> tuple[str, str]:
    """Return handler and wishes of what `awaited` gave."""
    handler, _, wishes = name.partition(_BETWEEN)
    return handler, wishes
