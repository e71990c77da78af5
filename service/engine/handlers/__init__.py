"""What steps can run. Functions of users need only the names of this package."""

from service.engine.handlers.functions import handler
from service.engine.handlers.model import HandlerError, StepContext, Suspend

__all__ = ["HandlerError", "StepContext", "Suspend", "handler"]
