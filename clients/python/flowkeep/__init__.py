"""The Flowkeep client: generated stubs in `flowkeep.v1`, and a thin client over them.

    async with flowkeep.Client("localhost:50051") as client:
        await client.create_workflow({"name": "hello", "steps": [{"id": "pause", "handler": "wait", …}]})
        result = await client.run("hello", {"name": "world"})

`flowkeep.definition` reads and writes definitions as people write them. `flowkeep.handlers` is what the handlers of
steps are written against; it needs neither gRPC nor protobuf, so the names of `flowkeep.names` are imported when asked
for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # checkers would take every name for known if they saw __getattr__
    from flowkeep import definition as definition
    from flowkeep import errors as errors
    from flowkeep import sync as sync
    from flowkeep.names import *  # noqa: F403 - what is offered stands in one place
else:

    def __getattr__(name: str) -> Any:
        names = import_module("flowkeep.names")
        if name == "__all__" or name in names.__all__:
            return getattr(names, name)
        try:
            return import_module(f"flowkeep.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"flowkeep.{name}":
                raise
            raise AttributeError(f"module 'flowkeep' has no attribute {name!r}") from None

    def __dir__() -> list[str]:
        return sorted({*globals(), *import_module("flowkeep.names").__all__})
