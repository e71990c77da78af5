"""Which attempts may begin before the commit of their start."""

from __future__ import annotations

from collections.abc import Iterable

from service.engine.definition import Definition, Delivery
from service.engine.handlers.registry import Registry
from service.engine.paths import place
from service.engine.planning.effects import Effect, StartAttempt


def harmless(effects: Iterable[Effect], definition: Definition, registry: Registry, org: str) -> list[StartAttempt]:
    """Return the attempts to start of which nobody can tell how often they are made, and nothing was promised."""
    begun = (effect for effect in effects if isinstance(effect, StartAttempt) and not effect.resumed)
    return [effect for effect in begun if _is_harmless(effect, definition, registry, org)]


def _is_harmless(effect: StartAttempt, definition: Definition, registry: Registry, org: str) -> bool:
    if effect.answer is not None:
        return True
    handler = registry.get(effect.handler, org)
    if handler is None or not handler.is_unseen:
        return False
    return definition.places[place(effect.path)].delivery is not Delivery.AT_MOST_ONCE
