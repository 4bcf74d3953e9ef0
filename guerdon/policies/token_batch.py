# SPDX-License-Identifier: Apache-2.0
"""Rollouts of tokens as a language model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.rollouts import Rollouts


class TokenBatch:
    """Right-padded token ids, and where the M steps that the policy took are in them.

    contexts    N lists of ids, and action [N, T], as in the rollouts; before [N] the contexts' lengths
    ids         [N, L] each context with its actions, up to the last column needed
    row, step   [M] the steps taken, in row-major order; column [M]: step is predicted at ``ids[row, column]``
    token       [M] the actions taken; kept [M, K] what truncation kept, or None
    temperature of the distribution sampled from

    No attention mask is needed: in a causal model nothing before the padding sees it.
    """

    def __init__(self, rollouts: Rollouts, device: torch.device, max_length: int | None) -> None:
        self._lay_out(rollouts.field("context_ids").values, rollouts.action.to(device), rollouts.mask.to(device))
        if max_length is not None and self.ids.shape[1] > max_length:
            raise InputError(
                f"LanguagePolicy: context and completion should fit the model's {max_length} positions, got {self.ids.shape[1]} "
                "tokens. Usual cause: rollouts or demonstrations longer than the model's context."
            )
        self.temperature = float(rollouts.sampling.get("temperature") or 1.0)
        self.is_truncated = bool(rollouts.sampling.get("truncated", False))
        self.kept: Tensor | None = None
        if self.is_truncated and "kept" in rollouts.fields:
            self.kept = rollouts.fields["kept"].values.to(device)[self.row, self.step]

    @classmethod
    def of(cls, contexts: Sequence[Sequence[int]], action: Tensor, mask: Tensor, device: torch.device) -> TokenBatch:
        """Of tokens alone, at temperature 1."""
        made = cls.__new__(cls)
        made._lay_out(contexts, action.to(device), mask.to(device))
        made.temperature, made.is_truncated, made.kept = 1.0, False, None
        return made

    def _lay_out(self, contexts: Sequence[Sequence[int]], action: Tensor, mask: Tensor) -> None:
        device, (n, t) = action.device, action.shape
        self.contexts, self.action = contexts, action
        self.before = before = torch.tensor([len(c) for c in contexts], device=device)
        longest = int(before.max())
        self.row, self.step = mask.nonzero(as_tuple=True)
        self.token = action[self.row, self.step]
        self.column = before[self.row] + self.step - 1
        # No less than every context, whether or not its row took a step.
        width = max(longest, int(self.column.max()) + 1 if len(self.column) else 1)
        whole = torch.zeros(n, longest + t, dtype=torch.long, device=device)
        whole[:, :longest] = torch.tensor([[*c, *[0] * (longest - len(c))] for c in contexts], device=device)
        self.ids = whole.scatter(1, before[:, None] + torch.arange(t, device=device), action)[:, :width]

    def check_kept(self) -> None:
        """Raise where the distribution sampled from is not known."""
        if self.is_truncated and self.kept is None:
            raise InputError(
                "LanguagePolicy: the log_prob of rollouts sampled with top_k or top_p needs the tokens that truncation kept "
                "(step field `kept`), got rollouts without them; the ratio to the sampler is then unknown. "
                "Usual cause: sampling without keep_set=True."
            )
