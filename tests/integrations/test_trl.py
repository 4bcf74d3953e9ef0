# SPDX-License-Identifier: Apache-2.0
"""Rewards and credit in TRL: its real GRPOTrainer on a tiny model made here, beside what guerdon says of the same completions."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from guerdon.credit import gae, group_relative, return_to_go
from guerdon.errors import ExpressionError, InputError, RewardFailure
from guerdon.integrations.token_rows import Generated, token_rollouts
from guerdon.integrations.trl import CreditMixin, as_reward_funcs
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.rewards import checkers, linear, reward
from guerdon.rewards.conciseness import ShorterThanUsual
from guerdon.rewards.fields import field
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Status
from guerdon.training.binding import bind

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and Transformers' own

WORDS = ("a", "b", "cc", ".")
GROUP, ROWS, T = 4, 8, 6


@reward(bounds=(0, 1))
def begins(completion):
    return completion.startswith("a")


@reward(level="segment", split=r"(?<=\.)", bounds=(0, 1))
def no_b(segment):
    return "b" not in segment


@reward(bounds=(0, 1))
def has_c(completion):
    return None if completion.endswith("b") else "cc" in completion


@reward(level="segment", split=r"(?<=\.)", bounds=(0, 1))
def second(segment, index):
    return None if segment.startswith("b") else index == 1


@reward
def crashes(completion):
    raise ValueError("no such file")


WHOLE = begins + 0.5 * no_b - 0.25 * has_c


# ---- the columns, without a trainer


def told(completions, ids=None, **columns):
    n = len(completions)
    return {"prompts": ["."] * n, "completions": completions, "completion_ids": ids or [[4]] * n, **columns}


def test_weighted_sum_is_the_total_and_abstaining_leaves_every_column():
    functions, weights = as_reward_funcs(begins - 0.25 * has_c)
    texts = ["acc", "a", "bcc", "ab"]
    values = {f.__name__: f(**told(texts)) for f in functions}
    assert values == {"begins": [1.0, 1.0, 0.0, None], "has_c": [1.0, 0.0, 1.0, None]}  # TRL takes a single None for a 0
    assert weights == [1.0, -0.25]
    total = (begins - 0.25 * has_c)(completions=texts).total.values[:, 0].tolist()
    assert [sum(w * values[f.__name__][n] for f, w in zip(functions, weights, strict=True)) for n in range(3)] == total[:3]


def test_a_batch_is_scored_once_and_logged_once():
    calls = []

    @reward
    def counted(completion):
        calls.append(completion)
        return 1.0 if completion else None

    functions, _ = as_reward_funcs(counted + begins.named("first") + has_c)
    extra, metrics = {}, []
    log = {"log_extra": lambda name, x: extra.setdefault(name, []).extend(x), "log_metric": lambda *x: metrics.append(x)}
    for batch in (told(["a", "", "b"]), told(["a", "", "b"])):
        with ThreadPoolExecutor(3) as threads:  # as AsyncGRPO does
            list(threads.map(lambda f, batch=batch: f(**batch, **log), functions))
    assert calls == ["a", "", "b"] * 2
    assert extra["reward_status"] == ["ok", "abstain", "abstain"] * 2
    assert extra["reward_reason"] == ["", "counted: abstain: returned None", "has_c: abstain: returned None"] * 2
    assert dict(metrics)["reward/first"] == pytest.approx(1 / 3)  # of all three: it did not abstain itself
    assert dict(metrics)["status/counted/abstain"] == pytest.approx(1 / 3)


def test_failures_end_the_run_with_their_reasons():
    functions, _ = as_reward_funcs(begins + crashes)
    with pytest.raises(RewardFailure, match=r"`crashes`.*4 of 4.*ValueError: no such file"):
        functions[0](**told(["a"] * 4))
    functions, _ = as_reward_funcs(begins + crashes, max_failed=1.0)
    assert functions[0](**told(["a"] * 4)) == [None] * 4
    functions, _ = as_reward_funcs(begins + crashes.watch())
    assert [f(**told(["a", "b"])) for f in functions] == [[1.0, 0.0]]


def test_weights_that_change_are_in_the_values():
    functions, weights = as_reward_funcs(0.5 * begins + linear(0, 1, 10) * has_c)
    assert weights == [0.5, 1.0]
    at_5 = SimpleNamespace(global_step=5)
    batch = told(["acc"])
    assert [f(**batch, trainer_state=at_5) for f in functions] == [[1.0], [0.5]]
    functions, weights = as_reward_funcs(0.5 * begins - has_c, weighted=True)
    assert weights == [1.0, 1.0] and [f(**batch) for f in functions] == [[0.5], [-1.0]]


def test_parts_of_an_answer_need_the_tokenizer():
    functions, _ = as_reward_funcs(WHOLE)
    with pytest.raises(InputError, match="tokenizer="):
        functions[0](**told(["a.b"]))
    tokenizer = LanguagePolicy.tiny(WORDS, width=8, layers=1, heads=1).tokenizer
    ids = tokenizer(["a.b.cc", "bcc"], add_special_tokens=False).input_ids
    functions, weights = as_reward_funcs(WHOLE, tokenizer=tokenizer)
    batch = told(["a.b.cc", "bcc"], ids)
    assert [f(**batch) for f in functions] == [[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]] and weights == [1.0, 0.5, -0.25]


@pytest.mark.parametrize(
    ("what", "says"), [(begins - 0.1 * checkers.kl(), "beta"), (begins + ShorterThanUsual(name="short"), "learns while in use")]
)
def test_what_trl_cannot_serve_is_refused_at_once(what, says):
    with pytest.raises(ExpressionError, match=says):
        as_reward_funcs(what)


def test_a_column_can_be_sent_to_another_process():
    functions, _ = as_reward_funcs("numeric + 0.5*exact")
    functions[0](**told(["4"], answer=["4"]))
    again = pickle.loads(pickle.dumps(functions))
    assert again[1](**told(["4", "5"], answer=["4", "4"])) == [1.0, 0.0] and again[0].scorer is again[1].scorer


def test_rows_of_several_turns():
    tokenizer = LanguagePolicy.tiny(WORDS, width=8, layers=1, heads=1).tokenizer
    a, b, c, end = *(tokenizer.convert_tokens_to_ids(w) for w in ("a", "b", "cc")), tokenizer.eos_token_id
    chat = [[{"role": "assistant", "content": "acc"}, {"role": "tool", "content": "b"}, {"role": "assistant", "content": "b"}]]
    rows = token_rollouts(
        [[{"role": "user", "content": "."}]],
        chat,
        [[a, c, end, b, b, b]],
        {"paid": [[1.0, 2.0]]},
        tokenizer=tokenizer,
        generated=Generated(taken=[[1, 1, 1, 0, 0, 1]], ends=[end]),
        levels={"paid": "turn"},
    )
    assert rows.values_at("completion", "episode") == ["acc\nb"]
    assert rows.field("offset").values.tolist() == [[[0, 1], [1, 3], [3, 3], [3, 3], [3, 3], [4, 5]]]
    assert rows.level("turn").tolist() == [[0, 0, 0, 0, 0, 1]] and rows.truncated.tolist() == [[False] * 5 + [True]]
    assert field("paid", level="turn").score(rows).reward().tolist() == [[0, 0, 1.0, 0, 0, 2.0]]
    assert len(rows.values_at("messages", "episode")[0]) == 4


# ---- in the real trainer


class Credited(CreditMixin, trl.GRPOTrainer):
    """Keeps what reaches the loss."""

    seen: list

    def _compute_loss(self, model, inputs):
        if hasattr(self, "seen"):
            self.seen.append({k: v for k, v in inputs.items() if isinstance(v, torch.Tensor)})
        return super()._compute_loss(model, inputs)


def config(path, **more):
    how = {"per_device_train_batch_size": ROWS, "num_generations": GROUP, "max_completion_length": T, "max_steps": 3}
    how |= {"learning_rate": 1e-2, "logging_steps": 1, "report_to": [], "use_cpu": True, "bf16": False, "save_strategy": "no"}
    return trl.GRPOConfig(output_dir=str(path), **how | more)


def make(cls, path, settings=None, **how):
    from datasets import Dataset

    policy = LanguagePolicy.tiny(WORDS, width=16, layers=1, heads=2, max_length=32)
    rows = [{"prompt": word * (k + 1)} for k in range(4) for word in ("a", "b", "cc")]
    policy.model.save_pretrained(path / "model")  # where TRL takes the reference from
    policy.model.config._name_or_path = str(path / "model")
    args, data = config(path, **settings or {}), Dataset.from_list(rows)
    trainer = cls(policy.model, args=args, train_dataset=data, processing_class=policy.tokenizer, **how)
    trainer.seen = []
    return trainer


def train(trainer):
    with redirect_stdout(io.StringIO()):
        trainer.train()
    return [line for line in trainer.state.log_history if "loss" in line]


def rollouts_of(trainer, batch):
    """The batch as Rollouts, made by hand."""
    ids, stored = batch["completion_ids"], batch["completion_mask"].bool()
    pieces = [["" if i < 4 else WORDS[i - 4] for i in row] for row in ids.tolist()]
    ends = [[sum(map(len, row[: t + 1])) for t in range(len(row))] for row in pieces]
    starts = [[0, *row[:-1]] for row in ends]
    offset = torch.stack([torch.tensor(starts), torch.tensor(ends)], -1)
    prompts = trainer.processing_class.batch_decode(batch["prompt_ids"], skip_special_tokens=True)
    return Rollouts(
        action=ids,
        mask=stored,
        task=prompts,
        length=stored.sum(1),
        fields={
            "prompt": Field("task", prompts),
            "completion": Field("episode", [["".join(row)] for row in pieces]),
            "offset": Field("step", offset),
        },
    )


CREDITS = {
    "rows": (WHOLE, group_relative, lambda x, r, s: group_relative(x, r.mask, r.group)),
    "segments": (
        no_b + 0.5 * second,
        bind(group_relative, level="segment", scale="std", eps=1e-4),
        lambda x, r, s: group_relative(x, r.mask, r.group, level=s.levels["segment"], scale="std", eps=1e-4),
    ),
    "tokens": (WHOLE, bind(return_to_go, gamma=0.9), lambda x, r, s: return_to_go(x, r.mask, r.level("episode"), gamma=0.9)),
}


@pytest.mark.parametrize("credit", CREDITS)
def test_what_reaches_the_loss_is_guerdons_credit(tmp_path, credit):
    what, ours, theirs = CREDITS[credit]
    trainer = make(Credited, tmp_path, reward=what, credit=ours)
    logged = train(trainer)
    dropped_some = False
    for line, batch in zip(logged, trainer.seen, strict=True):
        rollouts = rollouts_of(trainer, batch)
        scores = what.score(rollouts)
        advantage = theirs(scores.reward(), rollouts, scores)
        usable = rollouts.mask & ~advantage.isnan()
        assert torch.equal((batch["completion_mask"] * batch["tool_mask"]).bool(), usable)
        torch.testing.assert_close(batch["advantages"], torch.where(usable, advantage, 0), rtol=1e-5, atol=1e-6)
        assert batch["num_items_in_batch"] == usable.sum()
        assert line["dropped"] == pytest.approx(1 - (usable.sum() / rollouts.mask.sum()).item())
        dropped_some |= line["dropped"] > 0

        ok = ~scores.reward().sum(1).isnan()
        for name, c in scores.components.items():
            total = c.steps(scores.levels[c.level], scores.mask).sum(1)
            assert line[f"rewards/{name}/mean"] == pytest.approx(total[ok].mean().item(), rel=1e-5)
            assert line[f"reward/{name}"] == pytest.approx(c.mean(), rel=1e-5)
            assert line[f"status/{name}/abstain"] == pytest.approx(c.shares()["abstain"])
        assert line["reward"] == pytest.approx(scores.reward().sum(1)[ok].mean().item(), rel=1e-5)
    assert dropped_some  # a component did abstain


@pytest.mark.parametrize("loss_type", ["bnpo", "dapo"])
def test_the_loss_and_its_gradient_are_those_of_the_surrogate_on_usable_tokens(tmp_path, loss_type):
    trainer = make(
        Credited, tmp_path, {"loss_type": loss_type, "max_steps": 1, "beta": 0.0}, reward=WHOLE, credit=CREDITS["tokens"][1]
    )
    train(trainer)
    (batch,) = trainer.seen
    trainer.model.eval()
    mask = (batch["completion_mask"] * batch["tool_mask"]).bool()
    assert 0 < mask.sum() < batch["completion_mask"].sum()

    def gradients(loss):
        trainer.model.zero_grad()
        loss.backward()
        return {name: p.grad.clone() for name, p in trainer.model.named_parameters()}

    theirs = trl.GRPOTrainer._compute_loss(trainer, trainer.model, batch)
    ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], 1)
    attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], 1)
    log_prob, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, batch["completion_ids"].shape[1])
    rollouts = rollouts_of(trainer, batch)
    scores = WHOLE.score(rollouts)
    advantage = CREDITS["tokens"][2](scores.reward(), rollouts, scores)
    loss = clipped_surrogate(log_prob, log_prob.detach(), advantage, mask)
    ours = token_mean(loss, token_mean.count(mask))
    torch.testing.assert_close(ours, theirs)
    expected, got = gradients(theirs), gradients(ours)
    assert max(g.abs().max() for g in expected.values()) > 1e-3
    for name, g in got.items():
        torch.testing.assert_close(g, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_plain_columns_in_the_trainer(tmp_path):
    tokenizer = LanguagePolicy.tiny(WORDS, width=16, layers=1, heads=2).tokenizer
    functions, weights = as_reward_funcs(WHOLE, tokenizer=tokenizer)
    trainer = make(
        trl.GRPOTrainer, tmp_path, {"reward_weights": weights, "max_steps": 1, "log_completions": True}, reward_funcs=functions
    )
    train(trainer)
    logs = trainer._logs
    prompts, texts = list(logs["prompt"]), list(logs["completion"])
    scores = WHOLE.score(Rollouts.from_text(prompts, texts, steps="characters"))
    total = scores.total.values.nansum(1)
    ok = (scores.total.status <= Status.OK).all(1)
    assert list(logs["extra"]["reward_status"]) == ["ok" if x else "abstain" for x in ok]
    for name, c in scores.components.items():
        expected = torch.where(ok, c.values.nansum(1), torch.nan)
        torch.testing.assert_close(torch.tensor(list(logs["rewards"][name])), expected, equal_nan=True)
    group = torch.arange(ROWS) // GROUP
    want = group_relative(
        torch.where(ok, total, torch.nan)[:, None], torch.ones(ROWS, 1, dtype=torch.bool), group, scale="std", eps=1e-4
    )
    torch.testing.assert_close(torch.tensor(list(logs["advantages"])), want[:, 0].nan_to_num(0.0), rtol=1e-4, atol=1e-5)


class Valued(Credited):
    def ingredients(self, rollouts, out):
        assert out["completion_ids"].shape == rollouts.action.shape
        return {"value": 0.5 * rollouts.mask}


def test_values_for_gae_come_from_a_subclass(tmp_path):
    trainer = make(Valued, tmp_path, {"max_steps": 1}, reward=begins + 0.5 * no_b, credit=bind(gae, gamma=0.9, lam=0.8))
    train(trainer)
    (batch,) = trainer.seen
    r = rollouts_of(trainer, batch)
    last = torch.arange(r.mask.shape[1]) == r.length[:, None] - 1
    ended = last & (batch["completion_ids"] == trainer.processing_class.eos_token_id)
    scores = (begins + 0.5 * no_b).score(r)
    want = gae(scores.reward(), 0.5 * r.mask, r.mask, r.level("episode"), ended, last & ~ended, gamma=0.9, lam=0.8)
    torch.testing.assert_close(batch["advantages"], want)


def test_turns_of_an_environment(tmp_path):
    """Two turns with a reply between them; the environment pays each turn, and credit is by turn."""

    def two_turns(prompts, trainer):
        n = len(prompts)
        ids = [[4 + i % 3, 2, 7, 7, 5, 2][: 6 if i % 2 else 2] for i in range(n)]
        return {
            "prompt_ids": [[1, 4]] * n,
            "completion_ids": ids,
            "logprobs": [[-1.0] * len(x) for x in ids],
            "env_mask": [[1, 1, 0, 0, 1, 1][: len(x)] for x in ids],
            "paid": [[0.0, 1.0] if i % 2 else [0.25] for i in range(n)],
        }

    trainer = make(
        Credited,
        tmp_path,
        {"max_steps": 1},
        rollout_func=two_turns,
        reward=field("paid", level="turn"),
        credit=bind(group_relative, level="turn"),
        levels={"paid": "turn"},
    )
    train(trainer)
    (batch,) = trainer.seen
    long, short = batch["completion_mask"].sum(1) == 6, batch["completion_mask"].sum(1) == 2
    assert batch["advantages"][short].unique(dim=0).tolist() == [[-0.375, -0.375, 0, 0, 0, 0]]
    assert batch["advantages"][long].unique(dim=0).tolist() == [[0.375, 0.375, 0, 0, 0, 0]]  # both go on alike: nothing to learn
    assert batch["tool_mask"][long].unique(dim=0).tolist() == [[1, 1, 0, 0, 1, 1]]


def test_it_learns_token_by_token(tmp_path):
    @reward(level="character", split=r"(?<=.)", bounds=(0, 1))
    def is_a(character):
        return None if character == "." else character == "a"  # a full stop is nobody's business

    settings = {"max_steps": 12, "learning_rate": 5e-3, "per_device_train_batch_size": 32, "num_generations": 8}
    trainer = make(Credited, tmp_path, settings, reward=is_a, credit=bind(group_relative, level="character"))
    shares = [line["reward/is_a"] for line in train(trainer)]
    assert shares[0] < 0.7 and min(shares[-3:]) > 0.9


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"importance_sampling_level": "sequence"}, "importance_sampling_level='sequence'"),
        ({"loss_type": "vespo"}, "vespo"),
        ({"off_policy_mask_threshold": 0.1}, "off_policy_mask_threshold"),
        ({"reward_weights": [1.0]}, "reward_weights"),
    ],
)
def test_settings_that_change_the_meaning_are_refused(tmp_path, settings, says):
    with pytest.raises(InputError, match=says):
        make(Credited, tmp_path, settings, reward=begins, credit=group_relative)


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "cispo", "sapo", "luspo"])
def test_the_self_check_accepts_every_other_loss(tmp_path, loss_type):
    more = {"loss_type": loss_type, "beta": 0.1, "entropy_coef": 0.1, "top_entropy_quantile": 0.5}
    trainer = make(Credited, tmp_path, more, reward=begins, credit=group_relative)
    assert trainer._metrics["eval"] == {} and "_get_per_token_logps_and_entropies" not in vars(trainer)


class Averaging(trl.GRPOTrainer):
    """As a version of TRL would be that knows one advantage a completion only."""

    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, {**inputs, "advantages": inputs["advantages"].mean(1)})


class Unmasked(trl.GRPOTrainer):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, {k: v for k, v in inputs.items() if k != "tool_mask"})


class Failing(trl.GRPOTrainer):
    def _compute_loss(self, model, inputs):
        return super()._compute_loss(model, {**inputs, "advantages": inputs["advantage"]})


class Renamed(trl.GRPOTrainer):
    def _generate_and_score_completions(self, batch):
        return super()._generate_and_score_completions(batch)


@pytest.mark.parametrize(
    ("cls", "says"),
    [
        (Averaging, "gradient of the trainer's loss"),
        (Unmasked, "gradient of the trainer's loss"),
        (Failing, "KeyError"),
        (Renamed, r"expected `_generate_and_score_completions\(inputs\)`"),
        (trl.SFTTrainer, "without"),
    ],
)
def test_another_trainer_inside_is_noticed_when_it_is_made(tmp_path, cls, says):
    mixed = type("Mixed", (CreditMixin, cls), {})
    with pytest.raises(InputError, match=says):
        make(mixed, tmp_path, reward=begins, credit=group_relative)


def test_rows_of_all_processes_are_as_wide_as_the_widest(tmp_path):
    """Two processes of which the other one has wider rows: gathered in order, and cut back to one's own."""
    trainer = make(Credited, tmp_path, reward=begins, credit=group_relative)

    class Two:
        device, num_processes, process_index = torch.device("cpu"), 2, 1

        def pad_across_processes(self, x, dim, pad_index):
            return torch.nn.functional.pad(x, (0, 5 - x.shape[1]), value=pad_index)

        def gather(self, x):
            return torch.cat([torch.full_like(x, 9), x])

    trainer.accelerator = Two()
    assert trainer._of_all(torch.tensor([[1, 2]]), -1).tolist() == [[9] * 5, [1, 2, -1, -1, -1]]


