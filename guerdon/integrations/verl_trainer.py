# SPDX-License-Identifier: Apache-2.0
"""verl's trainer with guerdon's credit: advantages per token from every component's units, and a mask of the usable ones."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor

from guerdon.errors import InputError
from guerdon.integrations.verl_payload import PAYLOAD, batch_of, scores_from
from guerdon.rollouts import Rollouts
from guerdon.scores import Scores
from guerdon.training.crediting import Crediting
from guerdon.training.loop import score_metrics
from guerdon.training.recipe import Batch, Stage
from guerdon.training.scoring import refuse_failures

_TRAINER_CREDITS: ContextVar[bool] = ContextVar("trainer_credits", default=False)


def trainer_credits() -> bool:
    """Whether the trainer itself is about to assign the credit, so that an estimator's result is overwritten."""
    return _TRAINER_CREDITS.get()


@contextlib.contextmanager
def crediting() -> Iterator[None]:
    token = _TRAINER_CREDITS.set(True)
    try:
        yield
    finally:
        _TRAINER_CREDITS.reset(token)


def assigned(stage: Stage, rollouts: Rollouts, scores: Scores, step: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """advantage, return_ and mask [N, T] by the stage's credit; what was measured."""
    nobody = cast(Any, SimpleNamespace(outputs=frozenset()))
    some, metrics = Crediting(stage, Batch(rollouts), scores, nobody, step).assign()
    found = {"advantage": some["advantage"], "mask": some["mask"], "return_": some.get("return_", some["advantage"])}
    return {**found, "return_": torch.where(found["mask"], found["return_"], 0)}, metrics


def trainer_class(base: type, stage: Stage) -> type:
    """A subclass of one of verl's v1 trainers that assigns the credit itself."""
    from verl.trainer.ppo.v1 import trainer_base

    nested = trainer_base.response_to_nested

    class GuerdonTrainer(base):
        def _compute_advantage(self, batch: Any, metrics: dict[str, Any]) -> Any:
            if self.config.algorithm.use_kl_in_reward:
                raise InputError(
                    "verl: guerdon's trainer credits its own reward; use actor.use_kl_loss in place of use_kl_in_reward."
                )
            where = {"keys": batch.keys, "partition_id": batch.partition_id}
            names = ["uid", "responses", "response_mask", "extra_fields", "values", "old_log_probs"]
            data = trainer_base.tq.kv_batch_get(**where, select_fields=names)
            with crediting():  # for what else it does: rollout correction
                batch = super()._compute_advantage(batch, metrics)
            now = trainer_base.tq.kv_batch_get(**where, select_fields=["response_mask"])["response_mask"]
            kept = now.to_padded_tensor(0).bool()
            padding = [bool(tag.get("is_padding", False)) for tag in batch.tags]
            _check_one_output([key for key, pad in zip(batch.keys, padding, strict=True) if not pad])
            found, measured = credited(stage, data, padding, int(self.global_steps))
            metrics.update({f"guerdon/{k}": v for k, v in measured.items() if math.isfinite(v)})
            mask = found["mask"] & kept
            fields = {"advantages": found["advantage"].float(), "returns": found["return_"].float()}
            fields |= {"response_mask": mask.long(), "loss_mask": mask.long()}
            put = type(data)({k: nested(x, now) for k, x in fields.items()}, batch_size=len(batch.keys))
            return trainer_base.tq.kv_batch_put(**where, fields=put)

    return GuerdonTrainer


def credited(stage: Stage, data: Any, padding: Sequence[bool], step: int) -> tuple[dict[str, Tensor], Mapping[str, float]]:
    """What ``assigned`` gives for verl's batch, a TensorDict of nested tensors; rows that are ``padding`` are left out."""
    extra = data["extra_fields"]
    extra = extra.tolist() if hasattr(extra, "tolist") else list(extra)
    payloads = [None if pad else _payload(n, fields) for n, (fields, pad) in enumerate(zip(extra, padding, strict=True))]
    mask = data["response_mask"].to_padded_tensor(0).bool()
    length = torch.where(torch.tensor(padding), 0, data["response_mask"].offsets().diff())
    uid = data["uid"]
    names = [str(u) for u in (uid.tolist() if hasattr(uid, "tolist") else uid)]
    rollouts = batch_of(payloads, data["responses"].to_padded_tensor(0), mask, length, names)
    for ours, theirs in (("value", "values"), ("old_log_prob", "old_log_probs")):
        if theirs in data.keys():  # noqa: SIM118  # a TensorDict is no dict
            rollouts = rollouts.with_field(ours, "step", data[theirs].to_padded_tensor(0.0))
    scores = scores_from(payloads, rollouts)
    refuse_failures(scores, stage.max_failed)
    found, measured = assigned(stage, rollouts, scores, step)
    return found, {**score_metrics(scores), **measured}


def _check_one_output(keys: Sequence[str]) -> None:
    """verl's keys are uid_session_output; of several outputs of a session it scores the last and copies its score."""
    several = [key for key in keys if not key.endswith("_0")]
    if several:
        raise InputError(
            f"verl: expected agent loops with one output a session, got several (the first: {several[0]}). verl gives all of "
            "them the last one's score, and its tokens are not theirs. Use the estimator with verl's own trainer."
        )


def _payload(row: int, extra: Any) -> str:
    info = (extra or {}).get("reward_extra_info") or {}
    if PAYLOAD not in info:
        raise InputError(
            f"verl: row {row} was not scored by guerdon's reward manager; its reward_extra_info has "
            f"{', '.join(info) or 'nothing'}. Set reward.reward_manager.name to the name given to register."
        )
    return info[PAYLOAD]
