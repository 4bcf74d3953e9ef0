# SPDX-License-Identifier: Apache-2.0
"""Rewards and credit in verl: beside its real code where it is installed, and against its recorded calling conventions anywhere.

verl does not install beside the versions this project is tested with; docs/verl.md lists what makes it importable on a CPU.
"""

import ast
import asyncio
import importlib.util
import inspect
import json
import math
import sys
import textwrap
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from guerdon.credit import gae, group_relative, return_to_go, weighted_sum, whiten
from guerdon.errors import ExpressionError, InputError, RewardFailure
from guerdon.integrations import verl_hooks
from guerdon.integrations.token_rows import Generated, token_rollouts
from guerdon.integrations.verl import advantage_estimator, as_compute_score, as_policy_loss, register
from guerdon.integrations.verl_manager import manager_class
from guerdon.integrations.verl_payload import PAYLOAD, batch_of, score_one, scores_from
from guerdon.objectives import clipped_surrogate, reinforce, token_mean
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.rewards import checkers, linear, reward
from guerdon.rewards.adapters import from_verl
from guerdon.scores import Status
from guerdon.training.binding import bind

RECORDED = json.loads((Path(__file__).parent / "data" / "verl-0.9.1.json").read_text(encoding="utf-8"))
needs_verl = pytest.mark.skipif(
    importlib.util.find_spec("verl") is None,
    reason="verl is not installed, and requires an older transformers than this project's; docs/verl.md lists the packages",
)
pytestmark = pytest.mark.filterwarnings("ignore")  # verl's and ray's own

WORDS = ("a", "b", "cc", ".")
A, B, C, DOT, END = 4, 5, 6, 7, 2
TOKENIZER = word_tokenizer(WORDS)


@reward(bounds=(0, 1))
def begins(completion, ground_truth):
    return completion.startswith(ground_truth)


@reward(level="segment", split=r"(?<=\.)", bounds=(0, 1))
def no_b(segment):
    return None if segment.startswith("b") else "b" not in segment


@reward
def crashes(completion):
    raise ValueError("no such file")


WHOLE = begins + 0.5 * no_b


def item(ids, truth="a", width=6, **more):
    """One completion, as verl hands it to a reward manager."""
    row = torch.tensor([*ids, *[0] * (width - len(ids))])
    attention = torch.tensor([1, 1, *[1] * len(ids), *[0] * (width - len(ids))])
    given = {"data_source": "words", "reward_model": {"ground_truth": truth, "style": "rule"}, "extra_info": {"index": 3}}
    given |= {"raw_prompt": np.array([{"role": "user", "content": "."}], dtype=object)}
    batch = {"responses": row, "attention_mask": attention, "prompts": torch.tensor([1, A])}
    return SimpleNamespace(batch=batch, non_tensor_batch=given | more)


class Items:
    """Slices like a DataProto."""

    def __init__(self, *items):
        self.items = items

    def __getitem__(self, at):
        return Items(*self.items[at]) if isinstance(at, slice) else self.items[at]


class Base:
    """As verl's RewardManagerBase keeps what it is given."""

    def __init__(self, config, tokenizer, compute_score):
        self.config, self.tokenizer, self.compute_score = config, tokenizer, compute_score

    @property
    def loop(self):
        return asyncio.get_running_loop()


def managed(what, *items, base=Base):
    manager = manager_class(base, what)(None, TOKENIZER, None, reward_router_address=None, reward_model_tokenizer=None)
    return asyncio.run(manager.run_single(Items(*items)))


# ---- the reward manager


def test_the_number_is_the_total_and_the_dict_has_the_same_keys_whatever_came_of_it():
    right, abstained = managed(WHOLE, item([A, DOT, C, END])), managed(WHOLE, item([A, DOT, B, END]))
    assert right["reward_score"] == 1 + 0.5 * 2 and math.isnan(abstained["reward_score"])
    info, other = right["reward_extra_info"], abstained["reward_extra_info"]
    assert list(info) == list(other) == ["begins", "no_b", "reward_status", "reward_reason", PAYLOAD]
    assert (info["begins"], info["no_b"], info["reward_status"]) == (1.0, 2.0, "ok")
    assert (other["begins"], other["reward_status"], other["reward_reason"]) == (1.0, "abstain", "no_b: returned None")
    assert math.isnan(other["no_b"])


