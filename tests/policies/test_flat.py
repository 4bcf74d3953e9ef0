# SPDX-License-Identifier: Apache-2.0
"""The fast way to read a batch beside the slow one."""

import pytest
import torch
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

from guerdon.credit import group_relative
from guerdon.objectives import clipped_surrogate, token_mean
from guerdon.policies import attention, flat, language, shared_contexts
from guerdon.policies.cache import cache_of
from guerdon.policies.flat import FlatRow, flat_hidden_states, padded_hidden_states, reads_flat
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.shared_contexts import Reading, SharedContexts, shares_contexts
from guerdon.policies.token_batch import TokenBatch
from guerdon.protocols import Context, Sampling
from guerdon.rewards import reward
from guerdon.training.binding import bind
from guerdon.training.loop import Progress, Run
from guerdon.training.recipe import Recipe, Stage, Term
from guerdon.training.sources import Prompts
from tests.policies.models import ARCHITECTURES, TOKENS, contexts, make, policy

torch.set_num_threads(1)
CPU = torch.device("cpu")


def batch():
    """Two contexts, of which one comes twice; the second row is cut short and its last step is not the policy's."""
    mask = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    return TokenBatch.of([[5, 6], [7], [5, 6]], torch.tensor([[10, 11, 12], [13, 14, 15], [16, 17, 18]]), mask, CPU)


def test_a_flat_row_has_every_context_once_and_no_padding():
    row = FlatRow(batch())
    assert row.ids.tolist() == [[5, 6, 7, 10, 11, 13]]
    assert row.position.tolist() == [[0, 1, 0, 2, 3, 1]]
    assert row.at.tolist() == [[0, 1, 3, 4], [2, 5, 0, 0], [0, 1, 0, 0]]
    assert row.predicts.tolist() == [1, 3, 4, 2, 5, 1]
    x = torch.arange(6.0).view(1, 1, 6, 1)
    assert row.rows(x)[:, 0, :, 0].tolist() == row.at.tolist()
    assert row.row(row.rows(x)).flatten().tolist() == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_hidden_states_are_those_of_padded_rows_and_so_are_gradients(name):
    model = make(name).eval()
    assert reads_flat(model) == (name != "gemma2")  # a sliding window
    if name == "gemma2":
        return
    found = []
    for states in (flat_hidden_states, padded_hidden_states):
        model.zero_grad()
        out = states(model, batch())
        (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
        found.append([out, *(p.grad for p in model.base_model.parameters())])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [1, 7, flat.SHORT, flat.SHORT + 1])
def test_attention_of_short_and_long_rows_is_pytorchs_and_so_are_gradients(length, kind):
    torch.manual_seed(0)
    given = [torch.randn(3, length, 2, 8, dtype=kind).transpose(1, 2).requires_grad_() for _ in range(3)]
    found = []
    for how in (
        lambda q, k, v: flat.causal_attention(q, k, v, 0.3),
        lambda q, k, v: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3),
    ):
        out = how(*given)
        found.append([out.detach(), *torch.autograd.grad(out, given, torch.linspace(-1, 1, out.numel()).view_as(out).to(kind))])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_short_rows_on_a_processor_go_another_way(monkeypatch):
    asked = []
    monkeypatch.setattr(flat, "scaled_dot_product_attention", lambda *x, **_: asked.append(x[0].shape[2]) or x[0])
    for length in (flat.SHORT, flat.SHORT + 1):
        x = torch.ones(1, 1, length, 2)
        flat.causal_attention(x, x, x, 1.0)
    assert asked == [flat.SHORT + 1]


def test_grouped_queries_read_flat():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=30, hidden_size=16, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=4, num_key_value_heads=2)).eval()  # fmt: skip
    assert reads_flat(model)


def test_a_model_that_says_something_else_of_a_flat_row_is_read_padded(monkeypatch):
    plain = FlatRow.rows

    def wrong(self, x):
        return plain(self, x).roll(1, 2)

    monkeypatch.setattr(FlatRow, "rows", wrong)
    assert not reads_flat(make("llama").eval())


def test_an_attention_that_asks_for_more_is_refused(monkeypatch):
    monkeypatch.setattr(attention, "_attention", lambda *a, **k: (_ for _ in ()).throw(attention.NotOffered()))
    assert not reads_flat(make("gpt2").eval())


# ---- learning curves