def test_the_example_runs():
    from guerdon.rewards.worker import load_file

    example = load_file(str(Path(__file__).parents[2] / "examples" / "trl_grpo.py"))
    with redirect_stdout(io.StringIO()):
        right = example.main(updates=2, steps=2)
    assert len(right) == 2 and all(0 <= share <= 1 for share in right)


def test_chat_prompts_evaluation_and_wider_padding(tmp_path):
    from datasets import Dataset

    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    policy = LanguagePolicy.tiny(word_tokenizer(WORDS, chat_template=template), width=16, layers=1, heads=2, max_length=32)

    @reward(bounds=(0, 1))
    def polite(completion, messages, prompt):
        assert messages[-1]["role"] == "assistant" and prompt[0]["role"] == "user"
        return completion.startswith("a")

    chats = Dataset.from_list([{"prompt": [{"role": "user", "content": "a"}]}, {"prompt": [{"role": "user", "content": "b"}]}])
    more = {"pad_to_multiple_of": 16, "num_generations_eval": 2, "per_device_eval_batch_size": 4, "max_steps": 1}
    trainer = Credited(
        policy.model,
        reward=polite + 0.5 * no_b,
        credit=bind(group_relative, level="step"),
        args=config(tmp_path, **more),
        train_dataset=chats,
        eval_dataset=chats,
        processing_class=policy.tokenizer,
    )
    trainer.seen = []
    train(trainer)
    with redirect_stdout(io.StringIO()):
        figures = trainer.evaluate()
    assert [b["advantages"].shape for b in trainer.seen] == [(ROWS, 16), (4, 16)]
    assert 0 <= figures["eval_reward/polite"] <= 1 and "eval_dropped" in figures
