"""What the handlers of your steps are written against; README.md beside this file is the page for their authors.

    from flowkeep.handlers import HandlerError, StepContext, handler

    @handler("score_lead", description="Scores a lead from 0 to 100.")
    async def score_lead(company: str, employees: int, context: StepContext) -> dict[str, int]: ...

It needs nothing but Python's standard library, and only declares: the server that loads the module reads the types.
"""

from flowkeep.handlers.context import StepContext
from flowkeep.handlers.declaration import handler
from flowkeep.handlers.effect import Effect
from flowkeep.handlers.errors import HandlerError
from flowkeep.handlers.suspension import Suspend

__all__ = ["Effect", "HandlerError", "StepContext", "Suspend", "handler"]
