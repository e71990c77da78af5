"""Addresses of e-mail as people write them: `ann@example.org`, or `Ann Lee <ann@example.org>`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from email.header import Header
from email.utils import formataddr

LONGEST_ADDRESS = 254
LONGEST_NAME = 128
LINE_FOLD = "\r\n "
_LONGEST_LOCAL = 64

_NAMED = re.compile(r"([^<>]*?)\s*<([^<>]*)>")
_LOCAL = re.compile(r"[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+(?:\.[0-9A-Za-z!#$%&'*+/=?^_`{|}~-]+)*")
_LABEL = r"[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
# All that some program takes for the end of a line, and what else is no text.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """Whom an e-mail goes to or comes from: the name that is shown, empty for none, and the address, in ASCII."""

    name: str
    address: str

    @property
    def domain(self) -> str:
        """The domain of the address."""
        return self.address.rpartition("@")[2]

    @property
    def header(self) -> str:
        """As headers have it, in ASCII: the name is quoted or encoded as it needs it."""
        if (name := shown(self.name)) == self.name:
            return formataddr((name, self.address))
        return f"{name} <{self.address}>"


def shown(text: str, header: str | None = None) -> str:
    """Return a text as headers have it: as it is in ASCII, unless it looks like an encoded word; else encoded."""
    if text.isascii() and "=?" not in text:
        return text
    return Header(text, "utf-8", header_name=header).encode(linesep="\r\n")


def fault_of_line(text: str) -> str:
    """Return why a text cannot stand in a header, empty if it can."""
    return "has a line end or another control character, which headers cannot carry" if _CONTROL.search(text) else ""


def mailbox(text: str) -> Mailbox:
    """Return whom a text names. Raises ValueError, which says what is wrong or would be right, not what was given."""
    if fault := fault_of_line(text):
        raise ValueError(fault)
    named = _NAMED.fullmatch(text.strip())
    name, address = (_unquoted(named[1].strip()), named[2].strip()) if named else ("", text.strip())
    if len(name) > LONGEST_NAME:
        raise ValueError(f"has a name of more than {LONGEST_NAME} characters")
    local, at, domain = address.rpartition("@")
    if not (at and _LOCAL.fullmatch(local) and _DOMAIN.fullmatch(domain)):
        raise ValueError(_wrong(address))
    if len(address) > LONGEST_ADDRESS or len(local) > _LONGEST_LOCAL:
        raise ValueError(f"has more than {_LONGEST_LOCAL} characters before the @, or {LONGEST_ADDRESS} in all")
    return Mailbox(name, f"{local}@{domain.lower()}")


def _unquoted(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return re.sub(r"\\(.)", r"\1", name[1:-1])
    return name


def _wrong(address: str) -> str:
    if not address.isascii():
        return "has an address beyond ASCII; write a domain such as münchen.example as xn--mnchen-3ya.example"
    if address.count("@") > 1 or "," in address or ";" in address:
        return "must be one address; several are a list of texts"
    return "is no address of e-mail; write it as ann@example.org or Ann Lee <ann@example.org>"
