"""What the claims of a verified token say: who calls, and what the caller may do."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from persistence.model import Scope
from service.api.permissions import PERMISSIONS

LEEWAY = 30.0
"""Seconds by which clocks may differ (CONTRACT 2.5)."""

ALL_OWNERS = "executions.all_owners"
"""Permission to see and cancel executions that other subjects of the org started."""

ALL_ASSIGNEES = "tasks.all_assignees"
"""Permission to see and work on tasks that are for other people of the org."""

DEBUG = "executions.debug"
"""Permission to see stack traces of handlers."""

READ_WORKFLOWS = "workflows.read"
"""Permission to see definitions, wherever they are shown."""

WRITE_WORKFLOWS = "workflows.write"
"""Permission to say what is called with what, and so to send secrets anywhere."""

KNOWN_PERMISSIONS = frozenset({*PERMISSIONS.values(), ALL_OWNERS, ALL_ASSIGNEES, DEBUG})

_END_OF_CALENDAR = 253_402_300_799
_LONGEST_FOUND = 200
_URL = re.compile(r"(?:https?://|urn:)[^\s,\"]+")
_NAME = re.compile(r'"((?:[^"\\]|\\.)+)"|([^\s.,"]+)')


class UnauthenticatedError(Exception):
    """There is no token, or it is not valid. The text never says more than the caller may know."""


class RefusedTokenError(UnauthenticatedError):
    """A token is refused. `reason` and `facts` are for the log and never for the caller."""

    def __init__(self, reason: str, told: str = "the token is not valid", **facts: Any) -> None:
        super().__init__(told)
        self.reason = reason
        self.facts = {name: shown(value) for name, value in facts.items()}


def shown(value: Any) -> str:
    """Return a value of a token as it stands in the log: bounded, and on one line."""
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= _LONGEST_FOUND else text[:_LONGEST_FOUND] + "…"


@dataclass(frozen=True, slots=True)
class Identity:
    """A verified caller. `permissions` None means all. `groups` are those that tasks of people may be for."""

    org: str
    subject: str
    permissions: frozenset[str] | None
    groups: frozenset[str] = frozenset()

    def may(self, permission: str) -> bool:
        """Whether the caller has the permission."""
        return self.permissions is None or permission in self.permissions

    @property
    def scope(self) -> Scope:
        """What the caller sees: of executions the own ones, or with ALL_OWNERS those of the whole org."""
        return Scope(self.org, None if self.may(ALL_OWNERS) else self.subject)


@dataclass(frozen=True, slots=True)
class ClaimPath:
    """Where in the claims something stands.

    Names with dots between them, as in `realm_access.roles`; one that holds dots itself is quoted, as in
    `resource_access."my.client".roles`. A number picks from a list. A URL is one name, as in `https://example.com/org`.
    """

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ".".join(self.names)

    def find(self, claims: Mapping[str, Any]) -> Any:
        """Return what stands there, None when nothing does."""
        place: Any = claims
        for name in self.names:
            if isinstance(place, Mapping):
                place = place.get(name)
            elif isinstance(place, list) and name.isdecimal() and int(name[:9]) < len(place):
                place = place[int(name[:9])]
            else:
                return None
        return place


def claim_paths(text: str) -> tuple[ClaimPath, ...]:
    """Return the paths that a text lists with commas between them. Raises ValueError, which says where it is wrong."""
    found, position = [], 0
    while True:
        names, position = _names(text, position)
        found.append(ClaimPath(names))
        if position == len(text):
            return tuple(found)
        if text[position] != ",":
            raise ValueError(f'cannot be read from {text[position:][:40]!r} on; put names with dots into "quotes"')
        position += 1


def _names(text: str, position: int) -> tuple[tuple[str, ...], int]:
    """Return the names of one path and where it ends."""
    position += len(text[position:]) - len(text[position:].lstrip())
    if url := _URL.match(text, position):
        return (url[0],), _after_spaces(text, url.end())
    names: list[str] = []
    while name := _NAME.match(text, position):
        names.append(re.sub(r"\\(.)", r"\1", name[1]) if name[1] else name[2])
        position = name.end()
        if not text.startswith(".", position):
            return tuple(names), _after_spaces(text, position)
        position += 1
    raise ValueError("has no name of a claim" + (f" behind {text[:position]!r}" if position else ""))


def _after_spaces(text: str, position: int) -> int:
    return len(text) - len(text[position:].lstrip())


def role_permissions(roles: Mapping[str, Sequence[str]]) -> dict[str, frozenset[str]]:
    """Return the permissions of each role; `*` stands for all. Raises ValueError for one that there is not."""
    found = {}
    for role, permissions in roles.items():
        if unknown := [each for each in permissions if each not in (*KNOWN_PERMISSIONS, "*")]:
            close = get_close_matches(unknown[0][:128], KNOWN_PERMISSIONS, n=1)
            hint = f'did you mean "{close[0]}"?' if close else f"known are: *, {', '.join(sorted(KNOWN_PERMISSIONS))}"
            raise ValueError(f'gives the role {role!r} the permission "{unknown[0]}", which there is not; {hint}')
        found[role] = KNOWN_PERMISSIONS if "*" in permissions else frozenset(permissions)
    return found


_OWN_PERMISSIONS = ClaimPath(("permissions",))

_MOST_GROUPS = 1_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What a token must say, and where. No issuer or audience: that is not checked."""

    issuers: tuple[str, ...] = ()
    audiences: tuple[str, ...] = ()
    org: ClaimPath = ClaimPath(("org",))
    subject: ClaimPath = ClaimPath(("sub",))
    permissions: tuple[ClaimPath, ...] = (_OWN_PERMISSIONS,)
    roles: Mapping[str, frozenset[str]] | None = None
    groups: tuple[ClaimPath, ...] = (ClaimPath(("groups",)),)

    def identity(self, claims: Mapping[str, Any], now: float) -> Identity:
        """Return who the claims speak of. Raises RefusedTokenError."""
        _check_times(claims, now)
        if self.issuers and not (isinstance(issuer := claims.get("iss"), str) and issuer in self.issuers):
            raise _wrong("iss", self.issuers, claims.get("iss"))
        if self.audiences and not set(self.audiences) & set(_audiences(claims.get("aud"))):
            raise _wrong("aud", self.audiences, claims.get("aud"))
        org = _name(self.org, claims, "FLOWKEEP_JWT_ORG_CLAIM")
        subject = _name(self.subject, claims, "FLOWKEEP_JWT_SUBJECT_CLAIM")
        granted = [each for path in self.permissions for each in _listed(path, claims)]
        roles = self.roles or {}
        permissions = frozenset().union(*(roles.get(each, (each,)) for each in granted))
        return Identity(org, subject, permissions, _groups(self.groups, claims))


