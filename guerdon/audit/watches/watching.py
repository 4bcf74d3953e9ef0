# SPDX-License-Identifier: Apache-2.0
"""Watches: a part of a training stage that looks at what the reward does not, and says when it goes wrong.

Each step every quantity's mean goes into the metrics (``watch/NAME``), with its drift from the reference in standard deviations
(``watch/NAME/drift``). At the looks of ``statistics.is_look`` the tests are made, and an alarm that starts is a text under
``alarm``. Three kinds:

quantity    one that the reward does not measure has a trend, and the whole interval of its drift lies beyond its margins
gold        the proxy rises while a gold falls
dominance   one term has had nearly all of the advantage's variance for many steps

With a gold that rises, a drift is no alarm but a text under ``note``: what is meant improves, and behaviour changes with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.audit.watches.control import CONTROL
from guerdon.audit.watches.gold import divergence, gold_names, kl_from_start, row_totals
from guerdon.audit.watches.quantities import TIED, Quantity, reading
from guerdon.audit.watches.series import Series
from guerdon.audit.watches.statistics import drift, is_look, level_of, trend
from guerdon.audit.watches.text import TEXT
from guerdon.errors import InputError
from guerdon.levels import pool
from guerdon.rollouts import Rollouts
from guerdon.training.evolving import Told
from guerdon.training.scoring import policy_outputs

KINDS = ("quantity", "gold", "dominance")
STOPS = ("", *KINDS, "any")
JOINT = " | "
"""Between alarms that start in the same step."""


@dataclass
class Watches:
    """An evolving part of a stage; see ``attaching.watched``, which adds it to a recipe.

    reward      what is trained on; its watched oracles are the golds
    quantities  what is watched; None: those of text or of control, by the fields of the first batch
    reference   rows of the reference policy; None: the first batches, the start policy's, until there are ``least`` units
    start       () -> the policy as it began, for the KL; None: the KL is known only where the policy keeps a reference itself
    stop        the kind of alarm that ends the run, "any", or "" for none
    alpha       probability of a false alarm of any test in a run, however long
    share       of the advantage's variance that makes a term dominate, for ``patience`` steps in a row
    """

    reward: Any
    quantities: Sequence[Quantity] | None = None
    reference: Rollouts | None = None
    start: Callable[[], Any] | None = None
    stop: str = ""
    alpha: float = 0.01
    least: int = 32
    share: float = 0.98
    patience: int = 50
    micro_rows: int = 64

    before = False

    series: dict[str, Series] = field(default_factory=dict, init=False)
    paid: dict[str, list[float]] = field(default_factory=dict, init=False)
    dominant: dict[str, int] = field(default_factory=dict, init=False)
    alarms: dict[str, dict[str, Any]] = field(default_factory=dict, init=False)
    noted: dict[str, str] = field(default_factory=dict, init=False)
    looks: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        if self.stop not in STOPS:
            raise InputError(f"watch: `stop` should be one of {', '.join(map(repr, STOPS))}, got {self.stop!r}.")
        if not 0 < self.alpha < 1 or self.least < 2:
            raise InputError(f"watch: expected 0 < alpha < 1 and `least` of 2 or more, got {self.alpha} and {self.least}.")
        self.golds = gold_names(self.reward)
        if self.stop == "gold" and not self.golds:
            raise InputError(
                f"watch: stop='gold' needs a gold, and `{self.reward}` watches none. Add one with + oracle(...).watch()."
            )
        self._start: Any = None

    # ---- told once a step by the loop

    def update(self, told: Told) -> Mapping[str, Any]:
        rollouts, scores = told.batch.rollouts, told.scores
        if self.quantities is None:
            self.quantities = natural(rollouts)
        metrics: dict[str, Any] = {}
        reward = None if scores is None else scores.reward()
        for i, q in enumerate(self.quantities):
            if q.applies(rollouts):
                self.quantities = [*self.quantities[:i], q := self._fitted(q, rollouts), *self.quantities[i + 1 :]]
                metrics |= self._measure(q, rollouts, reward)
        if scores is not None:
            self._pay("proxy", row_totals(scores.total))
            for name in self.golds:
                self._pay(f"gold/{name}", row_totals(scores.trace[name]))
            metrics |= self._gains()
            metrics |= self._divergence(rollouts, told.policy) if self.golds else {}
        begun, known = self._dominance(told.metrics), set(self.noted)
        if is_look(max((len(s.means) for s in self.series.values()), default=len(self.paid.get("proxy", ())))):
            begun += self._look()
        for alarm in begun:
            self.alarms[alarm["about"]] = {**alarm, "step": told.step + 1}
        metrics |= {"alarm": JOINT.join(a["text"] for a in begun)} if begun else {}
        metrics |= {"note": JOINT.join(new)} if (new := [text for name, text in self.noted.items() if name not in known]) else {}
        return metrics | {"watch/alarms": len(self.alarms)}

    @property
    def stopping(self) -> str:
        """Why the run should end, or ""."""
        wanted = KINDS if self.stop == "any" else (self.stop,)
        return next((f"watch: {a['text']}" for a in self.alarms.values() if a["kind"] in wanted), "")

    # ---- what is measured

    def _fitted(self, q: Quantity, rollouts: Rollouts) -> Quantity:
        if q.fit is None or q.settings:
            return q
        return q.fitted(rollouts if self.reference is None else self.reference)

    def _measure(self, q: Quantity, rollouts: Rollouts, reward: Tensor | None) -> dict[str, float]:
        if q.name not in self.series:
            self.series[q.name] = Series(self.least)
            if self.reference is not None:
                self.series[q.name].reference = _reference(q, self.reference)
                self.series[q.name].given = True
        s = self.series[q.name]
        s.add(*_units(q(rollouts), rollouts, reward))
        found = {f"watch/{q.name}": s.means[-1]}
        if s.ready:
            found[f"watch/{q.name}/drift"] = drift(s.newest.sample, s.reference.sample, 0.05).size
        return found

    def _pay(self, name: str, rows: Tensor) -> None:
        known = rows[~rows.isnan()]
        self.paid.setdefault(name, []).append(known.mean().item() if len(known) else math.nan)
        if f"{name}/sd" not in self.paid and len(known) > 1:
            self.paid[f"{name}/sd"] = [known.std().item()]

    def _gains(self) -> dict[str, float]:
        """Proxy and golds against the first batch, in standard deviations of its rows (as they are where these are all equal)."""
        out: dict[str, float] = {}
        for name, values in self.paid.items():
            if not name.endswith("/sd") and self.golds:
                deviation = self.paid.get(f"{name}/sd", [1.0])[0] or 1.0
                out |= {f"watch/{name}": values[-1], f"watch/{name}/gain": (values[-1] - values[0]) / deviation}
        return out

    def _divergence(self, rollouts: Rollouts, policy: Any) -> dict[str, float]:
        log_prob = self._start_log_prob(rollouts, policy)
        return {} if log_prob is None or rollouts.log_prob is None else {"watch/kl": kl_from_start(rollouts, log_prob)}

    @torch.no_grad()
    def _start_log_prob(self, rollouts: Rollouts, policy: Any) -> Tensor | None:
        if "ref_log_prob" in rollouts.fields:
            return torch.as_tensor(rollouts.field("ref_log_prob").values)
        if "ref_log_prob" in policy.outputs:
            return policy_outputs(policy, rollouts, frozenset({"ref_log_prob"}), self.micro_rows)["ref_log_prob"]
        if self.start is None:
            return None
        self._start = self._start or self.start()
        return policy_outputs(self._start, rollouts, frozenset({"log_prob"}), self.micro_rows)["log_prob"]

    # ---- what is judged

    def _dominance(self, metrics: Mapping[str, Any]) -> list[dict[str, Any]]:
        shares = {k.removeprefix("share/"): v for k, v in metrics.items() if k.startswith("share/")}
        begun = []
        for name, value in shares.items() if len(shares) > 1 else ():
            self.dominant[name] = self.dominant.get(name, 0) + 1 if value > self.share else 0
            about = f"share/{name}"
            if self.dominant[name] == self.patience and about not in self.alarms:
                text = (
                    f"`{name}` has had more than {self.share:.0%} of the advantage's variance for {self.patience} steps: "
                    "the other terms teach nothing"
                )
                begun.append({"kind": "dominance", "about": about, "text": text})
        return begun

    def _look(self) -> list[dict[str, Any]]:
        self.looks += 1
        level = level_of(self.looks, self.alpha, len(self.series) + len(self.golds))
        begun, improving = [], []
        for name in self.golds:
            gold = np.array(self.paid[f"gold/{name}"])
            found = divergence(np.array(self.paid["proxy"]), gold, level)
            improving.append((t := trend(gold)).z > 0 and t.p < level and found is None)
            if found and f"gold/{name}" not in self.alarms:
                what = f"the proxy rises (z = {found[0].z:.1f}) while the gold `{name}` falls (z = {found[1].z:.1f})"
                begun.append({"kind": "gold", "about": f"gold/{name}", "text": what})
        for q in self.quantities or ():
            if q.name in self.series and q.name not in self.alarms and (text := self._drifted(q, level)):
                if any(improving):
                    self.noted.setdefault(q.name, text)
                else:
                    begun.append({"kind": "quantity", "about": q.name, "text": text})
        return begun

    def _drifted(self, q: Quantity, level: float) -> str:
        """What is wrong with a quantity, "" for nothing."""
        s, read = self.series[q.name], reading(q, self.reward)
        if not s.ready or read == "itself" or abs(s.tied or 0.0) >= TIED:
            return ""
        moved, gone = trend(np.array(s.means)), drift(s.newest.sample, s.reference.sample, level)
        way, before, after = gone.beyond(q.margin), s.reference.sample.mean, s.newest.sample.mean
        much = abs(after - before) > q.change * abs(before)
        if not way or not much or moved.p >= level or way * moved.z < 0 or q.harm not in (0, way):
            return ""
        share = f"{(after - before) / abs(before):+.0%}, " if before else ""
        how = f"{'rises' if way > 0 else 'falls'} from {before:.4g} to {after:.4g} {q.unit} ({share}trend z = {moved.z:.1f})"
        return f"{q.name} {how}; {_READ[read].format(', '.join(sorted(q.fields)))}"

    # ---- kept in the checkpoint

    def state_dict(self) -> dict[str, Any]:
        settings = {q.name: dict(q.settings) for q in self.quantities or () if q.settings}
        return {
            "series": {k: s.state_dict() for k, s in self.series.items()},
            "paid": {k: torch.tensor(v, dtype=torch.float64) for k, v in self.paid.items()},
            "dominant": dict(self.dominant),
            "alarms": {k: dict(a) for k, a in self.alarms.items()},
            "noted": dict(self.noted),
            "looks": self.looks,
            "settings": settings,
            "natural": [q.name for q in self.quantities or ()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        if self.quantities is None and state["natural"]:
            self.quantities = TEXT if [q.name for q in TEXT] == list(state["natural"]) else CONTROL
        self.quantities = self.quantities and [
            q.with_settings(dict(state["settings"][q.name])) if q.name in state["settings"] else q for q in self.quantities
        ]
        for name, kept in state["series"].items():
            self.series[name] = Series(self.least)
            self.series[name].load_state_dict(kept)
        self.paid = {k: v.tolist() for k, v in state["paid"].items()}
        self.dominant = {k: int(v) for k, v in state["dominant"].items()}
        self.alarms, self.noted = {k: dict(a) for k, a in state["alarms"].items()}, dict(state["noted"])
        self.looks = int(state["looks"])


_READ = {"no": "the reward does not read {}", "its fields": "the reward reads {}, but does not move with it"}


def natural(rollouts: Rollouts) -> tuple[Quantity, ...]:
    """What is watched where nobody says: of text where there are completions, of control where there are observations."""
    if "completion" in rollouts.fields:
        return TEXT
    return CONTROL if "observation" in rollouts.fields else ()


def _units(values: Tensor, rollouts: Rollouts, reward: Tensor | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values, clusters and what was paid, of each row or each episode."""
    group = rollouts.group.cpu()
    paid = torch.full(rollouts.mask.shape, torch.nan) if reward is None else reward.detach()
    if values.dim() == 2:
        owned = pool(paid.double().cpu(), rollouts.level("episode").cpu(), "sum", rollouts.mask.cpu())
        group, whole = group[:, None].expand(values.shape), owned[:, : values.shape[1]]
    else:
        whole = torch.where(rollouts.mask, paid.double(), 0).sum(1).cpu()
    return tuple(x.flatten().cpu().double().numpy() for x in (values, group, whole))  # type: ignore[return-value]


def _reference(q: Quantity, rollouts: Rollouts) -> Any:
    return Series(1).reference.with_batch(*_units(q(rollouts), rollouts, None))
