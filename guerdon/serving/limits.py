# SPDX-License-Identifier: Apache-2.0
"""Who may ask how much: rates, tokens, addresses."""

from __future__ import annotations

import hmac
import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from guerdon.errors import InputError

KNOWN = 10_000
"""Clients whose rate is remembered; the one heard of longest ago is forgotten first."""


class RateLimit:
    """A bucket of ``burst`` requests for each client, filled again at ``rate`` requests a second.

    >>> now = [0.0]
    >>> limit = RateLimit(rate=2, burst=3, clock=lambda: now[0])
    >>> [limit.wait("a") for _ in range(4)], limit.wait("b")
    ([0.0, 0.0, 0.0, 0.5], 0.0)
    >>> now[0] = 0.5; limit.wait("a"), limit.wait("a")
    (0.0, 0.5)
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        if not (rate > 0 and math.isfinite(rate)) or burst < 1:
            raise InputError(f"serve: a rate limit should be above 0 with a burst of 1 or more, got {rate} and {burst}.")
        self.rate, self.burst, self.clock = rate, burst, clock
        self.clients: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str) -> float:
        """0 and one request taken, or the seconds until there is one."""
        now = self.clock()
        left, since = self.clients.pop(client, (float(self.burst), now))
        left = min(self.burst, left + (now - since) * self.rate)
        taken = left >= 1
        self.clients[client] = (left - taken, now)
        if len(self.clients) > KNOWN:
            self.clients.popitem(last=False)
        return 0.0 if taken else (1 - left) / self.rate


def same_token(header: str, token: str) -> bool:
    """Whether an Authorization header bears the token; takes as long for a wrong one as for the right one."""
    kind, _, given = header.partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), token.encode())


def is_loopback(host: str) -> bool:
    """Whether a host is this machine alone.

    >>> [is_loopback(h) for h in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "example.org", "")]
    [True, True, True, False, False, False]
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def host_of(header: str) -> str:
    """The host in a Host header, without its port.

    >>> host_of("localhost:8000"), host_of("[::1]:8000"), host_of("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
