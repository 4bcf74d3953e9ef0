# SPDX-License-Identifier: Apache-2.0
"""Side by side with TRL: its real trainers on a tiny model built here, the same batch, loss and every parameter's gradient."""

import pytest
import torch

from guerdon.credit import group_relative, whiten
from guerdon.objectives import (
    bradley_terry,
    clipped_surrogate,
    constant,
    dpo,
    entropy_bonus,
    kl_penalty,
    pair_mean,
    sequence_mean,
    token_mean,
)

trl = pytest.importorskip("trl")
pytestmark = pytest.mark.filterwarnings("ignore")  # TRL's and Transformers' own

WORDS = 24
N, PROMPT, T = 6, 3, 5


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<pad>": 0, "<eos>": 1, "<unk>": 2, **{f"w{i}": i for i in range(3, WORDS)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")
    fast.padding_side = "left"
    return fast


def tiny(kind="LlamaForCausalLM", **more):
    import transformers

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": WORDS, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None}
    config = transformers.LlamaConfig(**sizes, **ids, num_key_value_heads=2, initializer_range=0.6, **more)
    return getattr(transformers, kind)(config).eval()


def arguments(cls, path, **more):
    return cls(output_dir=str(path), report_to=[], use_cpu=True, bf16=False, per_device_train_batch_size=N, **more)


