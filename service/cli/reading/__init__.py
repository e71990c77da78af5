"""From files and texts to JSON values, with the place of everything that is in them."""

from service.cli.reading.document import Document, Fault, Path, Place, TextError, UnreadableError, path_of
from service.cli.reading.json_text import parse_json
from service.cli.reading.texts import parse_documents, read_text

__all__ = [
    "Document",
    "Fault",
    "Path",
    "Place",
    "TextError",
    "UnreadableError",
    "parse_documents",
    "parse_json",
    "path_of",
    "read_text",
]
