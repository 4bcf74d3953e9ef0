# SPDX-License-Identifier: Apache-2.0
"""Whether the installed TRL still does what the mix-in relies on, found out before training starts."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from guerdon.errors import InputError

HOOKS = {
    "_generate": ("prompts",),
    "_generate_and_score_completions": ("inputs",),
    "_compute_loss": ("model", "inputs"),
    "_get_per_token_logps_and_entropies": ("model", "input_ids", "attention_mask", "logits_to_keep"),
}
"""Methods that are overridden, called or replaced for the probe, with the parameters they have to have."""

ATTRIBUTES = ("accelerator", "args", "eos_token_ids", "num_generations", "num_generations_eval", "reward_funcs", "reward_weights")

USUAL = "Usual cause: a version of TRL other than those it was tested with (1.16); see docs/trl.md"


def check_hooks(parent: Any) -> None:
    """``parent``: ``super()`` of the mix-in, so that what is looked at is what it calls."""
    for name, wanted in HOOKS.items():
        method = getattr(parent, name, None)
        if method is None:
            raise InputError(f"CreditMixin: expected a trainer with the method `{name}`, got one without. {USUAL}.")
        has = tuple(p for p in inspect.signature(method).parameters if p != "self")
        if has[: len(wanted)] != wanted:
            raise InputError(f"CreditMixin: expected `{name}({', '.join(wanted)})`, got ({', '.join(has)}). {USUAL}.")


def check_trainer(trainer: Any) -> None:
    """Settings under which an advantage per token means something else, then what becomes of one in the loss."""
    missing = [name for name in ATTRIBUTES if not hasattr(trainer, name)]
    if missing:
        raise InputError(f"CreditMixin: expected a trainer with the attributes {', '.join(missing)}, got none. {USUAL}.")
    refusals = {
        "importance_sampling_level='sequence'": getattr(trainer, "importance_sampling_level", "token") == "sequence",
        "loss_type='vespo'": getattr(trainer, "loss_type", "") == "vespo",
        "off_policy_mask_threshold": getattr(trainer, "off_policy_mask_threshold", None) is not None,
    }
    for setting, is_set in refusals.items():
        if is_set:
            raise InputError(
                f"CreditMixin: {setting} treats a completion as a whole, so that its tokens' advantages would be averaged, or "
                "judged one by one by their signs. Use another setting, or as_reward_funcs alone."
            )
    try:
        gradient, advantage, counted = probe(trainer)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"CreditMixin: the trainer's loss fails on a made-up batch: {error!r}. {USUAL}.") from error
    if not follows(gradient, advantage, counted):
        raise InputError(
            "CreditMixin: the gradient of the trainer's loss with respect to each token's log-probability should be minus the "
            f"token's advantage, up to a factor of its row, and 0 where `tool_mask` is 0; for advantages {advantage.tolist()} "
            f"and mask {counted.long().tolist()} it is {gradient.tolist()}. {USUAL}."
        )


def probe(trainer: Any) -> tuple[Tensor, Tensor, Tensor]:
    """(gradient, advantage, mask), each [2, 3]: what the trainer's loss makes of advantages per token.

    Its own loss runs on a made-up batch. Log-probabilities are given instead of computed, so the model isn't called.
    """
    device = trainer.accelerator.device
    log_prob = torch.full((2, 3), -1.0, device=device, requires_grad=True)
    nothing = torch.zeros(2, 3, device=device)
    advantage = torch.tensor([[1.0, -2.0, 0.5], [-1.0, 3.0, 7.0]], device=device)
    stored = torch.tensor([[1, 1, 1], [1, 1, 0]], device=device)
    taken = torch.tensor([[1, 0, 1], [1, 1, 1]], device=device)
    inputs = {
        "prompt_ids": torch.zeros(2, 1, dtype=torch.long, device=device),
        "prompt_mask": torch.ones(2, 1, dtype=torch.long, device=device),
        "completion_ids": torch.zeros(2, 3, dtype=torch.long, device=device),
        "completion_mask": stored,
        "tool_mask": taken,
        "advantages": advantage,
        "num_items_in_batch": (stored * taken).sum(),
        "ref_per_token_logps": log_prob.detach(),
        "importance_sampling_ratio": torch.ones(2, 3, device=device),
        "sampling_per_token_logps": log_prob.detach(),
    }
    was_training, trainer.model.training = trainer.model.training, False  # the root's flag alone: where TRL logs to
    trainer._get_per_token_logps_and_entropies = lambda *_, **__: (log_prob, nothing, nothing.sum())
    try:
        (gradient,) = torch.autograd.grad(trainer._compute_loss(trainer.model, inputs), log_prob)
    finally:
        del trainer._get_per_token_logps_and_entropies
        trainer.model.training = was_training
        trainer._metrics["eval"].clear()
    return gradient, advantage, (stored * taken).bool()


def follows(gradient: Tensor, advantage: Tensor, counted: Tensor) -> bool:
    """Whether ``gradient`` is -c advantage where ``counted``, with one c > 0 a row, and 0 elsewhere; all [N, T].

    >>> advantage, counted = torch.tensor([[1.0, -2.0, 5.0]]), torch.tensor([[True, True, False]])
    >>> [follows(torch.tensor([g]), advantage, counted) for g in ([-0.5, 1.0, 0.0], [0.5, 0.5, 0.0])]
    [True, False]
    """
    ratio = torch.where(counted, -gradient / advantage, torch.nan)
    mean = ratio.nanmean(1, keepdim=True)
    same = torch.isclose(ratio, mean, rtol=1e-4).logical_or(~counted).all()
    return bool(same and (mean > 0).all() and (gradient[~counted] == 0).all())
