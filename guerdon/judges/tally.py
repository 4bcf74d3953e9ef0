# SPDX-License-Identifier: Apache-2.0
"""What judges were asked, what came back and what it cost; counted over the life of a reward or comparator."""

from __future__ import annotations

import threading
from dataclasses import dataclass, fields
from typing import Any

from guerdon.rewards.node import Reward

_LOCK = threading.Lock()  # of all tallies, so that a tally can be pickled


@dataclass
class Tally:
    """Counts.

    items              asked about, those from the cache included; equal items of one call count once
    cached             of them, from the cache
    unparsed           of them, in a reply that held no verdict for them
    timeouts, errors   of them, without a reply
    invented           verdicts with an id that nobody asked about
    requests, retries  sent; those of them that were sent again
    prompt_tokens, completion_tokens  as the server counts them
    unmetered          replies in which it did not say
    price              for a million prompt tokens and a million completion tokens
    """

    price: tuple[float, float] | None = None
    items: int = 0
    cached: int = 0
    unparsed: int = 0
    timeouts: int = 0
    errors: int = 0
    invented: int = 0
    requests: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unmetered: int = 0

    def add(self, **more: int) -> None:
        with _LOCK:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)

    @property
    def replied(self) -> int:
        """Items in replies that came."""
        return self.items - self.cached - self.timeouts - self.errors

    @property
    def unparsed_rate(self) -> float:
        """Share of the items in replies that had no verdict there; 0 where there were none."""
        return self.unparsed / self.replied if self.replied else 0.0

    @property
    def cost(self) -> float | None:
        """Of the metered replies; None without a price."""
        if self.price is None:
            return None
        return (self.prompt_tokens * self.price[0] + self.completion_tokens * self.price[1]) / 1e6

    def as_dict(self) -> dict[str, Any]:
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "price"}
        return found | {"unparsed_rate": self.unparsed_rate, "cost": self.cost}

    def __str__(self) -> str:
        """
        >>> t = Tally(price=(1.0, 4.0), items=10, cached=2, unparsed=1, requests=9, retries=1)
        >>> t.add(prompt_tokens=9000, completion_tokens=500)
        >>> print(t)
        10 items, 2 from the cache; of 8 in replies 1 without a verdict (12.5 %); 0 timeouts, 0 errors;
        9 requests, 1 again; 9,000 + 500 tokens, cost 0.011
        """
        cost = "" if self.cost is None else f", cost {self.cost:.4g}"
        unmetered = f" ({self.unmetered} replies did not say)" if self.unmetered else ""
        invented = f", {self.invented} invented ids" if self.invented else ""
        return (
            f"{self.items:,} items, {self.cached:,} from the cache; of {self.replied:,} in replies {self.unparsed:,} without a "
            f"verdict ({100 * self.unparsed_rate:.1f} %){invented}; {self.timeouts:,} timeouts, {self.errors:,} errors; "
            f"{self.requests:,} requests, {self.retries:,} again; "
            f"{self.prompt_tokens:,} + {self.completion_tokens:,} tokens{unmetered}{cost}"
        )


def tallies(reward: Reward) -> dict[str, Tally]:
    """The tallies of the judges in a reward, by the name of the part that asks."""
    found = {node.name: getattr(node, "tally", None) for node in reward.nodes()}
    return {name: tally for name, tally in found.items() if isinstance(tally, Tally)}
