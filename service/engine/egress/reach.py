"""Which addresses are public, as the registries of IANA have it: anything else leads to what is ours to keep."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Not from `is_global`, which answers otherwise from one release of Python to the next.
_NOT_PUBLIC_4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this network; Linux takes 0.0.0.0 for itself
            "10.0.0.0/8",
            "100.64.0.0/10",  # carrier-grade NAT; 100.100.100.200 tells secrets to machines of Alibaba's cloud
            "127.0.0.0/8",
            "169.254.0.0/16",  # link-local, and 169.254.169.254, which tells secrets to machines of most clouds
            "172.16.0.0/12",
            "192.0.0.0/24",  # of protocols, and 192.0.0.192, the same of Oracle's
            "192.0.2.0/24",
            "192.88.99.0/24",  # relays of 6to4
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
            "168.63.129.16/32",  # public by the book: the same of Azure's
        ),
    )
)
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC_6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # of protocols; Teredo among them, which hides an IPv4 address and nobody speaks any more
            "2001:db8::/32",
            "3fff::/20",
        ),
    )
)
_MAPPED, _NAT64, _6TO4 = map(IPv6Network, ("::ffff:0:0/96", "64:ff9b::/96", "2002::/16"))
_ISATAP = frozenset({0x00005EFE, 0x02005EFE})


def is_public(address: Address) -> bool:
    """Return whether an address is global unicast, and so is the IPv4 address in it if it has one."""
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _NOT_PUBLIC_4)
    inner = embedded(address)
    if inner is not None and not is_public(inner):
        return False
    if address in _MAPPED or address in _NAT64:
        return True
    is_global = address in _GLOBAL_UNICAST and address.scope_id is None
    return is_global and not any(address in network for network in _NOT_PUBLIC_6)


def embedded(address: Address) -> IPv4Address | None:
    """Return the IPv4 address to which an IPv6 address leads: mapped, by NAT64, 6to4 or ISATAP."""
    if isinstance(address, IPv4Address):
        return None
    number = int(address)
    if address in _MAPPED or address in _NAT64 or (number >> 32) & 0xFFFFFFFF in _ISATAP:
        return IPv4Address(number & 0xFFFFFFFF)
    return IPv4Address((number >> 80) & 0xFFFFFFFF) if address in _6TO4 else None


def is_loopback(address: Address) -> bool:
    """Return whether an address is the machine's own, reached by no other."""
    inner = embedded(address) if address in _MAPPED else None
    return (inner or address).is_loopback