def test_of_several_outputs_the_last_is_scored_and_fields_are_found_by_name():
    @reward
    def reads(completion, answer, index, data_source, hint, prompt):
        return float((completion, answer, index, data_source, hint, prompt[0]["content"]) == ("a", "a", 3, "words", "h", "."))

    extra = {"tool_extra_fields": {"hint": "h"}}
    assert managed(reads, item([B]), item([A, END], **extra))["reward_score"] == 1.0


def test_a_compute_score_of_verl_inside_an_expression_is_called_as_by_verl():
    def compute_score(data_source, solution_str, ground_truth, extra_info):
        assert (data_source, extra_info["index"]) == ("words", 3)
        return {"score": float(solution_str == ground_truth), "acc": 1}

    assert managed(0.5 * from_verl(compute_score), item([A, END]))["reward_score"] == 0.5


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (begins.normalise(), "compare in `credit`"),
        (begins - 0.1 * checkers.kl(), "log-probabilities"),
        (linear(0, 1, 10) * begins, "changes with the training step"),
    ],
)
def test_what_verl_cannot_serve_is_refused(what, says):
    with pytest.raises(ExpressionError, match=says):
        as_compute_score(what)


def test_as_compute_score_takes_what_verl_passes():
    assert set(RECORDED["compute_score"]) <= {"data_source", "solution_str", "ground_truth", "extra_info"}
    score = as_compute_score(WHOLE)
    told = dict.fromkeys(RECORDED["compute_score"]) | {"solution_str": "a.cc", "ground_truth": "a", "extra_info": {"x": 1}}
    assert score(**told) == {"score": 2.0, "begins": 1.0, "no_b": 2.0, "reward_reason": ""}
    assert math.isnan(score(**told | {"solution_str": "b"})["score"])


# ---- from the workers' payloads to Scores


def batch(what, rows, masks=None, truth="a"):
    """(payloads, rollouts): rows as the trainer has them; ``masks``: which tokens the policy wrote."""
    payloads = [
        score_one(what, ".", ids, {"ground_truth": truth}, TOKENIZER, [END])["reward_extra_info"][PAYLOAD] for ids in rows
    ]
    wide = max(map(len, rows))
    length = torch.tensor([len(r) for r in rows])
    mask = torch.arange(wide) < length[:, None]
    if masks is not None:
        mask &= torch.tensor([[*m, *[0] * (wide - len(m))] for m in masks]).bool()
    response = torch.tensor([[*r, *[0] * (wide - len(r))] for r in rows])
    return payloads, batch_of(payloads, response, mask, length, ["u"] * len(rows))


ROWS = [[A, DOT, C, END], [B, DOT, C], [A, DOT, B, END], [C, C, DOT, A, A, END]]


def test_the_trainer_sees_the_scores_of_the_whole_batch():
    payloads, rollouts = batch(WHOLE, ROWS)
    scores = scores_from(payloads, rollouts)
    at_once = WHOLE.score(
        token_rollouts(
            ["."] * 4, [""] * 4, ROWS, {"ground_truth": ["a"] * 4}, tokenizer=TOKENIZER, generated=Generated(ends=[END])
        )
    )
    torch.testing.assert_close(scores.reward(), at_once.reward(), equal_nan=True)
    assert scores.reward().isnan().any()
    assert torch.equal(scores.levels["segment"], at_once.levels["segment"])
    assert torch.equal(rollouts.terminated.any(1), torch.tensor([True, False, True, True]))
    for name, c in at_once.components.items():
        torch.testing.assert_close(scores.components[name].values, c.values, equal_nan=True)
        assert torch.equal(scores.components[name].status, c.status)
        assert scores.components[name].reasons == c.reasons and scores.components[name].weight == c.weight


def test_a_value_falls_on_the_last_token_that_the_policy_wrote():
    payloads, rollouts = batch(begins, [[A, C, DOT, END]], masks=[[1, 1, 0, 0]])
    assert scores_from(payloads, rollouts).reward().tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_what_is_only_watched_stops_nothing():
    payloads, rollouts = batch(begins + crashes.watch(), [[A]])
    assert scores_from(payloads, rollouts).total.status.tolist() == [[int(Status.OK)]]


