"""From a document to a checked workflow."""

from service.engine.parsing.input import check_input
from service.engine.parsing.workflow import Defaults, parse

__all__ = ["Defaults", "check_input", "parse"]
