# SPDX-License-Identifier: Apache-2.0
"""Rollouts of tokens as a language model reads them."""

from __future__ import annotations

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.rollouts import Rollouts


class TokenBatch:
    """Right-padded token ids, and where the M steps that the policy took are in them.

    contexts    N lists of ids, and action [N, T], as in the rollouts
    ids         [N, L] each context with its actions, up to the last column needed
    row, step   [M] the steps taken, in row-major order; column [M]: step is predicted at ``ids[row, column]``
    token       [M] the actions taken; kept [M, K] what truncation kept, or None
    temperature of the distribution sampled from

    No attention mask is needed: in a causal model nothing before the padding sees it.
    """

    def __init__(self, rollouts: Rollouts, device: torch.device, max_length: int | None) -> None:
        self.contexts = rollouts.field("context_ids").values
        before = torch.tensor([len(c) for c in self.contexts], device=device)
        longest = int(before.max())
        self.action, mask = rollouts.action.to(device), rollouts.mask.to(device)
        n, t = self.action.shape
        self.row, self.step = mask.nonzero(as_tuple=True)
        self.token = self.action[self.row, self.step]
        self.column = before[self.row] + self.step - 1
        width = int(self.column.max()) + 1 if len(self.column) else 1
        if max_length is not None and width > max_length:
            raise InputError(
                f"LanguagePolicy: context and completion should fit the model's {max_length} positions, got {width} tokens. "
                "Usual cause: rollouts or demonstrations longer than the model's context."
            )
        whole = torch.zeros(n, longest + t, dtype=torch.long, device=device)
        whole[:, :longest] = torch.tensor([[*c, *[0] * (longest - len(c))] for c in self.contexts], device=device)
        self.ids = whole.scatter(1, before[:, None] + torch.arange(t, device=device), self.action)[:, :width]
        self.temperature = float(rollouts.sampling.get("temperature") or 1.0)
        self.is_truncated = bool(rollouts.sampling.get("truncated", False))
        self.kept: Tensor | None = None
        if self.is_truncated and "kept" in rollouts.fields:
            self.kept = rollouts.fields["kept"].values.to(device)[self.row, self.step]

    def check_kept(self) -> None:
        """Raise where the distribution sampled from is not known."""
        if self.is_truncated and self.kept is None:
            raise InputError(
                "LanguagePolicy: the log_prob of rollouts sampled with top_k or top_p needs the tokens that truncation kept "
                "(step field `kept`), got rollouts without them; the ratio to the sampler is then unknown. "
                "Usual cause: sampling without keep_set=True."
            )
