# SPDX-License-Identifier: Apache-2.0
"""Boosted trees as an actor and a critic: an update adds a tree that fits the gradient of the loss with respect to the outputs.

There are no parameters to differentiate by, so this policy is also the proof that the loop needs none. Trees by GBRL (Fuhrer,
Tessler and Dalal 2024, arXiv:2407.08250); needs ``guerdon[trees]``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from guerdon.errors import GuerdonError, InputError
from guerdon.policies.acting import Acted
from guerdon.policies.action_distribution import Categorical
from guerdon.policies.counter_stream import counter_stream
from guerdon.protocols import Context
from guerdon.rollouts import Field, Rollouts

CONFIG = "config.json"
PARTS = ("logits", "value")


@dataclass
class Asked:
    """What an evaluation read, and the outputs of the trees, which gather the gradient."""

    rows: np.ndarray
    leaves: dict[str, Tensor]


class BoostedTrees:
    """One ensemble for the logits of ``actions``, one for the value, on the step field ``observation`` of ``size`` numbers.

    ``depth`` of a tree; ``bins``: how many cuts of a number are tried. Before the first update all actions are as
    probable. GBRL sets memory aside beforehand: about 0.28 GB for an ensemble of depth 4, twice as much for each level more.
    """

    outputs = frozenset({"log_prob", "entropy", "value", "next_value"})

    def __init__(self, size: int, actions: Categorical, *, depth: int = 4, bins: int = 256) -> None:
        if not isinstance(actions, Categorical):
            raise InputError(f"boosted trees: expected a Categorical of actions, got {actions}. Usual cause: continuous actions.")
        self.size, self.actions, self.depth, self.bins = size, actions, depth, bins
        self.trees = {"logits": self._fresh(actions.count), "value": self._fresh(1)}
        self.asked: list[Asked] = []

    def _fresh(self, outputs: int) -> Any:
        from gbrl.learners.gbt_learner import GBTLearner

        tree = {"max_depth": self.depth, "n_bins": self.bins, "min_data_in_leaf": 0, "par_th": 2, "grow_policy": "greedy"}
        descent = {"algo": "SGD", "init_lr": 1.0, "start_idx": 0, "stop_idx": outputs, "scheduler": "Const"}  # the rate is ours
        made = GBTLearner(
            self.size, outputs, tree, descent, {"split_score_func": "Cosine", "generator_type": "Quantile"}, device="cpu"
        )
        made.reset()
        return made

    def _predicted(self, part: str, rows: np.ndarray) -> np.ndarray:
        width = self.actions.count if part == "logits" else 1
        found = self.trees[part].predict(rows, requires_grad=False, tensor=False)
        return np.asarray(found, dtype=np.float32).reshape(len(rows), width).copy()

    # ---- acting

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return self.actions.noise(rng, steps)

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        return Acted(*self.actions.draw(self._predicted("logits", _rows(observation)), noise, greedy=greedy))

    def sample(self, contexts: Sequence[Context], sampling: Any, seed: int) -> Rollouts:
        """One step for each context, whose prompt is an observation: a contextual bandit."""
        observation = np.stack([np.asarray(c.prompt, dtype=np.float32) for c in contexts])
        noise = counter_stream(seed, [(c.task, c.index) for c in contexts], 1)[:, 0].numpy()
        acted = self.act(observation, noise, greedy=getattr(sampling, "temperature", 1.0) == 0)
        yes = torch.ones(len(contexts), 1, dtype=torch.bool)
        return Rollouts(
            action=torch.from_numpy(acted.action)[:, None],
            mask=yes,
            task=[c.task for c in contexts],
            log_prob=torch.from_numpy(acted.log_prob)[:, None],
            terminated=yes,
            group=torch.tensor([c.group for c in contexts]),
            fields={
                "observation": Field("step", torch.from_numpy(observation)[:, None]),
                **{
                    k: Field("task", [c.fields[k] for c in contexts])
                    for k in dict.fromkeys(f for c in contexts for f in c.fields)
                },
            },
        )

    # ---- the policy protocol

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        """Outputs [N, T], 0 at steps that others took; with gradient they are noted, so that the updater can fit them."""
        unknown = want - self.outputs
        if unknown:
            raise InputError(
                f"boosted trees: no output {', '.join(sorted(unknown))}; there are {', '.join(sorted(self.outputs))}."
            )
        mask = rollouts.mask
        rows = _rows(rollouts.field("observation").values[mask].numpy())
        parts = [p for p, names in (("logits", {"log_prob", "entropy"}), ("value", {"value"})) if want & names]
        leaves = {p: torch.from_numpy(self._predicted(p, rows)).requires_grad_(torch.is_grad_enabled()) for p in parts}
        if torch.is_grad_enabled() and leaves:
            self.asked.append(Asked(rows, leaves))
        found: dict[str, Tensor] = {}
        if "log_prob" in want:
            found["log_prob"] = self.actions.log_prob(leaves["logits"], rollouts.action[mask])
        if "entropy" in want:
            found["entropy"] = self.actions.entropy(leaves["logits"])
        if "value" in want:
            found["value"] = leaves["value"][:, 0]
        if "next_value" in want:
            after = _rows(rollouts.field("next_observation").values[mask].numpy())
            found["next_value"] = torch.from_numpy(self._predicted("value", after))[:, 0]
        return {k: torch.zeros(mask.shape).masked_scatter(mask, x) for k, x in found.items()}

    def updater(self, **settings: Any) -> TreeUpdater:
        return TreeUpdater(self, **settings)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """The ensembles as the bytes of GBRL's own files; None where there is no tree yet."""
        return {part: self._bytes(part) for part in PARTS}

    def _bytes(self, part: str) -> Tensor | None:
        if self.trees[part].get_num_trees() == 0:
            return None
        with tempfile.TemporaryDirectory() as folder:
            self.trees[part].save(str(Path(folder) / part))
            return torch.frombuffer(bytearray((Path(folder) / f"{part}.gbrl_model").read_bytes()), dtype=torch.uint8)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        from gbrl.learners.gbt_learner import GBTLearner

        for part in PARTS:
            if state[part] is None:
                self.trees[part] = self._fresh(self.actions.count if part == "logits" else 1)
                continue
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"{part}.gbrl_model"
                path.write_bytes(state[part].numpy().tobytes())
                self.trees[part] = GBTLearner.load(str(path), "cpu")
        self.asked.clear()

    def save(self, path: Path | str) -> None:
        """A directory with GBRL's own files, which ``BoostedTrees.load`` reads."""
        directory = Path(path)
        directory.mkdir(parents=True, exist_ok=True)
        for part, x in self.state_dict().items():
            file = directory / f"{part}.gbrl_model"
            file.unlink(missing_ok=True)
            if x is not None:
                file.write_bytes(x.numpy().tobytes())
        actions = {"count": self.actions.count, "start": self.actions.start}
        config = {"schema": 1, "size": self.size, "actions": actions, "depth": self.depth, "bins": self.bins}
        (directory / CONFIG).write_text(json.dumps(config) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path | str) -> BoostedTrees:
        """The policy that ``save`` wrote."""
        directory = Path(path)
        if not (directory / CONFIG).is_file():
            raise InputError(f"boosted trees: expected {CONFIG} in {directory}, which `save` writes there.")
        config = json.loads((directory / CONFIG).read_text(encoding="utf-8"))
        made = cls(config["size"], Categorical(**config["actions"]), depth=config["depth"], bins=config["bins"])
        files = {part: directory / f"{part}.gbrl_model" for part in PARTS}
        read = {
            p: torch.frombuffer(bytearray(f.read_bytes()), dtype=torch.uint8) if f.exists() else None for p, f in files.items()
        }
        made.load_state_dict(read)
        return made


