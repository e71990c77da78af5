"""What steps can run. Functions of users are written against `flowkeep.handlers`, whose names are here too."""

from service.engine.handlers.model import Effect, HandlerError, StepContext, Suspend, handler

__all__ = ["Effect", "HandlerError", "StepContext", "Suspend", "handler"]
