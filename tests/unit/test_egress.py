"""Where calls for workflows may go: which addresses are public, and what the setting permits beside them."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from service.engine.egress.allowed import Allowed, parse
from service.engine.egress.guard import AddressNotAllowedError, Guard
from service.engine.egress.lookups import Lookups
from service.engine.egress.reach import is_public

INSIDE = (
    # Loopback, unspecified, private, link-local, CGNAT, metadata
    "127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.0.1 "
    "169.254.169.254 169.254.170.2 100.64.0.1 100.100.100.200 100.127.255.255 192.0.0.192 168.63.129.16 "
    # reserved, for documents and benchmarks, multicast, broadcast
    "192.0.2.1 192.88.99.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 "
    "255.255.255.255 "
    ":: ::1 fe80::1 fe80::1%1 2606:4700::1111%1 fec0::1 fc00::1 fd00:ec2::254 fd20:ce::254 ff02::1 100::1 5f00::1 "
    "2001:db8::1 3fff::1 2001::1 2001:2::1 2001:10::1 4000::1 "
    # an IPv4 address inside: mapped, compatible, translated, NAT64 (also of one's own), 6to4, Teredo, ISATAP
    "::ffff:127.0.0.1 ::ffff:10.0.0.1 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe "
    "64:ff9b:1::8.8.8.8 2002:7f00:1:: 2002:a00:1::1 2001:0:808:808::1 2606:4700::5efe:10.0.0.1 "
    "2606:4700::200:5efe:127.0.0.1"
)
OUTSIDE = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255 "
    "172.15.255.255 172.32.0.0 192.0.1.0 192.31.196.1 198.17.255.255 198.20.0.0 223.255.255.255 "
    "2606:4700::1111 2a00:1450::1 2001:4860::8888 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1"
)


@pytest.mark.parametrize("address", INSIDE.split())
def test_what_is_inside_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE.split())
def test_what_is_outside_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    ("rule", "permitted", "refused"),
    [
        ("10.1.0.0/16", "10.1.2.3 ::ffff:10.1.2.3 64:ff9b::10.1.2.3", "10.2.0.1 ::1"),
        ("10.1.2.3:8080", "10.1.2.3|8080", "10.1.2.3 10.1.2.4|8080"),
        ("fd00::/8", "fd00::1 fdff::2", "fc00::1"),
        ("[fd00::/8]:8080", "fd00::1|8080", "fd00::1"),
        ("[::1]", "::1|9", "127.0.0.1|9"),
        ("::1", "::1", "::2"),
        ("API.internal.", "api.internal", "xapi.internal api.internal.evil internal x.api.internal"),
        ("api.internal:8080", "api.internal|8080", "api.internal"),
        ("*.svc.local", "a.svc.local b.a.svc.local", "svc.local xsvc.local a.svc.local.evil"),
        ("localhost", "localhost", "localhost.evil"),
        ("under_score", "under_score", "underscore"),
        ("0.0.0.0/0", "0.0.0.0 127.0.0.1 169.254.169.254", "::1"),
    ],
)
def test_a_rule_permits_what_it_names(rule: str, permitted: str, refused: str) -> None:
    allowed = Allowed([rule])
    for places, is_permitted in ((permitted, True), (refused, False)):
        for place in places.split():
            host, _, port = place.partition("|")
            address = ip_address(host if ":" in host or host[0].isdecimal() else "172.16.9.9")
            assert allowed.permits(host, int(port or 80), address) is is_permitted, place


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ("http://api.internal", "is a URL"),
        ("10.1.2.3/16", "the network is 10.1.0.0/16"),
        ("10.1.0.0/33", "'33' is no length of a network"),
        ("10.1/16", "'10.1' is no address"),
        ("api.internal/8", "'api.internal' is no address"),
        ("10.1.0.0/16:0", "a port is a number from 1 to 65535"),
        ("api.internal:65536", "a port is a number from 1 to 65535"),
        ("api.internal:", "a port is a number from 1 to 65535"),
        ("api.internal:http", "must be an address"),
        ("127.1", "is no address: an IPv4 address has four numbers"),
        ("2130706433", "is no address"),
        ("0x7f000001", "is no address"),
        ("300.1.1.1", "is no address"),
        ("fe80::1%eth0", "without the part from %"),
        ("bücher.example", "must be in ASCII"),
        ("*", "must be an address"),
        ("a.*.b", "must be an address"),
        ("*.", "must be an address"),
        ("a b", "must be an address"),
        ("user@host", "must be an address"),
        ("-a.b", "must be an address"),
        (".local", "must be an address"),
        ("a" * 64, "must be an address"),
        ("[fd00::1", "must be an address"),
    ],
)
def test_a_rule_that_is_wrong_is_told(rule: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint.replace("(", r"\(")):
        parse(rule)


@pytest.mark.parametrize(
    ("answers", "is_refused"),
    [
        (["93.184.215.14", "2606:2800::1"], False),
        (["93.184.215.14", "127.0.0.1"], True),
        (["10.0.0.1", "93.184.215.14"], True),
        (["93.184.215.14", "no address"], True),
    ],
)
async def test_each_address_of_a_name_must_be_public(answers: list[str], is_refused: bool) -> None:
    guard = Guard(lookups=Lookups(lambda host, port: [(0, 0, 0, "", (each, port)) for each in answers]))
    if not is_refused:
        assert await guard.addresses("acme", "name.example", 80) == answers
        return
    with pytest.raises(AddressNotAllowedError, match=r"^the host 'name\.example' has an address that is not public"):
        await guard.addresses("acme", "name.example", 80)


@pytest.mark.parametrize("host", ["metadata.google.internal", "METADATA.google.internal.", "instance-data", "metadata"])
async def test_the_names_of_metadata_are_refused_whatever_they_lead_to(host: str) -> None:
    lookups = Lookups(lambda host, port: [(0, 0, 0, "", ("93.184.215.14", port))])
    with pytest.raises(AddressNotAllowedError):
        await Guard(lookups=lookups).addresses("acme", host, 80)
    assert await Guard(Allowed([host]), lookups=lookups).addresses("acme", host, 80)


async def test_the_servers_own_ports_are_closed_unless_a_rule_names_one() -> None:
    guard, named = Guard(Allowed(["127.0.0.1"]), has_loopback=True), Guard(Allowed(["127.0.0.1:50051"]))
    for each in (guard, named):
        each.keep_off([50051])
    assert await guard.addresses("acme", "127.0.0.1", 50052)
    for host in ("127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "0.0.0.0"):  # noqa: S104 - to call
        with pytest.raises(AddressNotAllowedError):
            await guard.addresses("acme", host, 50051)
    assert await named.addresses("acme", "127.0.0.1", 50051)


@pytest.mark.parametrize("host", ["", "a b", "a\r\nb", "a\0", "bücher.example", "a/b", "a@b", "x" * 300, "[::1]"])
async def test_what_is_no_host_is_not_looked_up(host: str) -> None:
    with pytest.raises(AddressNotAllowedError):
        await Guard(lookups=Lookups(lambda host, port: pytest.fail("looked up"))).addresses("acme", host, 80)