def test_what_the_trainer_cannot_place_is_an_error():
    payloads, rollouts = batch(no_b, [[A, DOT, C, DOT]], masks=[[1, 1, 0, 0]])
    with pytest.raises(InputError, match="segment 1 of row 0, in which the policy wrote no token"):
        scores_from(payloads, rollouts)
    payloads, _ = batch(no_b, [[A, DOT]])
    with pytest.raises(InputError, match="has 3 tokens and was scored as one of 2"):
        batch_of(payloads, torch.zeros(1, 3).long(), torch.ones(1, 3).bool(), torch.tensor([3]), ["u"])


# ---- the estimator and the policy loss, called as recorded


def estimate(estimator, reward, mask, index):
    told = {"token_level_rewards": reward, "response_mask": mask, "index": np.array(index, dtype=object), "config": {}}
    assert set(RECORDED["estimator"]) == set(told)
    return estimator(**told)


def test_the_estimator_gives_no_gradient_where_the_reward_is_not_ok():
    rewards = torch.tensor([[0, 0, 1.0], [0, 0.5, 0], [0, 0, torch.nan], [0, 2.0, 0], [0, 0, 4.0]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 1, 1], [1, 1, 0], [1, 1, 1]])
    uid = ["a", "a", "a", "b", "b"]
    advantage, returns = estimate(advantage_estimator(group_relative, transforms=[whiten]), rewards, mask, uid)
    group = torch.tensor([0, 0, 0, 1, 1])
    want = whiten(group_relative(rewards, mask.bool(), group), mask.bool())
    assert want[2].isnan().all() and advantage.isfinite().all()
    torch.testing.assert_close(advantage, want.nan_to_num(0.0))
    assert returns[2].isnan().all() and returns[[0, 1, 3, 4]].isfinite().all()  # a critic must not learn a 0


def test_a_reward_on_a_tools_token_is_not_lost():
    mask, rewards = torch.tensor([[1, 1, 0], [1, 1, 1]]), torch.tensor([[0.0, 0, 1], [0, 0, 0]])
    advantage, _ = estimate(advantage_estimator(group_relative), rewards, mask, ["a", "a"])
    assert advantage.tolist() == [[0.5, 0.5, 0.0], [-0.5, -0.5, -0.5]]


def test_what_an_estimator_is_not_shown_is_an_error():
    rewards, mask = torch.zeros(2, 3), torch.ones(2, 3)
    with pytest.raises(InputError, match="`value`"):
        estimate(advantage_estimator(gae), rewards, mask, ["a", "a"])
    with pytest.raises(InputError, match="`level` should be one of"):
        estimate(advantage_estimator(bind(group_relative, level="segment")), rewards, mask, ["a", "a"])
    with pytest.raises(InputError, match="trainer_mode"):
        estimate(advantage_estimator(group_relative, combine=weighted_sum), rewards, mask, ["a", "a"])


def agg_loss(loss_mat, loss_mask, loss_agg_mode, batch_num_tokens=None, **_):
    assert loss_agg_mode == "token-mean"
    return (loss_mat * loss_mask).sum() / batch_num_tokens


@pytest.fixture
def policy_loss_call(monkeypatch):
    """What verl's ppo_loss passes, with the counts of a global batch of 8 tokens."""
    if importlib.util.find_spec("verl") is None:
        names = ("verl", "verl.trainer", "verl.trainer.ppo", "verl.trainer.ppo.core_algos")
        for name in names:
            monkeypatch.setitem(sys.modules, name, SimpleNamespace(agg_loss=agg_loss))
    g = torch.Generator().manual_seed(0)
    log_prob = torch.randn(2, 3, generator=g).requires_grad_()
    given = {
        "old_log_prob": log_prob.detach() + 0.3 * torch.randn(2, 3, generator=g),
        "log_prob": log_prob,
        "advantages": torch.randn(2, 3, generator=g),
        "response_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]).bool(),
        "loss_agg_mode": "token-mean",
        "config": SimpleNamespace(global_batch_info={"dp_size": 1, "batch_num_tokens": 8, "global_batch_size": 2}),
        "rollout_is_weights": None,
    }
    assert list(given) == RECORDED["policy_loss"]
    return given


