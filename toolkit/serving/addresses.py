"""Where the server listens, by which names it answers, and which pages elsewhere may ask it."""

import ipaddress
import re
import socket
from dataclasses import dataclass

from toolkit.run.command import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://[^/\sA-Z]+")


def require_origin(origin: str) -> None:
    """Raise ValueError unless it is an origin as a browser says it."""
    if not ORIGIN.fullmatch(origin):
        raise ValueError(
            f"--allow_origin {origin}: write it as browsers do, https://example.org, in small "
            "letters and without a path; * lets every page ask"
        )


@dataclass(frozen=True)
class Address:
    """Host and port to listen on, and the origins of pages elsewhere that may ask."""

    host: str
    port: int
    origins: tuple[str, ...] = ()

    @property
    def is_private(self) -> bool:
        """Tell whether only this machine can reach it."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def names(self) -> set[str] | None:
        """The hosts that requests may name; None: any."""
        return {self.host.lower(), *LOOPBACK} if self.is_private else None

    def listen(self) -> socket.socket:
        """Raises UserError if the port cannot be had."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        both = self.host == "::" and socket.has_dualstack_ipv6()
        try:
            return socket.create_server((self.host, self.port), family=family, dualstack_ipv6=both)
        except (OSError, UnicodeError, TypeError) as error:  # TypeError: too long to encode
            problem = getattr(error, "strerror", None) or error
            raise UserError(f"--port {self.port} on --host {self.host}: {problem}") from None

    def url(self, port: int) -> str:
        """Return the address as a browser takes it."""
        host = own_address() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def own_address() -> str:
    """Return this machine's address in its network. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address for documentation
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"
