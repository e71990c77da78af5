"""The codes of failures: those that the service gives, and those that the protos document."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from types import ModuleType

import grpc

from flowkeep.v1.execution_pb2 import FailureCode
from service import calls
from service.calls.failures import status_code
from service.engine import chat, failure, handlers
from service.engine.handlers import http_answer


def defined() -> set[str]:
    """Return the codes that the engine and the handlers define: each a constant that is called as it reads."""
    modules: list[ModuleType] = [failure]
    for package in (handlers, calls, chat):
        modules += [import_module(f"{package.__name__}.{each.name}") for each in pkgutil.iter_modules(package.__path__)]
    constants = {name for module in modules for name, value in vars(module).items() if name.isupper() and name == value}
    constants |= {status_code(status) for status in grpc.StatusCode if status is not grpc.StatusCode.OK}
    return constants | {http_answer.status_code(status) for status in range(200, 1000)}


def test_every_code_that_the_service_gives_is_documented_and_no_other() -> None:
    names = FailureCode.DESCRIPTOR.values_by_name
    assert {name.removeprefix("FAILURE_CODE_") for name in names} - {"UNSPECIFIED"} == defined()
