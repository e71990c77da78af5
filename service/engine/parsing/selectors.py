"""Reads which workers may run a step."""

from __future__ import annotations

import re

from service.engine.parsing.fields import Fields, repeated
from service.engine.wishes import Ramp, WorkerSelector

MAX_LABELS, MAX_VERSIONS = 8, 8
_VERSION = re.compile(r"[^\s*]+(\.\*)?")
_VERSION_WORDS = "must be a version such as 2.1.3, or 2.* for all that begin so, and have no other * and no space"


def read_selector(fields: Fields, default: WorkerSelector | None = None) -> WorkerSelector | None:
    """Return what the field `worker` says, the default where it is absent."""
    if not fields.has("worker"):
        return default
    own = Fields(fields.mapping("worker"), fields.at("worker"), fields.findings)
    labels, versions = _labels(own), _versions(own)
    ramp = _ramp(own) if own.has("ramp") else None
    if own.has("ramp") and not versions and not own.is_wrong("versions"):
        own.wrong("versions", "is required with ramp: the versions for the executions that are not in its share")
    own.close()
    return WorkerSelector(labels, versions, ramp)


def _labels(fields: Fields) -> dict[str, str]:
    given = fields.mapping("labels", MAX_LABELS)
    field = fields.at("labels")
    labels = Fields(given, field, fields.findings)
    return {
        key: value
        for key, value in given.items()
        if labels.is_text(f"{field}, key {str(key)[:32]!r}", key, 64, shortest=1)
        and labels.is_text(labels.at(key), value, 128)
    }


def _versions(fields: Fields) -> tuple[str, ...]:
    versions = fields.texts("versions", MAX_VERSIONS, 64)
    for version in versions:
        if not _VERSION.fullmatch(version):
            fields.wrong("versions", f'has "{version}", which {_VERSION_WORDS}')
    for version in repeated(versions):
        fields.wrong("versions", f'has "{version}" more than once')
    return versions


def _ramp(fields: Fields) -> Ramp:
    own = Fields(fields.mapping("ramp"), fields.at("ramp"), fields.findings)
    for name in ("versions", "percent"):
        if not own.has(name):
            own.wrong(name, f"is required: {_RAMP_WORDS[name]}")
    ramp = Ramp(_versions(own), own.whole("percent", 0, 100))
    own.close()
    return ramp


_RAMP_WORDS = {
    "versions": "the versions that a share of the executions goes to",
    "percent": "how many of a hundred executions go to them",
}