@dataclass
class TreeUpdater:
    """Fits one tree to each ensemble's gradient: outputs move by -``lr`` times the leaf's mean gradient.

    The gradient of a mean over M steps is M times smaller than a step's own; trees fit the step's own, so that ``lr`` means the
    same for every size of batch. ``value_lr``: how much faster the value moves.
    """

    policy: BoostedTrees
    value_lr: float = 1.0
    lr: float = 0.1
    kept: list[Asked] = field(default_factory=list)

    def accumulate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        """Pass the gradients on to what the trees gave."""
        torch.autograd.backward([outputs[k] for k in gradients], list(gradients.values()))
        self.kept += [a for a in self.policy.asked if any(x.grad is not None for x in a.leaves.values())]
        self.policy.asked.clear()

    def step(self, **schedule: float) -> dict[str, float]:
        """A new tree for each ensemble that has a gradient; one that is not finite raises, and nothing is added."""
        self.lr, self.value_lr = schedule.get("lr", self.lr), schedule.get("value_lr", self.value_lr)
        fits = {part: self._gradient(part) for part in PARTS}
        self.kept.clear()
        norm = float(np.sqrt(sum(float((g**2).sum()) for _, g in fits.values())))
        if not np.isfinite(norm):
            raise GuerdonError(
                f"boosted trees: expected a finite gradient, got norm {norm}. Nothing was added. Usual cause: a NaN advantage."
            )
        for part, (rows, gradient) in fits.items():
            if len(rows) and gradient.any():
                rate = self.lr * (self.value_lr if part == "value" else 1.0)
                self.policy.trees[part].step(rows, np.ascontiguousarray(rate * len(rows) * gradient, dtype=np.float32))
        return {"grad_norm": norm, "trees": float(self.policy.trees["logits"].get_num_trees())}

    def _gradient(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        """(rows [M, size], d loss / d output [M, outputs]) of what was accumulated."""
        found = [(a.rows, a.leaves[part].grad) for a in self.kept if part in a.leaves and a.leaves[part].grad is not None]
        if not found:
            return np.zeros((0, self.policy.size), np.float32), np.zeros((0, 1), np.float32)
        return np.concatenate([r for r, _ in found]), np.concatenate([g.numpy() for _, g in found if g is not None])

    def take_gradient(self) -> Tensor:
        """Flat: d loss / d output of every step accumulated, logits first; it is taken away."""
        parts = [torch.from_numpy(self._gradient(part)[1]).flatten() for part in PARTS]
        self.kept.clear()
        return torch.cat(parts)

    def state_dict(self) -> dict[str, Any]:
        return {"lr": self.lr, "value_lr": self.value_lr}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.lr, self.value_lr = float(state["lr"]), float(state["value_lr"])


def _rows(observation: np.ndarray) -> np.ndarray:
    """[M, size] float32, contiguous."""
    return np.ascontiguousarray(np.asarray(observation).reshape(len(observation), -1), dtype=np.float32)