def _wrong(claim: str, expected: Sequence[str] | str, found: Any) -> RefusedTokenError:
    expected = expected if isinstance(expected, str) else " or ".join(expected)
    reason = f"the claim {claim} is {'absent' if found is None else 'another one'}"
    return RefusedTokenError(reason, claim=claim, expected=expected, found=found)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    end = _moment("exp", claims)
    if end is None:
        raise _wrong("exp", "a time in seconds since 1970", None)
    if end <= now - LEEWAY:
        raise RefusedTokenError(
            "it has expired", "the token has expired", claim="exp", expected=f"> {now:.0f}", found=end
        )
    for name in ("nbf", "iat"):
        begin = _moment(name, claims)
        if begin is not None and begin > now + LEEWAY:
            raise RefusedTokenError("it is not valid yet", claim=name, expected=f"<= {now:.0f}", found=begin)


def _moment(name: str, claims: Mapping[str, Any]) -> float | None:
    """Return a time of the calendar; milliseconds, infinity and text are none."""
    value = claims.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not 0 <= value <= _END_OF_CALENDAR:
        raise RefusedTokenError(
            f"the claim {name} is no time", claim=name, expected="a number of seconds since 1970", found=value
        )
    return float(value)


def _audiences(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [each for each in values if isinstance(each, str)]


def _name(path: ClaimPath, claims: Mapping[str, Any], setting: str) -> str:
    value = path.find(claims)
    if isinstance(value, str) and 0 < len(value) <= 256 and value.isprintable():
        return value
    reason = f"the claim {path} is {'absent' if value is None else 'no name'}; {setting} says which claim to take"
    raise RefusedTokenError(
        reason, claim=str(path), expected="1 to 256 printable characters", found=value, claims=sorted(claims)
    )


def _groups(paths: Sequence[ClaimPath], claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the groups that claims name, in lists or one in a text; what is no name is none."""
    found: list[Any] = []
    for path in paths:
        value = path.find(claims)
        found += value if isinstance(value, list) else [value]
    named = [each for each in found if isinstance(each, str) and 0 < len(each) <= 256]
    return frozenset(named[:_MOST_GROUPS])


def _listed(path: ClaimPath, claims: Mapping[str, Any]) -> list[str]:
    """Return the values of a claim: a list, or text with spaces between them, as `scope` has it."""
    value = path.find(claims)
    if value is None:
        return []
    if isinstance(value, str) and path != _OWN_PERMISSIONS:  # that one is a list by our own contract
        return value.split()
    if not isinstance(value, list):
        raise RefusedTokenError(
            f"the claim {path} is no list", claim=str(path), expected="a list of texts", found=value
        )
    return [each for each in value if isinstance(each, str)]
