# SPDX-License-Identifier: Apache-2.0
"""What a model's linear layers answered while a batch was drawn, so that an update need not multiply the same tokens again.

Until the weights change they are those that the batch was drawn with, and its tokens have been through every
layer. The update's forward pass makes its graph as ever, with the known outputs in the place of products, which differ from them
by rounding. Those of the batch drawn last are kept, on a processor; an accelerator's memory is scarcer than its arithmetic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import torch
from torch import Tensor

from guerdon.policies.products import Linear, answered_by, heard_by
from guerdon.policies.token_batch import TokenBatch

BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class KnownOutputs:
    """Outputs of the linear layers of ``backbone`` by token, [room for tokens, out_features] each, in the order in which the
    tokens were read.

    ``room``: how many numbers may be kept; of a batch that may need more, nothing is.
    """

    def __init__(self, backbone: torch.nn.Module, room: int) -> None:
        self.backbone, self.room = backbone, room
        self.layers = {m for m in backbone.modules() if isinstance(m, Linear)}
        self._forget()

    def _forget(self) -> None:
        self.listens, self.stamp = False, list[int]()
        self.outputs: dict[Linear, Tensor] = {}
        self.heard: dict[Linear, int] = {}
        self.context: dict[tuple[int, ...], int] = {}
        self.row: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}

    def _stamp(self) -> list[int]:
        """The sum of each weight's bits, whether there is dropout, and how often each output was written: a model may write into
        what it is answered. The weights themselves are asked: fused optimisers, and whatever writes through ``data``, leave
        PyTorch's count of writes as it was."""
        bits = [int(p.detach().view(BITS[p.itemsize]).sum()) for p in self.backbone.parameters()]
        return [*bits, self.backbone.training, *(x._version for x in self.outputs.values())]

    # ---- while a batch is drawn

    def begin(self, contexts: Sequence[tuple[int, ...]], rows: int, steps: int) -> None:
        """Different ``contexts``, padded on the left, are read next, then at most ``steps`` tokens of each of ``rows`` rows."""
        self._forget()
        longest = max(map(len, contexts))
        self.context = {c: longest * k + longest - len(c) for k, c in enumerate(contexts)}
        size = longest * len(contexts) + rows * steps
        on_processor = {m.weight.device.type for m in self.layers} == {"cpu"}
        if on_processor and size * sum(m.out_features for m in self.layers) <= self.room:
            self.listens, self.seen, self.steps = True, longest * len(contexts), 0
            self.outputs, self.heard = {m: torch.empty(size, m.out_features) for m in self.layers}, dict.fromkeys(self.layers, 0)
            self.place = torch.zeros(rows, steps, dtype=torch.long)

    def listening(self) -> contextlib.AbstractContextManager[None]:
        """Within it the model reads."""
        return heard_by(self._hear) if self.listens else contextlib.nullcontext()

    def _hear(self, layer: Linear, output: Tensor) -> None:
        """``output`` [k, out_features] of the next k tokens. Logits are not kept: there may be more of them than of all else."""
        if layer in self.layers:
            begin, kept = self.heard[layer], self.outputs[layer]
            self.heard[layer] = end = begin + len(output)
            if end <= len(kept):  # or it reads tokens twice
                kept[begin:end] = output

    def took(self, live: Tensor) -> None:
        """A token of each of the rows ``live`` was read."""
        if self.listens:
            self.place[live, self.steps] = self.seen + torch.arange(len(live))
            self.seen, self.steps = self.seen + len(live), self.steps + 1

    def end(self, contexts: Sequence[Sequence[int]], token: Tensor, length: Tensor) -> None:
        """The rows are these. Nothing is known if a layer did not see every token once."""
        if not self.listens or any(k != self.seen for k in self.heard.values()):
            return self._forget()
        for n, (c, ids, k) in enumerate(zip(map(tuple, contexts), token.tolist(), length.tolist(), strict=True)):
            self.row[c, tuple(ids[: k - 1])] = n  # the last token drawn is not read
        self.stamp = self._stamp()

    # ---- while it is trained on

    def places(self, batch: TokenBatch, read: Tensor) -> Tensor | None:
        """[N, L] which of the known tokens ``batch.ids`` are, of each row its context and ``read`` [N] more, else 0.

        None: not all are known, or not as the model is now."""
        if self.row and self.stamp != self._stamp():
            self._forget()
        column = torch.arange(batch.ids.shape[1])
        found = torch.zeros(len(batch.ids), len(column), dtype=torch.long)
        for n, (c, ids, k) in enumerate(zip(map(tuple, batch.contexts), batch.action.tolist(), read.tolist(), strict=True)):
            row = self.row.get((c, tuple(ids[:k]))) if k or c not in self.context else 0
            if row is None:
                return None
            found[n, : len(c)] = self.context[c] + column[: len(c)]
            found[n, len(c) : len(c) + k] = self.place[row, :k]
        return found

    def answering(self, used: Tensor) -> contextlib.AbstractContextManager[None]:
        """Within it the model reads those of the known tokens, in their order, that are ``used`` [as many as known] bool."""
        chosen = None if used.all() else used.nonzero()[:, 0]
        count = len(used) if chosen is None else len(chosen)

        def answer(layer: Linear, rows: int) -> Tensor | None:
            if layer not in self.outputs or rows != count:
                return None
            known = self.outputs[layer]
            return known[: len(used)] if chosen is None else known.index_select(0, chosen)

        return answered_by(answer)
