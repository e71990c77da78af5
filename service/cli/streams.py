"""Standard output and error that end a command honestly when nobody takes what it prints."""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NOBODY_READS = 141
"""Exit code when the reader of standard output has gone, as of a program that SIGPIPE ended."""

NOT_WRITTEN = 6
"""Exit code when standard output could not be written, for instance to a disk that is full."""

_OUTPUT, _ERROR = 1, 2


class _Guarded(io.FileIO):
    """A standard stream; the first failure to write ends the command, and what comes after it is thrown away."""

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:  # of a pipe that somebody made non-blocking
                select.select((), (self,), ())
            return written
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self.fileno() == _OUTPUT:
                _Exit.code = _why(error)
                raise SystemExit(_Exit.code) from None
            return memoryview(data).nbytes  # of standard error: there is nowhere to complain


class _Exit:
    """What the command has to end with, whatever catches the SystemExit."""

    code = 0


def _why(error: OSError) -> int:
    if error.errno == errno.EPIPE:
        return NOBODY_READS
    print(f"flowkeep: standard output cannot be written: {error.strerror}", file=sys.stderr)
    return NOT_WRITTEN


def guard() -> None:
    """Put guarded streams in the places of sys.stdout and sys.stderr."""
    for number in (_OUTPUT, _ERROR):
        _occupy(number)
    sys.stdout, sys.stderr = _guarded(_OUTPUT, sys.stdout), _guarded(_ERROR, sys.stderr)


def settle() -> None:
    """Write what is left, and end the process with the code of a failure to write, if there was one."""
    sys.stdout.flush()
    sys.stderr.flush()
    if _Exit.code:
        sys.exit(_Exit.code)


def _occupy(number: int) -> None:
    """Let nothing else get the number of a stream that was closed: a socket would be printed into."""
    try:
        os.fstat(number)
    except OSError:
        unwritable = os.open(os.devnull, os.O_RDONLY)
        if unwritable != number:
            os.dup2(unwritable, number)
            os.close(unwritable)


def _guarded(number: int, before: TextIO | None) -> TextIO:
    stream = io.BufferedWriter(_Guarded(number, "w", closefd=False))
    return io.TextIOWrapper(
        stream,
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",  # a terminal that knows ASCII only
        line_buffering=number == _ERROR or os.isatty(number),
    )
