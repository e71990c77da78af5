"""Runs `flowkeep` under cProfile and writes the profile into a file: python -m tests.bench.profiled FILE ARGUMENTS."""

import cProfile
import os
import sys

from service.cli.main import main


def run() -> None:
    """Profile the command to its end; a server ends its process without a way out for the interpreter."""
    into, leave = sys.argv.pop(1), os._exit
    profile = cProfile.Profile()

    def left(code: int) -> None:
        profile.dump_stats(into)
        leave(code)

    os._exit = left  # type: ignore[assignment]
    try:
        profile.runcall(main)
    finally:
        profile.dump_stats(into)


if __name__ == "__main__":
    run()
