"""Where requests of a run's pods may go: what an address is, and which names and forms of a URL's host are refused.

The texts here are regular expressions that Python, OpenAPI schemas and CEL (RE2) read alike. What a name leads to is
looked at when it is connected to, with `describe_forbidden`.
"""

import ipaddress
import re
from typing import Final

_LABEL: Final = "[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?"
_LAST_LABEL: Final = "([A-Za-z_][A-Za-z0-9_-]*|[0-9]+[A-WYZa-wyz-][A-Za-z0-9_-]*|[0-9]*[1-9][0-9]*[Xx][A-Za-z0-9_-]*)"
"""No number, decimal, octal or hexadecimal: a host that ends in one is an IPv4 address in disguise (WHATWG URL)."""
_OCTET: Final = "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
HOST: Final = rf"(({_LABEL}\.)*{_LAST_LABEL}\.?|({_OCTET}\.){{3}}{_OCTET}|\[[0-9A-Fa-f:.]+\])"
"""A DNS name, an IPv4 address in its usual form, or an IPv6 address in brackets."""

_METADATA_NAMES: Final = (
    r"metadata\.google\.internal|metadata\.goog|instance-data(\.ec2\.internal)?|metadata\.azure\.(com|internal)"
    r"|metadata\.tencentyun\.com|metadata\.platformequinix\.com|metadata\.packet\.net"
)
_FORBIDDEN_V4: Final = (
    r"169\.254\.[0-9]+\.[0-9]+|0\.[0-9]+\.[0-9]+\.[0-9]+|100\.100\.100\.200|168\.63\.129\.16|192\.0\.0\.192"
    r"|(22[4-9]|2[3-5][0-9])\.[0-9]+\.[0-9]+\.[0-9]+"
)
_FORBIDDEN_V6: Final = (
    r"\[[0:]*\]|\[fe[89ab][0-9a-f]:[0-9a-f:.]*\]|\[ff[0-9a-f:.]*\]|\[fd00:0?ec2:[0-9a-f:]*\]|\[fd20:0{0,2}ce:[0-9a-f:]*\]"
    r"|\[[0-9a-f:]*\.[0-9.]*\]|\[[0:]*:ffff:[0-9a-f:]*\]|\[0*64:0*ff9b:[0-9a-f:]*\]|\[2002:[0-9a-f:]*\]"
)
"""Unspecified, link-local and multicast addresses, those of metadata services, and IPv4 addresses written in IPv6."""
FORBIDDEN_URL: Final = rf"(?i)^https?://({_METADATA_NAMES}|{_FORBIDDEN_V4}|{_FORBIDDEN_V6})\.?(:[0-9]+)?(/|$)"
"""A URL whose host is, as it is written, no place that a run's pods may ask."""
LOOPBACK_URL: Final = (
    r"(?i)^https?://(([a-z0-9-]+\.)*localhost\.?|127\.[0-9]+\.[0-9]+\.[0-9]+|\[[0:]*:0*1\])(:[0-9]+)?(/|$)"
)
"""A URL of the very machine that asks."""
INSIDE_URL: Final = r"(?i)^https?://[a-z0-9_-]+(\.[a-z0-9_-]+\.svc(\.cluster\.local)?\.?)?(:[0-9]+)?(/|$)"
"""A URL of a Service: its bare name, `NAME.NAMESPACE.svc` or `NAME.NAMESPACE.svc.cluster.local`."""

_METADATA: Final = frozenset(
    ipaddress.ip_address(text)
    for text in ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd00:ec2::23", "fd20:ce::254")
)
"""Metadata addresses of Alibaba, Azure, Oracle, Amazon and Google beside the link-local 169.254.169.254."""
_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def describe_forbidden(text: str, *, loopback: bool) -> str | None:
    """What makes an IP address one that is never connected to, as a noun; None for one that may be.

    `loopback` allows the machine's own addresses. An IPv4 address inside an IPv6 one counts as itself.
    """
    address = _embedded(ipaddress.ip_address(text.partition("%")[0]))
    if address in _METADATA or address == ipaddress.ip_address("169.254.169.254"):
        return "the address of a cloud's metadata service"
    if address.is_unspecified or address in ipaddress.ip_network("0.0.0.0/8"):
        return "no address of a server"
    if address.is_link_local:
        return "a link-local address"
    if address.is_multicast:
        return "an address of many servers"
    if address.is_loopback and not loopback:
        return "the pod's own address"
    return None


def is_loopback(text: str) -> bool:
    """Whether an IP address is the machine's own."""
    return _embedded(ipaddress.ip_address(text.partition("%")[0])).is_loopback


def _embedded(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, where it stands for one."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def matches(pattern: str, url: str) -> bool:
    """Whether a URL is one that a pattern of this module describes."""
    return re.search(pattern, url) is not None
