# SPDX-License-Identifier: Apache-2.0
"""Whether the installed verl has the hooks that the integration relies on, and does with them what it did in `TESTED`."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable
from typing import Any

from guerdon.errors import InputError

TESTED = "0.9.1"

REGISTRIES = {
    "reward manager": "verl.experimental.reward_loop.reward_manager.registry:REWARD_MANAGER",
    "advantage estimator": "verl.trainer.ppo.core_algos:ADV_ESTIMATOR_REGISTRY",
    "trainer": "verl.trainer.ppo.v1.trainer_base:TRAINER_REGISTRY",
    "policy loss": "verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY",
}

HOOKS: dict[str, tuple[str, ...]] = {
    "verl.utils.import_utils:import_external_libs": ("external_libs",),
    "verl.trainer.ppo.core_algos:register_adv_est": ("name_or_enum",),
    "verl.trainer.ppo.core_algos:register_policy_loss": ("name",),
    "verl.trainer.ppo.core_algos:agg_loss": ("loss_mat", "loss_mask", "loss_agg_mode"),
    "verl.trainer.ppo.ray_trainer:compute_advantage": ("data", "adv_estimator"),
    "verl.experimental.reward_loop.reward_manager.registry:register": ("name",),
    "verl.experimental.reward_loop.reward_manager.base:RewardManagerBase.__init__": ("config", "tokenizer", "compute_score"),
    "verl.experimental.reward_loop.reward_manager.base:RewardManagerBase.run_single": ("data",),
    "verl.trainer.ppo.v1.trainer_base:register_trainer": ("name",),
    "verl.trainer.ppo.v1.trainer_base:get_trainer_cls": ("name",),
    "verl.trainer.ppo.v1.trainer_base:PPOTrainer._compute_advantage": ("batch", "metrics"),
    "verl.trainer.ppo.v1.trainer_base:response_to_nested": ("tensor", "response_mask"),
    "verl.trainer.ppo.v1.trainer_base:tq.kv_batch_get": ("keys", "partition_id", "select_fields"),
    "verl.trainer.ppo.v1.trainer_base:tq.kv_batch_put": ("keys", "partition_id", "fields"),
}
"""module:object -> the parameters it has to begin with (``self`` aside)."""


def report() -> str:
    """A line for each hook of the installed verl, and one for each kind of plug-in with the names registered by this package.

    InputError, with the lines, where one is not as expected. ``register`` is called by the modules that VERL_USE_EXTERNAL_MODULES
    names, which importing verl imports.
    """
    if importlib.util.find_spec("verl") is None:
        raise InputError("guerdon.integrations.verl: verl is not installed here. docs/verl.md says what it needs.")
    checks: dict[str, Callable[[], str]] = {where: (lambda w=where: _signature(w)) for where in HOOKS}  # type: ignore[misc]
    checks["an estimator is called with"] = _estimator_call
    checks["a number of a reward manager becomes"] = _number_on_tokens
    checks |= {f"registered as {kind}:": (lambda w=where: _registered(w)) for kind, where in REGISTRIES.items()}  # type: ignore[misc]
    lines, wrong = [f"verl {_version()} (tested with {TESTED})"], 0
    for what, check in checks.items():
        try:
            lines.append(f"  ok     {what} {check()}")
        except (ImportError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
            wrong += 1
            lines.append(f"  MOVED  {what} {type(error).__name__}: {error}")
    text = "\n".join(lines) + "\n"
    if wrong:
        raise InputError(
            f"guerdon.integrations.verl: {wrong} of {len(checks)} hooks are not as expected.\n{text}"
            "Usual cause: another version of verl, or a package missing that it needs (docs/verl.md)."
        )
    return text


def found(where: str) -> Any:
    """The object that ``module:a.b`` names."""
    module, _, path = where.partition(":")
    value = importlib.import_module(module)
    for name in path.split("."):
        value = getattr(value, name)
    return value


def parameters(where: str) -> tuple[str, ...]:
    """Names of its parameters, in order, without ``self``."""
    return tuple(name for name in inspect.signature(found(where)).parameters if name != "self")


def _signature(where: str) -> str:
    has, wanted = parameters(where), HOOKS[where]
    if has[: len(wanted)] != wanted:
        raise TypeError(f"expected ({', '.join(wanted)}, ...), got ({', '.join(has)})")
    return f"({', '.join(wanted)})"


def _registered(where: str) -> str:
    ours = sorted(name for name, value in found(where).items() if value.__module__.startswith("guerdon."))
    return ", ".join(ours) or "nothing"


def _version() -> str:
    return importlib.import_module("verl").__version__


def estimator_arguments() -> dict[str, tuple[int, ...]]:
    """What verl passes to an estimator that somebody registered: argument -> shape."""
    import numpy as np
    import torch

    algos, told = importlib.import_module("verl.trainer.ppo.core_algos"), dict[str, tuple[int, ...]]()

    def probe(**given: Any) -> Any:
        told.update({k: tuple(getattr(v, "shape", ())) for k, v in given.items()})
        return given["token_level_rewards"], given["token_level_rewards"]

    name = "guerdon_probe"
    algos.ADV_ESTIMATOR_REGISTRY[name] = probe
    try:
        ones = torch.ones(2, 3)
        data = importlib.import_module("verl").DataProto.from_dict(
            {"token_level_rewards": ones, "response_mask": ones}, {"uid": np.array(["a", "b"], dtype=object)}
        )
        found("verl.trainer.ppo.ray_trainer:compute_advantage")(data, adv_estimator=name, config={})
    finally:
        del algos.ADV_ESTIMATOR_REGISTRY[name]
    return told


def _estimator_call() -> str:
    told = estimator_arguments()
    missing = {"token_level_rewards", "response_mask", "index"} - told.keys()
    if missing:
        raise LookupError(f"no {', '.join(sorted(missing))} among {', '.join(told)}")
    return f"({', '.join(told)})"


def _number_on_tokens() -> str:
    """NaN has to arrive on the last token, and the dict beside it as it was."""
    output = found("verl.experimental.agent_loop.agent_loop:AgentLoopOutput")
    metrics = found("verl.experimental.agent_loop.agent_loop:AgentLoopMetrics")()
    made = output(prompt_ids=[1], response_ids=[2, 3], response_mask=[1, 1], metrics=metrics)
    made.reward_score = math.nan
    made.extra_fields["reward_extra_info"] = {"guerdon": "{}"}
    told = made.as_dict()
    scores = told["rm_scores"].tolist()
    if not (scores[0] == 0 and math.isnan(scores[1])) or told["extra_fields"]["reward_extra_info"] != {"guerdon": "{}"}:
        raise ValueError(f"rm_scores {scores}, extra_fields {told['extra_fields']}")
    return f"rm_scores {scores}"
