"""What shows that a worker was given an attempt: nobody speaks for another one, at whichever server it comes back."""

from __future__ import annotations

import hmac

import msgspec

from service.engine.workers.model import AttemptId, Registration

_SIZE = 16


class Proof:
    """Makes and checks the tokens of attempts, by a secret of all servers of a store; without one none holds."""

    def __init__(self, secret: bytes = b"") -> None:
        self._secret = secret

    def of(self, registration: Registration, attempt: AttemptId) -> bytes:
        """Return the token that a worker is given with an attempt: the same each time, and no other worker's."""
        if not self._secret:
            return b""
        said = msgspec.json.encode([*registration.key, *attempt])
        return hmac.digest(self._secret, said, "sha256")[:_SIZE]

    def holds(self, registration: Registration, attempt: AttemptId) -> bool:
        """Return whether the worker has the token that it would have been given."""
        expected, shown = self.of(registration, attempt), registration.tokens.get(attempt, b"")
        return bool(expected) and hmac.compare_digest(expected, shown)
