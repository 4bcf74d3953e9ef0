# SPDX-License-Identifier: Apache-2.0
"""How a model's logits follow from its last hidden state, so that they need not be made for all tokens at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LogitsOf = Callable[[Tensor], Tensor]


def logits_from_hidden(model: Any) -> LogitsOf | None:
    """The function from ``model.base_model(...).last_hidden_state`` to ``model(...).logits``; None where it isn't simple.

    Simple is: the output layer, then nothing, a constant factor (Cohere, Granite) or a soft cap c·tanh(x / c) (Gemma). The
    model is asked rather than its name: in one forward pass of three tokens large known values take the place of the output
    layer's, since a cap cannot be seen in the small values of an untrained model.
    """
    head, backbone = model.get_output_embeddings(), model.base_model
    if head is None or backbone is model:
        return None
    seen: dict[str, Tensor] = {}

    def planted(_: Any, args: tuple[Tensor, ...], out: Tensor) -> Tensor:
        seen["in"] = args[0]
        seen["out"] = torch.linspace(-90, 90, out.numel(), dtype=out.dtype, device=out.device).reshape(out.shape)
        return seen["out"]

    def watched(_: Any, __: Any, out: Any) -> None:
        seen["hidden"] = out.last_hidden_state

    hooks = [head.register_forward_hook(planted), backbone.register_forward_hook(watched)]
    try:
        with torch.no_grad():
            ids = torch.arange(3, device=next(model.parameters()).device)[None] % model.config.get_text_config().vocab_size
            logits = model(input_ids=ids, use_cache=False).logits
    finally:
        for hook in hooks:
            hook.remove()
    if seen.keys() != {"in", "out", "hidden"} or not torch.equal(seen["in"], seen["hidden"]):
        return None
    cap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return _after(head, seen["out"], logits, cap)


def _after(head: LogitsOf, before: Tensor, after: Tensor, cap: float | None) -> LogitsOf | None:
    """``head`` followed by the simple function that takes ``before`` to ``after``."""
    if before.shape != after.shape:
        return None
    tolerance = 1e-5 if before.dtype.itemsize >= 4 else 2e-2
    x, y = before.double(), after.double()

    def is_it(z: Tensor) -> bool:
        return torch.allclose(z, y, rtol=tolerance, atol=tolerance)

    if is_it(x):
        return head
    factor = ((x * y).sum() / (x * x).sum()).item()
    if is_it(x * factor):
        return lambda hidden: head(hidden) * factor
    if cap and is_it(cap * torch.tanh(x / cap)):
        return lambda hidden: cap * torch.tanh(head(hidden) / cap)
    return None