def learned(seed: int) -> list[tuple[list[list[int]], float]]:
    """Tokens drawn and loss of each step."""
    p = LanguagePolicy.tiny(TOKENS, width=32, seed=seed)
    stage = Stage(
        "train",
        4,
        Prompts([Context(f"task {i}", text) for i, text in enumerate(("5+8:", "1+2+3:", "7:"))], 3, 6, Sampling(10)),
        [Term(1.0, clipped_surrogate, token_mean)],
        reward=reward(lambda completion: completion.count("7") / 10, name="sevens"),
        credit=bind(group_relative, scale="std", eps=1e-4),
        lr=3e-3,
        updates=2,
    )
    lines = []

    class Told:
        def metrics(self, step, metrics):
            lines.append(metrics["loss"])

    run = Run(Recipe("r", lambda: p, [stage], checkpoint_every=100, save_rollouts_every=0), None, p, Progress(), [Told()])
    updater, tokens = p.updater(), []
    run.keep = lambda rollouts, *_: tokens.append(rollouts.action.tolist())
    for _ in range(4):
        run.step(stage, updater)
    return list(zip(tokens, lines, strict=True))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_learning_is_the_same_seed_by_seed_as_by_the_slow_path(seed, monkeypatch):
    fast = learned(seed)
    monkeypatch.setattr(language, "reads_flat", lambda model: False)
    monkeypatch.setattr(language, "choose_products", lambda model, rounded: None)
    monkeypatch.setattr(shared_contexts, "cache_of", lambda model, steps: DynamicCache(config=model.config))
    slow = learned(seed)
    assert len({str(t) for t, _ in slow}) == 4
    for (a, loss), (b, expected) in zip(fast, slow, strict=True):
        assert a == b
        assert loss == pytest.approx(expected, abs=1e-5)


def test_a_cache_written_in_place_is_the_one_that_is_copied():
    model = make("llama").eval()
    ours, theirs = cache_of(model, 3), DynamicCache(config=model.config)
    with torch.no_grad():
        for token, stay in (([[5, 6], [7, 8]], [0, 0, 1, 1]), ([[9], [10], [11], [12]], [3, 1]), ([[5], [6]], [1]), ([[4]], [0])):
            outs = [model(torch.tensor(token), past_key_values=c, use_cache=True).logits for c in (ours, theirs)]
            torch.testing.assert_close(*outs)
            for c in (ours, theirs):
                c.batch_select_indices(torch.tensor(stay))
    assert ours.get_seq_length() == 5
    assert ours.layers[0].keys.untyped_storage().data_ptr() == ours.layers[0].buffers[0].untyped_storage().data_ptr()


# ---- shared contexts


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_rows_that_share_a_context_draw_what_rows_with_their_own_draw(name):
    p = policy(name)
    assert p._shares_contexts == (name != "gemma2")  # a sliding window
    settings = Sampling(9, temperature=1.3)
    shared = p.sample(contexts(), settings, seed=3)
    p._shares_contexts = False
    own = p.sample(contexts(), settings, seed=3)
    assert len(set(shared.length.tolist())) > 1  # rows leave at different times
    assert torch.equal(shared.action, own.action)
    torch.testing.assert_close(shared.log_prob, own.log_prob, rtol=1e-4, atol=1e-4)


def test_a_context_s_keys_are_kept_once_and_a_row_s_own_apart():
    p = policy()
    few, many = [[5, 6, 7], [5, 6, 7], [8, 9], [8, 9], [5, 6, 7]], 3
    reading = Reading(p.inner, lambda **inputs: p.inner(**inputs).logits, few, many, share=True)
    with torch.no_grad():
        reading.read(torch.tensor([4, 5, 6, 7, 8]))
    shared, own = reading.shared, reading.cache.layers[0].keys
    assert shared.keys[0].shape[0::2] == (2 * 2, 3) and own.shape[0::2] == (5, 1)
    assert shared.place.tolist() == [0, 1, 3, 4, 2] and shared.most == 3
    x = torch.randn(5 * 2, 1, 4)
    assert shared.by_context(x).shape == (2 * 2, 3, 4)
    assert torch.equal(shared.by_row(shared.by_context(x)), x)
    reading.keep(torch.tensor([0, 2]))
    assert shared.place is None and shared.most == 1  # a row of each, in order: nothing to move


def test_grouped_queries_share_contexts():
    model = LlamaForCausalLM(LlamaConfig(vocab_size=30, hidden_size=16, intermediate_size=8, num_hidden_layers=1,
                                         num_attention_heads=4, num_key_value_heads=2)).eval()  # fmt: skip
    assert shares_contexts(model)


def test_a_model_that_says_something_else_of_shared_contexts_does_not_share(monkeypatch):
    monkeypatch.setattr(SharedContexts, "by_row", lambda self, x, plain=SharedContexts.by_row: plain(self, x).roll(1, 0))
    assert not shares_contexts(make("llama").eval())
