"""From a document to a checked workflow."""

from service.engine.parsing.input import check_input, input_cost
from service.engine.parsing.sources import prepare
from service.engine.parsing.workflow import Defaults, parse, parsing

__all__ = ["Defaults", "check_input", "input_cost", "parse", "parsing", "prepare"]
