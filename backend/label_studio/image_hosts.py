"""Hosts besides Label Studio that images may come from, as the settings name them.

A name says nothing about where it leads: whoever runs its DNS can point it into our own network from one second to the
next. So the name is looked up here, its addresses are judged, and the connection goes to an address that passed, not
to the name. Neither the token nor anything else that Label Studio knows us by is ever sent to these hosts.
"""

import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from backend.label_studio.errors import ForbiddenImageUrl, LabelStudioRefused, LabelStudioUnreachable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LookUp = Callable[[str, int], Sequence[str]]

_PORTS = {"http": 80, "https": 443}
_TIMEOUT = httpx.Timeout(30, connect=5)
# IPv6 addresses that carry an IPv4 one on to somewhere else: 6to4, Teredo, NAT64
_TUNNELS = tuple(ipaddress.ip_network(each) for each in ("2002::/16", "2001::/32", "64:ff9b::/96", "64:ff9b:1::/48"))


@dataclass(frozen=True)
class ImageHosts:
    """Who may be asked: (host, port or None for the scheme's own), and the networks that are not public but allowed."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    def names(self, url: httpx.URL) -> bool:
        """Whether a URL is on a listed host, at a listed port."""
        usual = _PORTS.get(url.scheme)
        port = None if url.port in (None, usual) else url.port
        return (
            usual is not None and not url.userinfo and bool({(url.host, port), (url.host, port or usual)} & self.hosts)
        )

    def allows(self, address: Address, host: str) -> bool:
        """Whether a listed host may be at an address: a public one, one listed itself, or one in a listed network."""
        if host == str(address) or any(address in network for network in self.networks):
            return True
        if isinstance(address, ipaddress.IPv6Address):
            if address.ipv4_mapped:
                return self.allows(address.ipv4_mapped, host)
            if any(address in tunnel for tunnel in _TUNNELS):
                return False
        return address.is_global and not address.is_multicast


def parse(hosts: str, networks: str) -> ImageHosts:
    """Read the two settings, comma-separated. ValueError says what is wrong."""
    return ImageHosts(
        frozenset(_host(entry) for entry in _entries(hosts)),
        tuple(ipaddress.ip_network(entry) for entry in _entries(networks)),
    )


def _entries(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",") if entry.strip()]


def _host(entry: str) -> tuple[str, int | None]:
    try:
        url = httpx.URL(f"http://{entry}")
    except httpx.InvalidURL:
        url = httpx.URL()
    if not url.host or url.userinfo or url.raw_path != b"/" or url.fragment or "*" in entry:
        raise ValueError(f"{entry!r} is no host; give a name or an address such as images.example.org or 10.0.0.5:8042")
    # httpx hides port 80 of http, which here means what was written
    return url.host, 80 if entry.endswith(":80") else url.port


class Outside:
    """Requests to listed hosts, at addresses that are allowed: no token, no cookies, no redirects, no proxy."""

    def __init__(
        self, allowed: ImageHosts, transport: httpx.BaseTransport | None = None, look_up: LookUp | None = None
    ) -> None:
        self.allowed = allowed
        self._look_up = look_up or _addresses
        self._http = httpx.Client(
            timeout=_TIMEOUT,
            transport=transport,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            # A connection is told from others by its address; kept open, it could serve another name unverified.
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def close(self) -> None:
        self._http.close()

    @contextmanager
    def opened(self, url: httpx.URL) -> Iterator[httpx.Response]:
        """The answer to a GET, whatever its status, its body not read. The URL must be one that `allowed` names.

        Raises ForbiddenImageUrl, LabelStudioUnreachable.
        """
        response = self._send(url)
        try:
            yield response
        finally:
            response.close()

    def _send(self, url: httpx.URL) -> httpx.Response:
        failure: httpx.RequestError | None = None
        for address in self._allowed_addresses(url):
            try:
                return self._http.send(self._request(url, address), stream=True)
            except (httpx.ConnectError, httpx.ConnectTimeout) as error:
                failure = error
            except (httpx.InvalidURL, httpx.RemoteProtocolError) as error:
                raise LabelStudioRefused(
                    f"the image host {url.host} answered what is not HTTP ({error})", 302
                ) from error
            except httpx.RequestError as error:
                failure = error
                break
        kind = type(failure).__name__ if failure else "no address"
        raise LabelStudioUnreachable(f"no answer from the image host {url.host} ({kind}); is it up?") from failure

    def _request(self, url: httpx.URL, address: Address) -> httpx.Request:
        """To the address that was judged; the name goes along for the host's own choice and for its certificate."""
        host = url.netloc.decode("ascii")
        return self._http.build_request(
            "GET",
            url.copy_with(host=str(address), fragment=None),
            headers={"Host": host, "Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "wardround"},
            extensions={"sni_hostname": url.raw_host.decode("ascii")},
        )

    def _allowed_addresses(self, url: httpx.URL) -> list[Address]:
        try:
            found = [ipaddress.ip_address(each) for each in self._look_up(url.host, url.port or _PORTS[url.scheme])]
        except (OSError, UnicodeError, ValueError) as error:
            raise LabelStudioUnreachable(
                f"the image host {url.host} has no address ({error}); check its name"
            ) from error
        allowed = [address for address in found if self.allowed.allows(address, url.host)]
        if found and not allowed:
            raise ForbiddenImageUrl(
                f"image not fetched: {url.host} is at {found[0]}, which is not a public address; if that is meant, "
                "name its network in WARDROUND_IMAGE_NETWORKS"
            )
        return allowed


def _addresses(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    # An address of one's own link carries the name of its interface behind a %
    return list(dict.fromkeys(str(entry[4][0]).partition("%")[0] for entry in found))
