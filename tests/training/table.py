# SPDX-License-Identifier: Apache-2.0
"""Policies that are no networks: a table of logits and an ensemble of stumps. They write letters, one a step."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from guerdon.policies.token_distribution import stream
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Field, Rollouts

LETTERS = "abc"
END = len(LETTERS)  # ends a row


class Letters:
    """What the two share: rows of letters, each letter drawn by the logits ``scores`` [N, T, 4] of (prompt, place)."""

    outputs = frozenset({"log_prob", "entropy", "value", "ref_log_prob"})

    def __init__(self, prompts: Sequence[str], length: int, dtype: torch.dtype = torch.float64) -> None:
        self.prompts, self.length, self.dtype = list(prompts), length, dtype

    def scores(self, prompt: Tensor) -> Tensor:
        """[N, T, 4] of prompts [N]."""
        raise NotImplementedError

    def values(self, prompt: Tensor) -> Tensor:
        return torch.zeros(len(prompt), self.length, dtype=self.dtype)

    def where(self, rollouts: Rollouts) -> Tensor:
        return torch.tensor([self.prompts.index(p) for p in rollouts.field("prompt").values])

    def sample(
        self, contexts: Sequence[Context], sampling: Sampling, seed: int, ready: Callable[[Rollouts], None] | None = None
    ) -> Rollouts:
        prompt = torch.tensor([self.prompts.index(c.prompt) for c in contexts])
        with torch.no_grad():
            log_prob = self.scores(prompt).log_softmax(-1)
        uniform = stream(seed, [(c.task, c.index) for c in contexts], self.length).to(self.dtype)
        drawn = (log_prob.exp().cumsum(-1) < uniform[..., None]).sum(-1).clamp(max=END)
        action = log_prob.argmax(-1) if sampling.temperature == 0 else drawn
        log_prob = log_prob.gather(-1, action[..., None])[..., 0]
        drawn = self.rows(contexts, action, log_prob)
        for length in drawn.length.unique() if ready is not None else ():
            over = (drawn.length == length).nonzero()[:, 0]
            ready(self.rows([contexts[n] for n in over], action[over], log_prob[over]))
        return drawn

    def encode(self, prompts: Sequence[str], completions: Sequence[str]) -> Rollouts:
        action = torch.full((len(prompts), self.length), END)
        for n, text in enumerate(completions):
            action[n, : len(text)] = torch.tensor([LETTERS.index(x) for x in text])
        return self.rows([Context(p, p, group=i) for i, p in enumerate(prompts)], action, None)

    def rows(self, contexts: Sequence[Context], action: Tensor, log_prob: Tensor | None) -> Rollouts:
        ended = (action == END).long().cumsum(1)
        mask = (ended == 0) | ((ended == 1) & (action == END))
        texts = ["".join(LETTERS[a] for a in row[m].tolist() if a < END) for row, m in zip(action, mask, strict=True)]
        at = torch.arange(self.length)
        offset = torch.stack([at, at + 1], -1).expand(len(texts), -1, -1)
        last = at == mask.sum(1, keepdim=True) - 1
        names = dict.fromkeys(k for c in contexts for k in c.fields)
        return Rollouts(
            action=action,
            mask=mask,
            task=[c.task for c in contexts],
            log_prob=None if log_prob is None else torch.where(mask, log_prob, 0),
            terminated=last & (action == END),
            truncated=last & (action != END),
            length=mask.sum(1),
            group=torch.tensor([c.group for c in contexts]),
            source=["policy" if log_prob is not None else "demonstration"] * len(texts),
            fields={
                "prompt": Field("task", [c.prompt for c in contexts]),
                "completion": Field("episode", [[x] for x in texts]),
                "offset": Field("step", offset.minimum(mask.sum(1)[:, None, None])),
                **{k: Field("task", [c.fields[k] for c in contexts]) for k in names},
            },
        )

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        prompt, mask = self.where(rollouts), rollouts.mask
        log_probs = self.scores(prompt).log_softmax(-1)
        found = {"log_prob": log_probs.gather(-1, rollouts.action[..., None])[..., 0]}
        found["entropy"] = -(log_probs.exp() * log_probs).sum(-1)
        found["value"] = self.values(prompt)
        found["ref_log_prob"] = torch.full(mask.shape, 0.25, dtype=self.dtype).log()
        return {k: torch.where(mask, v, 0) for k, v in found.items() if k in want}


class Table(Letters):
    """A logit for each (prompt, place, letter) and a value for each (prompt, place)."""

    def __init__(self, prompts: Sequence[str], length: int = 4, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(prompts, length, dtype)
        g = torch.Generator().manual_seed(seed)
        self.logits = torch.randn(len(self.prompts), length, END + 1, generator=g, dtype=torch.float64).to(dtype) * 0.3
        self.value = torch.zeros(len(self.prompts), length, dtype=dtype)
        self.logits.requires_grad_()
        self.value.requires_grad_()

    def scores(self, prompt: Tensor) -> Tensor:
        return self.logits[prompt]

    def values(self, prompt: Tensor) -> Tensor:
        return self.value[prompt]

    def updater(self, **settings: Any) -> TableUpdater:
        return TableUpdater(self, **settings)

    def save(self, path: Path) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        state = {k: v.tolist() for k, v in self.state_dict().items()}
        (Path(path) / "table.json").write_text(json.dumps(state))

    def load(self, path: Path) -> Table:
        state = json.loads((Path(path) / "table.json").read_text())
        self.load_state_dict({k: torch.tensor(v, dtype=self.dtype) for k, v in state.items()})
        return self

    def state_dict(self) -> dict[str, Tensor]:
        return {"logits": self.logits.detach().clone(), "value": self.value.detach().clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.logits.copy_(state["logits"])
            self.value.copy_(state["value"])


class TableUpdater:
    """Gradient descent with momentum by hand; ``seen`` keeps every gradient that was applied."""

    def __init__(self, table: Table, momentum: float = 0.5) -> None:
        self.table, self.momentum, self.seen = table, momentum, list[Tensor]()
        self.velocity = [torch.zeros_like(p) for p in self._parameters()]

    def _parameters(self) -> list[Tensor]:
        return [self.table.logits, self.table.value]

    def accumulate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        torch.autograd.backward([outputs[k] for k in gradients], list(gradients.values()))

    def step(self, lr: float) -> dict[str, float]:
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters()]
        self.seen.append(torch.cat([g.flatten() for g in grads]))
        with torch.no_grad():
            for p, v, g in zip(self._parameters(), self.velocity, grads, strict=True):
                v.mul_(self.momentum).add_(g)
                p.sub_(lr * v)
                p.grad = None
        return {"grad_norm": self.seen[-1].norm().item()}

    def state_dict(self) -> dict[str, Any]:
        return {"velocity": self.velocity}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.velocity = [v.clone() for v in state["velocity"]]


class Stumps(Letters):
    """Boosted trees of depth one: each adds a number to a letter's logit where place <= cut, for one prompt.

    It never sees a parameter's gradient: what it fits is the loss's gradient with respect to its outputs.
    """

    outputs = frozenset({"log_prob"})

    def __init__(self, prompts: Sequence[str], length: int = 3) -> None:
        super().__init__(prompts, length)
        self.trees: list[tuple[int, int, int, float, float]] = []

    def scores(self, prompt: Tensor) -> Tensor:
        out = torch.zeros(len(prompt), self.length, END + 1, dtype=self.dtype)
        place = torch.arange(self.length)
        for p, letter, cut, low, high in self.trees:
            out[..., letter] += (prompt == p)[:, None] * torch.where(place <= cut, low, high)
        return out

    def evaluate(self, rollouts: Rollouts, want: frozenset[str]) -> dict[str, Tensor]:
        self._rollouts = rollouts
        return {k: v.requires_grad_() for k, v in super().evaluate(rollouts, want).items()}

    def updater(self) -> StumpUpdater:
        return StumpUpdater(self)

    def save(self, path: Path) -> None:
        Path(path).mkdir(parents=True, exist_ok=True)
        (Path(path) / "stumps.json").write_text(json.dumps(self.trees))

    def state_dict(self) -> dict[str, Any]:
        return {"trees": [list(t) for t in self.trees]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.trees = [tuple(t) for t in state["trees"]]


class StumpUpdater:
    """Fits, for each prompt and letter, one stump to the negative gradient with respect to that letter's logit."""

    def __init__(self, policy: Stumps) -> None:
        self.policy = policy
        self._begin()

    def _begin(self) -> None:
        p = self.policy
        self.target = torch.zeros(len(p.prompts), p.length, END + 1, dtype=p.dtype)

    def accumulate(self, outputs: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        rollouts, gradient = self.policy._rollouts, gradients["log_prob"]
        prompt = self.policy.where(rollouts)
        chosen = torch.nn.functional.one_hot(rollouts.action, END + 1)
        probability = self.policy.scores(prompt).softmax(-1)
        self.target.index_add_(0, prompt, -gradient[..., None] * (chosen - probability))

    def step(self, lr: float) -> dict[str, float]:
        place = torch.arange(self.policy.length)
        for p in range(len(self.policy.prompts)):
            for letter in range(END + 1):
                y = self.target[p, :, letter]
                fits = []
                for cut in range(self.policy.length - 1):
                    low, high = y[place <= cut].mean(), y[place > cut].mean()
                    fits.append((((torch.where(place <= cut, low, high) - y) ** 2).sum().item(), cut, low.item(), high.item()))
                _, cut, low, high = min(fits)
                self.policy.trees.append((p, letter, cut, lr * low, lr * high))
        norm = self.target.norm().item()
        self._begin()
        return {"grad_norm": norm}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...
