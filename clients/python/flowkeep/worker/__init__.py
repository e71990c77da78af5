"""Serves handlers of steps from a process of your own:

    from flowkeep.worker import Worker

    await Worker("localhost:50051", handlers=[my_module]).run()

Functions are declared with `flowkeep.handlers.handler`, as for the server's own process. It takes the extra
`flowkeep-client[worker]`, which reads the functions' types.
"""

from flowkeep.worker.worker import Worker

__all__ = ["Worker"]
