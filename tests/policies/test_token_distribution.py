# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch
from torch.distributions import Categorical
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from guerdon.policies.token_distribution import draw, kept_tokens, statistics, statistics_in_chunks, stream, uniforms

torch.set_num_threads(1)


def logits(n: int = 5, v: int = 11, seed: int = 0, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(n, v, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


class Largest(TorchDispatchMode):
    """Number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [x.numel() for x in tree_flatten(out)[0] if isinstance(x, torch.Tensor)]
        self.elements = max([self.elements, *sizes])
        return out


def test_a_stream_depends_on_its_key_alone_and_a_longer_one_begins_with_a_shorter_one():
    both = stream(7, [("a", 0), ("b", 3)], 6)
    assert torch.equal(both[1:], stream(7, [("b", 3)], 6))
    assert np.array_equal(uniforms(7, "a", 0, 2), uniforms(7, "a", 0, 6)[:2])
    others = [uniforms(8, "a", 0, 6), uniforms(7, "a", 1, 6), uniforms(7, "a ", 0, 6), uniforms(7, "b", 3, 6)]
    assert not any(np.isclose(uniforms(7, "a", 0, 6), x).any() for x in others)


def test_streams_are_uniform_and_independent_over_keys():
    x = stream(0, [("task", i) for i in range(4000)], 4)
    # The mean of 16000 uniforms has a standard deviation of 0.0023; correlations one of 1/sqrt(4000).
    assert abs(x.mean().item() - 0.5) < 0.01
    assert (torch.corrcoef(x.T) - torch.eye(4)).abs().max() < 0.08
    assert torch.corrcoef(torch.stack([x[:-1, 0], x[1:, 0]]))[0, 1].abs() < 0.08


def test_draw_gives_every_token_its_share_of_the_unit_interval():
    x = logits(1)
    n = 20_000
    tokens = draw(x.expand(n, -1), (torch.arange(n) + 0.5) / n)
    share = torch.bincount(tokens, minlength=11) / n
    assert (share - x[0].softmax(-1)).abs().max() < 1.01 / n
    assert (tokens.diff() >= 0).all()


def test_draw_never_gives_what_is_not_kept_even_at_the_ends_of_the_interval():
    x = logits(4).float()
    kept = torch.tensor([[3, -1], [0, 10], [10, 4], [5, 6]])
    for u in (0.0, 0.5, 1 - 2**-53):
        tokens = draw(x, torch.full((4,), u, dtype=torch.float64), kept)
        assert (tokens[:, None] == kept).any(1).all()
    impossible = torch.tensor([[-torch.inf, 0.0, -torch.inf]])
    assert draw(impossible, torch.tensor([0.0])).item() == draw(impossible, torch.tensor([1.0])).item() == 1


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.7), (4, 0.6), (0, 0.01), (50, 1.0)])
def test_kept_tokens_are_those_of_transformers(top_k, top_p):
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    x = logits(8)
    theirs = TopKLogitsWarper(top_k)(None, x) if top_k else x
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1 else theirs
    kept = kept_tokens(x, top_k, top_p)
    ours = [set(row[row >= 0].tolist()) for row in kept]
    assert ours == [set(row.isfinite().nonzero()[:, 0].tolist()) for row in theirs]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_statistics_are_those_of_a_categorical_distribution(temperature):
    x, token = logits(), torch.tensor([0, 3, 10, 5, 5])
    found = statistics(x, token, temperature, entropy=True)
    expected = Categorical(logits=x / temperature)
    torch.testing.assert_close(found["log_prob"], expected.log_prob(token), rtol=0, atol=1e-13)
    torch.testing.assert_close(found["entropy"], expected.entropy(), rtol=0, atol=1e-13)


def test_statistics_over_kept_tokens_are_those_of_the_renormalised_distribution():
    x, token = logits().requires_grad_(), torch.tensor([0, 3, 10, 5, 5])
    kept = torch.tensor([[0, 1, 2], [3, 4, -1], [2, 10, -1], [5, -1, -1], [5, 6, 7]])
    allowed = torch.zeros(5, 11, dtype=torch.bool)
    for n, row in enumerate(kept):
        allowed[n, row[row >= 0]] = True
    found = statistics(x, token, 0.9, kept, entropy=True)
    expected = Categorical(probs=(x / 0.9).softmax(-1) * allowed)
    torch.testing.assert_close(found["log_prob"], expected.log_prob(token), rtol=0, atol=1e-13)
    torch.testing.assert_close(found["entropy"], expected.entropy(), rtol=0, atol=1e-12)
    assert found["log_prob"][3] == 0  # one token left: certain
    (gradient,) = torch.autograd.grad(found["log_prob"].sum() + found["entropy"].sum(), x)
    assert gradient.isfinite().all()
    assert (gradient[~allowed] == 0).all()


def test_half_precision_is_brought_to_float32_before_the_sum():
    x = torch.zeros(1, 4096, dtype=torch.bfloat16)
    assert statistics(x, torch.tensor([0]))["log_prob"].item() == pytest.approx(-np.log(4096), abs=1e-6)


def chunked(chunk: int, want_gradient: bool):
    torch.manual_seed(0)
    head = torch.nn.Linear(6, 50, dtype=torch.float64)
    hidden = torch.randn(40, 6, dtype=torch.float64, requires_grad=want_gradient)
    token = torch.arange(40) % 50
    kept = (token[:, None] + torch.arange(4)) % 50
    with Largest() as seen, torch.set_grad_enabled(want_gradient):
        found = statistics_in_chunks(hidden, head, token, 50, temperature=0.8, kept=kept, entropy=True, chunk=chunk)
        total = (found["log_prob"] * torch.linspace(0, 1, 40)).sum() + found["entropy"].sum()
        gradients = torch.autograd.grad(total, [hidden, head.weight]) if want_gradient else ()
    return [*found.values(), *gradients], seen.elements


@pytest.mark.parametrize("want_gradient", [False, True])
def test_chunks_change_no_number_and_never_hold_all_logits(want_gradient):
    whole, largest = chunked(2**24, want_gradient)
    assert largest == 40 * 50
    in_parts, largest = chunked(7 * 50, want_gradient)
    assert largest <= 7 * 50  # also more than any parameter, state or gradient here
    for a, b in zip(whole, in_parts, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