def grpo_trainer(tokenizer, path, cls="GRPO", scored=None, **more):
    from datasets import Dataset

    config = arguments(getattr(trl, f"{cls}Config"), path, num_generations=3, max_completion_length=T, **more)
    trainer = getattr(trl, f"{cls}Trainer")(
        model=tiny(),
        reward_funcs=lambda completions, **_: scored[: len(completions)],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": ["w3 w4 w5", "w6 w7 w8"]}),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    return trainer


@pytest.fixture(scope="module")
def grpo(tokenizer, tmp_path_factory):
    # its default multiplies the KL term by the importance ratio
    return grpo_trainer(tokenizer, tmp_path_factory.mktemp("grpo"), use_bias_correction_kl=False)


@pytest.fixture(scope="module")
def rloo(tokenizer, tmp_path_factory):
    return grpo_trainer(tokenizer, tmp_path_factory.mktemp("rloo"), "RLOO", beta=0.0)


def batch():
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(T) < torch.tensor([[5], [3], [1], [4], [5], [2]])
    return {
        "prompt_ids": torch.randint(3, WORDS, (N, PROMPT), generator=g),
        "prompt_mask": torch.ones(N, PROMPT, dtype=torch.long),
        "completion_ids": torch.where(mask, torch.randint(3, WORDS, (N, T), generator=g), 0),
        "completion_mask": mask.long(),
        "advantages": torch.randn(N, generator=g),
        "num_items_in_batch": mask.sum(),
        "noise": torch.randn(N, T, generator=g),
    }


def evaluate(trainer, data):
    ids = torch.cat([data["prompt_ids"], data["completion_ids"]], 1)
    attention = torch.cat([data["prompt_mask"], data["completion_mask"]], 1)
    log_prob, entropy, *_ = trainer._get_per_token_logps_and_entropies(trainer.model, ids, attention, T, compute_entropy=True)
    return log_prob, entropy


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def assert_same(model, ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    theirs = gradients(model, theirs)
    ours = gradients(model, ours)
    assert max(g.abs().max() for g in theirs.values()) > 1e-3  # so that equal gradients are not just zeros
    for name, g in ours.items():
        torch.testing.assert_close(g, theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize(
    ("loss_type", "reduction"), [("grpo", sequence_mean), ("bnpo", token_mean), ("dapo", token_mean), ("dr_grpo", constant(T))]
)
def test_grpo_loss(grpo, monkeypatch, loss_type, reduction, level):
    data = batch()
    beta = 0.3
    settings = {"loss_type": loss_type, "importance_sampling_level": level, "beta": beta, "epsilon_low": 0.1, "epsilon_high": 0.4}
    for name, x in settings.items():
        monkeypatch.setattr(grpo, name, x)
    log_prob, _ = evaluate(grpo, data)
    data["old_per_token_logps"] = log_prob.detach() + 0.4 * data["noise"]
    data["ref_per_token_logps"] = log_prob.detach() - 0.7 * data["noise"].flip(0)
    theirs = grpo._compute_loss(grpo.model, data)

    log_prob, _ = evaluate(grpo, data)
    mask = data["completion_mask"].bool()
    advantage = data["advantages"][:, None].expand(N, T)
    episode = torch.where(mask, 0, -1) if level == "sequence" else None
    surrogate = clipped_surrogate(
        log_prob, data["old_per_token_logps"], advantage, mask, clip_low=0.1, clip_high=0.4, level=episode
    )
    kl = kl_penalty(log_prob, data["ref_per_token_logps"], mask)
    count = reduction.count(mask)
    assert_same(grpo.model, reduction(surrogate, count) + beta * reduction(kl, count), theirs)

    logged = grpo._metrics["eval"]
    if level == "token":
        for name, theirs_name in (("clip_low", "clip_ratio/low_mean"), ("clip_high", "clip_ratio/high_mean")):
            total, number = surrogate.metrics[name]
            assert 0 < total / number == pytest.approx(logged[theirs_name][-1])
    total, number = kl.metrics["kl"]
    assert (total / number).item() == pytest.approx(logged["kl"][-1], rel=1e-5)


def test_grpo_entropy(grpo):
    data = batch()
    grpo._compute_loss(grpo.model, data)
    _, entropy = evaluate(grpo, data)
    total, number = entropy_bonus(entropy, data["completion_mask"].bool()).metrics["entropy"]
    assert (total / number).item() == pytest.approx(grpo._metrics["eval"]["entropy"][-1], rel=1e-5)


def test_rloo_loss_is_the_surrogate_with_the_whole_rows_ratio(rloo):
    data = batch()
    mask = data["completion_mask"].bool()
    log_prob, _ = evaluate(rloo, data)
    old = log_prob.detach() + 0.1 * data["noise"]
    data["old_logps"] = (old * mask).sum(1)
    theirs = rloo._compute_loss(rloo.model, data)
    log_prob, _ = evaluate(rloo, data)
    ours = clipped_surrogate(
        log_prob, old, data["advantages"][:, None].expand(N, T), mask, level=torch.where(mask, 0, -1), ratio="sum"
    )
    assert_same(rloo.model, sequence_mean(ours, sequence_mean.count(mask)), theirs)


REWARDS = [1.0, 0.0, 0.25, -2.0, None, 3.0]


def their_advantages(tokenizer, path, cls, **more):
    torch.manual_seed(0)
    trainer = grpo_trainer(tokenizer, path, cls, scored=REWARDS, **more)
    trainer.model.train()  # in evaluation the number of generations is another
    return trainer._generate_and_score_completions([{"prompt": "w3 w4 w5"}] * 3 + [{"prompt": "w6 w7 w8"}] * 3)["advantages"]


def our_advantages(**how):
    reward = torch.tensor([[torch.nan if r is None else r] for r in REWARDS])
    return group_relative(reward, torch.ones(N, 1, dtype=torch.bool), torch.tensor([0, 0, 0, 1, 1, 1]), **how)


@pytest.mark.parametrize(
    ("scale_rewards", "how"),
    [
        ("group", {"scale": "std", "eps": 1e-4}),
        ("batch", {"scale": "std", "eps": 1e-4, "scale_by": "batch"}),
        ("none", {}),
    ],
)
def test_grpo_advantages(tokenizer, tmp_path, scale_rewards, how):
    theirs = their_advantages(tokenizer, tmp_path, "GRPO", scale_rewards=scale_rewards)
    ours = our_advantages(**how)[:, 0]
    assert ours.isnan().tolist() == [r is None for r in REWARDS]  # where they put 0
    torch.testing.assert_close(ours.nan_to_num(0.0), theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalised", [False, True])
def test_rloo_advantages(tokenizer, tmp_path, normalised):
    theirs = their_advantages(tokenizer, tmp_path, "RLOO", normalize_advantages=normalised, beta=0.0)
    ours = our_advantages(baseline="leave_one_out")
    if normalised:
        ours = whiten(ours, torch.ones(N, 1, dtype=torch.bool), eps=1e-4)
    torch.testing.assert_close(ours[:, 0].nan_to_num(0.0), theirs, rtol=1e-5, atol=1e-6)


def log_probs(model, ids):
    return trl.trainer.utils.selective_log_softmax(model(ids).logits[:, :-1], ids[:, 1:])


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_dpo_loss(tokenizer, tmp_path, smoothing):
    from datasets import Dataset

    rows = {"prompt": ["w3 w4"] * 2, "chosen": [" w5 w6 w7"] * 2, "rejected": [" w8"] * 2}
    how = {"beta": 0.4, "loss_type": ["robust" if smoothing else "sigmoid"], "label_smoothing": smoothing}
    trainer = trl.DPOTrainer(
        model=tiny(),
        ref_model=tiny(),
        args=arguments(trl.DPOConfig, tmp_path, **how),
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
    )
    with torch.no_grad():
        for p in trainer.ref_model.parameters():
            p.add_(0.2 * torch.randn(p.shape, generator=torch.Generator().manual_seed(2)))
    trainer.model.eval()
    g = torch.Generator().manual_seed(1)
    mask = (torch.arange(PROMPT + T) >= PROMPT) & (
        torch.arange(PROMPT + T) < PROMPT + torch.tensor([[5], [2], [1], [4], [3], [5]])
    )
    attention = mask | (torch.arange(PROMPT + T) < PROMPT)
    ids = torch.where(attention, torch.randint(3, WORDS, attention.shape, generator=g), 0)
    inputs = {"input_ids": ids, "attention_mask": attention.long(), "completion_mask": mask.long()}
    theirs = trainer._compute_loss(trainer.model, inputs, False)

    ref = log_probs(trainer.ref_model, ids).detach()
    first, second = torch.arange(3), torch.arange(3, 6)
    # the robust loss is the soft one with a target beyond [0, 1], made of its two halves
    ours = [
        dpo(log_probs(trainer.model, ids), ref, mask[:, 1:], first, second, torch.full((3,), t), beta=0.4) for t in (1.0, 0.0)
    ]
    right, wrong = (pair_mean(loss, 3) for loss in ours)
    mixed = ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    assert_same(trainer.model, mixed, theirs)
    logged = trainer._metrics["eval"]
    assert (ours[0].metrics["margin"][0] / 3).item() == pytest.approx(logged["rewards/margins"][-1], rel=1e-4)
    assert (ours[0].metrics["accuracy"][0] / 3).item() == pytest.approx(logged["rewards/accuracies"][-1])


@pytest.mark.parametrize("margin", [None, [0.5, 0.0, 2.0]])
def test_reward_model_loss(tokenizer, tmp_path, margin):
    from datasets import Dataset

    model = tiny("LlamaForSequenceClassification", num_labels=1)
    trainer = trl.RewardTrainer(
        model=model,
        args=arguments(trl.RewardConfig, tmp_path),
        train_dataset=Dataset.from_dict({"chosen": ["w3 w4 w5"] * 2, "rejected": ["w6 w7"] * 2}),
        processing_class=tokenizer,
    )
    trainer.model.eval()
    ids = torch.randint(3, WORDS, (N, T), generator=torch.Generator().manual_seed(1))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    score = trainer.model(**inputs).logits[:, 0]
    extra = {} if margin is None else {"margin": torch.tensor(margin)}
    theirs = trainer.compute_loss(trainer.model, {**inputs, **extra})
    ours = bradley_terry(score, torch.arange(3), torch.arange(3, 6), torch.ones(3), **extra)
    assert_same(trainer.model, pair_mean(ours, 3), theirs)
