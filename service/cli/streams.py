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

    def __init__(self, number: int, *, is_output: bool) -> None:
        super().__init__(number, "w", closefd=False)
        self._is_output = is_output

    def write(self, data: ReadableBuffer, /) -> int:
        try:
            while (written := super().write(data)) is None:  # of a pipe that somebody made non-blocking
                select.select((), (self,), ())
            return written
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.fileno())
            if self._is_output:
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
    sys.stdout = _guarded(_OUTPUT, sys.stdout, is_output=True)
    sys.stderr = _guarded(_ERROR, sys.stderr)


def keep_output() -> None:
    """Keep standard output for what the command itself prints to `output`, for the rest of the process.

    Whatever else prints there goes to standard error: handlers, their threads and the programs that they run.
    """
    before = sys.stdout
    if not isinstance(getattr(getattr(before, "buffer", None), "raw", None), _Guarded) or _Kept.stream is not None:
        return
    before.flush()
    _Kept.stream = _guarded(os.dup(_OUTPUT), before, is_output=True)
    os.dup2(_ERROR, _OUTPUT)
    sys.stdout = _guarded(_OUTPUT, before)


class _Kept:
    """Standard output, when it was kept."""

    stream: TextIO | None = None


def output() -> TextIO:
    """Return what the command prints its results to."""
    return _Kept.stream or sys.stdout


def settle() -> None:
    """Write what is left, and end the process with the code of a failure to write, if there was one."""
    for stream in (output(), sys.stdout, sys.stderr):
        if not getattr(stream, "closed", True):  # a handler may have closed it, or put something else there
            stream.flush()
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


def _guarded(number: int, before: TextIO | None, *, is_output: bool = False) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Guarded(number, is_output=is_output)),
        encoding=before.encoding if before else "utf-8",
        errors="backslashreplace",  # a terminal that knows ASCII only
        line_buffering=not is_output or os.isatty(number),
    )