def test_the_policy_loss_is_the_objective_with_verls_counts(policy_loss_call):
    loss, metrics = as_policy_loss(bind(clipped_surrogate, clip_high=0.28))(**policy_loss_call)
    given = policy_loss_call
    ours = clipped_surrogate(
        given["log_prob"], given["old_log_prob"], given["advantages"], given["response_mask"], clip_high=0.28
    )
    torch.testing.assert_close(loss, token_mean(ours, 8.0))
    assert set(metrics) == {"actor/clip_low", "actor/clip_high", "actor/ratio", "actor/approx_kl"}
    total, count = ours.metrics["ratio"]
    assert metrics["actor/ratio"] == pytest.approx((total / count).item())
    weights = torch.tensor([[0.0, 1, 1], [2, 1, 1]])
    weighted, _ = as_policy_loss(reinforce)(**{**given, "rollout_is_weights": weights})
    direct = -(given["advantages"] * given["log_prob"] * weights * given["response_mask"]).sum() / 8
    torch.testing.assert_close(weighted, direct)


def test_an_objective_that_needs_more_is_refused():
    with pytest.raises(InputError, match="ref_log_prob"):
        as_policy_loss(lambda log_prob, ref_log_prob: None)


# ---- verl itself


def record():
    """The calling conventions of the installed verl, as kept in the file."""
    losses = inspect.getsource(verl_hooks.found("verl.workers.utils.losses:ppo_loss"))
    calls = [n for n in ast.walk(ast.parse(losses)) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "policy_loss_fn"]
    naive = inspect.getsource(
        verl_hooks.found("verl.experimental.reward_loop.reward_manager.naive:NaiveRewardManager.run_single")
    )
    naive = ast.parse(textwrap.dedent(naive))
    scoring = [n for n in ast.walk(naive) if isinstance(n, ast.Call) and getattr(n.func, "attr", "") == "compute_score"]
    return {
        "version": verl_hooks.found("verl:__version__"),
        "signatures": {where: list(verl_hooks.parameters(where)) for where in verl_hooks.HOOKS},
        "estimator": {k: list(shape) for k, shape in verl_hooks.estimator_arguments().items()},
        "policy_loss": [k.arg for k in calls[0].keywords],
        "compute_score": [k.arg for k in scoring[0].keywords if k.arg],
    }


def test_the_record_has_every_hook():
    assert RECORDED["version"] == verl_hooks.TESTED
    assert RECORDED["signatures"].keys() == verl_hooks.HOOKS.keys()
    for where, wanted in verl_hooks.HOOKS.items():
        assert tuple(RECORDED["signatures"][where][: len(wanted)]) == wanted, where


@needs_verl
def test_the_installed_verl_is_as_recorded():
    now = record()
    if now["version"] == RECORDED["version"]:
        assert now == RECORDED
    assert now["estimator"] == RECORDED["estimator"] and now["policy_loss"] == RECORDED["policy_loss"]


@needs_verl
def test_the_self_check_passes_and_sees_what_moved(monkeypatch):
    assert "MOVED" not in verl_hooks.report()
    monkeypatch.setitem(verl_hooks.HOOKS, "verl.trainer.ppo.core_algos:agg_loss", ("loss_matrix",))
    monkeypatch.setitem(verl_hooks.HOOKS, "verl.trainer.ppo.core_algos:no_such", ())
    with pytest.raises(InputError, match=r"(?s)2 of \d+ hooks.*MOVED  verl.trainer.ppo.core_algos:agg_loss.*MOVED .*no_such"):
        verl_hooks.report()


def test_the_self_check_without_verl(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="verl is not installed"):
        verl_hooks.report()


@needs_verl
def test_the_manager_on_verls_own_classes():
    base = verl_hooks.found("verl.experimental.reward_loop.reward_manager.base:RewardManagerBase")
    one = item([A, DOT, C, END])
    data = verl_hooks.found("verl:DataProto").from_dict(
        {k: v[None] for k, v in one.batch.items()},
        {k: np.array([v, None], dtype=object)[:1] for k, v in one.non_tensor_batch.items()},
    )
    manager = manager_class(base, WHOLE)(None, TOKENIZER, None)
    assert manager.loop.run_until_complete(manager.run_single(data))["reward_score"] == 2.0


