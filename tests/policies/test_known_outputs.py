# SPDX-License-Identifier: Apache-2.0
"""An update that knows what its layers said while its batch was drawn, beside one that doesn't."""

from dataclasses import replace

import pytest
import torch

from guerdon.errors import InputError
from guerdon.policies import products
from guerdon.policies.flat import answers_known
from guerdon.policies.gradient_updater import OPTIMISERS
from guerdon.policies.known_outputs import KnownOutputs
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.products import Linear
from guerdon.protocols import Sampling
from tests.policies.models import contexts, make, policy

torch.set_num_threads(1)
LOG_PROB = frozenset({"log_prob"})
VOCABULARY = policy().vocabulary


@pytest.fixture
def multiplied(monkeypatch):
    """How many products of the backbone's linear layers were computed in a forward pass."""
    plain, found = products._Product.forward, []

    def forward(ctx, a, b, rounded, known):
        if known is None and len(b) != VOCABULARY:
            found.append(len(a))
        return plain(ctx, a, b, rounded, known)

    monkeypatch.setattr(products._Product, "forward", staticmethod(forward))
    return found


def gradients(p, rollouts):
    out = p.evaluate(rollouts, LOG_PROB)["log_prob"]
    grad = torch.autograd.grad((out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum(), list(p.trained().values()))
    return [out.detach(), *grad]


def drawn(p, n=16, length=9, **more):
    return p.sample(contexts(n), Sampling(length, **more), seed=3)


def backbone_layers(p):
    return sum(isinstance(m, Linear) for m in p.inner.base_model.modules())


@pytest.mark.parametrize("name", ["llama", "cohere", "granite"])
@pytest.mark.parametrize("rounded", [False, True])
def test_values_and_gradients_are_those_of_products_and_no_product_is_computed(name, rounded, multiplied):
    found = []
    for room in (2**26, 0):
        p = policy(name, remember=room, products="bfloat16" if rounded else "float32")
        rollouts = drawn(p)
        assert rollouts.length.unique().numel() > 2  # rows end, and move
        multiplied.clear()
        found.append(gradients(p, rollouts))
        assert len(multiplied) == (0 if room else backbone_layers(p))
    for a, b in zip(*found, strict=True):
        near = 2e-2 if rounded else 1e-4
        torch.testing.assert_close(a, b, rtol=near, atol=near * float(b.abs().max()))


def test_rows_that_are_alike_are_read_once_and_each_counts():
    found = []
    for room in (2**26, 0):
        p = policy(remember=room)
        rollouts = drawn(p, temperature=0.0)  # all rows of a prompt
        assert len({tuple(x) for x in rollouts.action.tolist()}) <= 4 < len(rollouts)
        found.append(gradients(p, rollouts))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_what_is_known_is_what_was_drawn_and_not_what_happens_to_be_near():
    """With another answer in the place of the known ones the values are others: they do come from there."""
    p = policy()
    rollouts = drawn(p)
    expected = p.evaluate(rollouts, LOG_PROB)["log_prob"].detach()
    for x in p._known.outputs.values():
        x.data.mul_(1.5)
    assert (p.evaluate(rollouts, LOG_PROB)["log_prob"] - expected).abs().max() > 0.1


def test_some_of_the_rows_in_any_order_and_with_steps_left_out(multiplied):
    p, plain = policy(), policy(remember=0)
    rollouts = drawn(p)
    some = rollouts.rows(torch.tensor([9, 2, 14]))
    mask = some.mask.clone()
    mask[0], mask[1, 1] = False, False
    some = replace(some, mask=mask)
    multiplied.clear()
    found = p.evaluate(some, LOG_PROB)["log_prob"]
    assert not multiplied
    torch.testing.assert_close(found, plain.evaluate(some, LOG_PROB)["log_prob"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("optimiser", OPTIMISERS)
def test_after_a_step_of_the_optimiser_nothing_is_known(optimiser, multiplied):
    p = policy()
    rollouts = drawn(p)
    before = p.evaluate(rollouts, LOG_PROB)
    updater = p.updater(lr=0.1, optimiser=optimiser)
    updater.accumulate(before, {"log_prob": torch.ones_like(before["log_prob"])})
    updater.step()
    multiplied.clear()
    p.evaluate(rollouts, LOG_PROB)
    assert len(multiplied) == backbone_layers(p) and not p._known.outputs


def with_other_weights(p):
    p.load_state_dict({k: x if k.startswith("reference") else x * 1.05 for k, x in p.state_dict().items()})


def with_weights_elsewhere(p):
    for x in p.inner.parameters():
        x.data = x.data * 1.01


def with_weights_written_unseen(p):
    """As merging an adapter does."""
    next(iter(p.inner.base_model.layers)).mlp.up_proj.weight.data += 1e-3


def with_signs_turned(p):
    next(iter(p.inner.base_model.layers)).self_attn.q_proj.weight.data.neg_()


def with_dropout(p):
    p.inner.train()


@pytest.mark.parametrize(
    "change", [with_other_weights, with_weights_elsewhere, with_weights_written_unseen, with_signs_turned, with_dropout]
)
def test_nothing_is_known_of_another_model(change, multiplied):
    p = policy()
    rollouts = drawn(p)
    change(p)
    multiplied.clear()
    p.evaluate(rollouts, LOG_PROB)
    assert len(multiplied) == backbone_layers(p)


def test_nothing_is_known_of_other_tokens_or_contexts(multiplied):
    p = policy()
    rollouts = drawn(p)
    action = rollouts.action.clone()
    row = int(rollouts.length.argmax())
    action[row, 0] = (action[row, 0] + 1) % 10
    others = policy(remember=0).sample(contexts(16), Sampling(9), seed=4)
    for changed in (replace(rollouts, action=action), others):
        multiplied.clear()
        p.evaluate(changed, LOG_PROB)
        assert len(multiplied) == backbone_layers(p)


def test_the_reference_computes_its_own(multiplied):
    p = policy(reference="copy")
    with_other_weights(p)
    rollouts = drawn(p)
    multiplied.clear()
    both = p.evaluate(rollouts, frozenset({"log_prob", "ref_log_prob"}))
    assert not multiplied  # with a gradient; the reference has none
    assert (both["log_prob"] - both["ref_log_prob"]).abs().max() > 1e-3


def test_an_adapters_layers_are_layers_too(multiplied):
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    found = []
    for room in (2**26, 0):
        torch.manual_seed(0)
        p = LanguagePolicy(get_peft_model(make("llama"), config), policy().tokenizer, reference="adapter", remember=room)
        rollouts = drawn(p)
        multiplied.clear()
        found.append(gradients(p, rollouts))
        assert len(multiplied) == (0 if room else backbone_layers(p))
        found[-1].append(p.evaluate(rollouts, frozenset({"ref_log_prob"}))["ref_log_prob"])
        with p.model.disable_adapter():
            rollouts = drawn(p)
        multiplied.clear()
        gradients(p, rollouts)  # with the adapter, which was not there when they were drawn
        assert len(multiplied) == backbone_layers(p)
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.abs().max()))


def test_a_batch_without_room_is_not_kept():
    p = policy()
    size = sum(m.out_features for m in p._known.layers)
    tokens = max(len(p.context(c.prompt)) for c in contexts(16)) * 3 + 16 * 9
    for room, kept in ((size * tokens - 1, False), (size * tokens, True)):
        p._known.room = room
        drawn(p)
        assert bool(p._known.outputs) == kept
    assert 0 < sum(x.numel() for x in p._known.outputs.values()) <= room  # the logits are not among them


@pytest.mark.parametrize("wrong", [-1, 1.5, True, "many"])
def test_how_much_is_remembered_is_a_number(wrong):
    with pytest.raises(InputError, match="`remember` should be a number of outputs, 0 for none, got"):
        policy(remember=wrong)


def test_a_layer_that_reads_a_token_twice_is_not_known():
    model = make("llama").eval()
    layers = model.base_model.layers
    for name in ("q_proj", "k_proj"):  # both are one layer now, which is asked twice a token
        setattr(layers[1].self_attn, name, layers[0].self_attn.q_proj)
    products.choose_products(model, rounded=False)
    assert not answers_known(model, KnownOutputs(model.base_model, 2**26))


def test_a_model_that_says_something_else_with_known_outputs_is_not_asked_for_them(monkeypatch):
    plain = KnownOutputs.answering
    monkeypatch.setattr(KnownOutputs, "answering", lambda self, used: plain(self, used.roll(1)))
    assert policy()._known is None


def test_of_a_model_that_writes_into_its_layers_outputs_what_it_wrote_is_not_known(multiplied):
    found = []
    for room in (2**26, 0):
        p = policy(remember=room)
        p.inner.base_model.layers[0].self_attn.q_proj.register_forward_hook(lambda module, given, output: output.mul_(1.5))
        rows = [replace(contexts(1)[0], index=k) for k in range(3)]
        rollouts = p.sample(rows, Sampling(9), seed=3)  # of which every token read is trained on
        multiplied.clear()
        found += [gradients(p, rollouts)]
        assert bool(multiplied) == (room == 0)
        found += [gradients(p, rollouts)]
        assert multiplied
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