@needs_verl
def test_nan_passes_through_verls_metrics():
    data = verl_hooks.found("verl:DataProto").from_dict(
        {
            **{k: torch.tensor([[0.0, torch.nan], [0.0, 1.0]]) for k in ("token_level_scores", "token_level_rewards", "returns")},
            "advantages": torch.zeros(2, 2),
            **{k: torch.ones(2, 2, dtype=torch.long) for k in ("responses", "response_mask", "prompts")},
            "attention_mask": torch.ones(2, 4, dtype=torch.long),
        }
    )
    metrics = verl_hooks.found("verl.trainer.ppo.metric_utils:compute_data_metrics")(data, use_critic=False)
    assert math.isnan(metrics["critic/score/mean"]) and metrics["critic/advantages/mean"] == 0


class Queue:
    """TransferQueue's key-value interface on a dict: name -> one value a row."""

    def __init__(self, meta, rows):
        self.meta, self.rows = meta, rows

    def kv_batch_get(self, keys, partition_id, select_fields):
        from tensordict import NonTensorData, NonTensorStack, TensorDict

        found = {}
        for name in select_fields:
            if name in self.rows:
                column = self.rows[name]
                tensors = isinstance(column[0], torch.Tensor)
                nested = torch.nested.as_nested_tensor(column, layout=torch.jagged) if tensors else None
                found[name] = nested if tensors else NonTensorStack(*(NonTensorData(x) for x in column))
        return TensorDict(found, batch_size=len(keys))

    def kv_batch_put(self, keys, partition_id, fields):
        self.rows |= {name: list(fields[name].unbind()) for name in fields.keys()}  # noqa: SIM118
        return self.meta


def trained(monkeypatch, name, rows=ROWS, *, adv_estimator=None, values=False, kl=False, output=0):
    """The registered trainer's ``_compute_advantage`` on the rows as scored by the registered manager, and one row of padding."""
    from omegaconf import OmegaConf

    what = verl_hooks.found("verl.experimental.reward_loop.reward_manager.registry:get_reward_manager_cls")(name)
    results = []
    for ids in rows:
        manager = what(None, TOKENIZER, None)
        results.append(manager.loop.run_until_complete(manager.run_single(Items(item(ids)))))
    n = len(rows) + 1  # and one row of padding, a copy of the first one's fields
    extra = [{"reward_extra_info": r["reward_extra_info"]} for r in (*results, results[0])]
    meta = verl_hooks.found("verl.utils.transferqueue_utils:KVBatchMeta")(
        keys=[f"u{i // 2}_{i % 2}_{output}" for i in range(n)],
        tags=[{"is_padding": i == len(rows)} for i in range(n)],
        partition_id="train",
    )
    ids = [torch.tensor(r) for r in (*rows, [END])]
    scores = [torch.zeros(len(x)) for x in ids]
    for x, r in zip(scores, results, strict=False):
        x[-1] = r["reward_score"]
    taken = [torch.ones(len(x), dtype=torch.long) for x in ids[:-1]] + [torch.zeros(1, dtype=torch.long)]
    columns = {"uid": ["u", "u", "v", "u", "pad"], "responses": ids, "response_mask": taken, "loss_mask": taken}
    columns |= {"extra_fields": extra, "rm_scores": scores, "old_log_probs": [torch.zeros(len(x)) for x in ids]}
    if values:
        columns["values"] = [torch.full((len(x),), 0.5) for x in ids]
    queue = Queue(meta, columns)
    module = verl_hooks.found("verl.trainer.ppo.v1:trainer_base")
    monkeypatch.setattr(module.tq, "kv_batch_get", queue.kv_batch_get)
    monkeypatch.setattr(module.tq, "kv_batch_put", queue.kv_batch_put)
    trainer = object.__new__(module.get_trainer_cls(name))
    algorithm = {"use_kl_in_reward": kl, "adv_estimator": adv_estimator or name, "gamma": 1.0, "lam": 1.0}
    trainer.config = OmegaConf.create({"algorithm": algorithm, "actor_rollout_ref": {"rollout": {"n": 2}}})
    trainer.global_steps = 1
    metrics = {}
    trainer._compute_advantage(meta, metrics)
    padded = {k: torch.nn.utils.rnn.pad_sequence(v, batch_first=True) for k, v in queue.rows.items() if torch.is_tensor(v[0])}
    return padded, metrics


def whole_batch():
    fields = {"ground_truth": ["a"] * 4}
    rows = token_rollouts(["."] * 4, [""] * 4, ROWS, fields, tokenizer=TOKENIZER, generated=Generated(ends=[END]))
    return rows.replace(group=torch.tensor([0, 0, 1, 0])), WHOLE.score(rows)


@needs_verl
@pytest.mark.parametrize("adv_estimator", [None, "grpo"])
def test_the_registered_trainer_trains_on_the_tokens_that_are_ok(monkeypatch, adv_estimator):
    name = f"tokens_{adv_estimator}"
    register(name, reward=WHOLE, credit=bind(return_to_go, gamma=0.9), objective=clipped_surrogate)
    got, metrics = trained(monkeypatch, name, adv_estimator=adv_estimator)
    rollouts, scores = whole_batch()
    want = return_to_go(scores.reward(), rollouts.mask, rollouts.level("episode"), gamma=0.9)
    usable = rollouts.mask & ~want.isnan()
    assert 0 < usable.sum() < rollouts.mask.sum()
    torch.testing.assert_close(got["advantages"][:4], torch.where(usable, want, 0))
    assert torch.equal(got["response_mask"][:4].bool(), usable) and torch.equal(got["loss_mask"], got["response_mask"])
    assert not got["response_mask"][4].any() and not got["advantages"][4].any()
    assert metrics["guerdon/dropped"] == pytest.approx(1 - (usable.sum() / rollouts.mask.sum()).item())
    assert metrics["guerdon/status/no_b/abstain"] == pytest.approx(scores.components["no_b"].shares()["abstain"])
    assert name in verl_hooks.found("verl.trainer.ppo.core_algos:POLICY_LOSS_REGISTRY")
    assert verl_hooks.report().count(name) == 4


@needs_verl
def test_the_registered_trainer_knows_values_levels_and_components(monkeypatch):
    register("valued", reward=WHOLE, credit=bind(gae, gamma=0.9, lam=0.5), combine=weighted_sum)
    got, _ = trained(monkeypatch, "valued", values=True)
    r, scores = whole_batch()
    value = 0.5 * r.mask
    apart = [
        c.weight
        * gae(
            c.steps(scores.levels[c.level], r.mask),
            value,
            r.mask,
            r.level("episode"),
            r.terminated,
            r.truncated,
            gamma=0.9,
            lam=0.5,
        )
        for c in scores.components.values()
    ]
    usable = got["response_mask"][:4].bool()
    torch.testing.assert_close(got["advantages"][:4][usable], sum(apart)[usable])
    torch.testing.assert_close(got["returns"][:4][usable], (sum(apart) + value)[usable])

    register("segments", reward=no_b, credit=bind(group_relative, level="segment"))
    got, _ = trained(monkeypatch, "segments")
    scores = no_b.score(r)
    want = group_relative(scores.reward(), r.mask, r.group, level=scores.levels["segment"])
    torch.testing.assert_close(got["advantages"][:4], want.nan_to_num(0.0))


@needs_verl
def test_the_registered_trainer_stops_loudly(monkeypatch):
    register("crashing", reward=begins + crashes, credit=group_relative)
    with pytest.raises(RewardFailure, match=r"`crashes`.*4 of 4.*ValueError: no such file"):
        trained(monkeypatch, "crashing")
    register("plain", reward=begins, credit=group_relative)
    with pytest.raises(InputError, match="use_kl_loss"):
        trained(monkeypatch, "plain", kl=True)
    with pytest.raises(InputError, match="one output a session"):
        trained(monkeypatch, "plain", output=1)
    monkeypatch.setattr("guerdon.integrations.verl_trainer.PAYLOAD", "of another manager")
    with pytest.raises(InputError, match=r"reward_manager\.name"):
        trained(monkeypatch, "plain")
