# SPDX-License-Identifier: Apache-2.0
import copy
import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from guerdon.errors import CheckpointError, GuerdonError, InputError
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Context, Policy, Sampling
from guerdon.tasks.running_digits import TOKENS as DIGITS
from guerdon.tasks.running_digits import demonstrations
from tests.policies.models import ARCHITECTURES, PROMPTS, TOKENS, contexts, make, policy
from tests.policies.test_token_distribution import Largest

torch.set_num_threads(1)
LOG_PROB = frozenset({"log_prob"})


def written(p, n=8, seed=0):
    """Random completions of different lengths."""
    random = torch.Generator().manual_seed(seed)
    length = torch.randint(1, 9, (n,), generator=random).tolist()
    texts = ["".join(TOKENS[i] for i in torch.randint(0, len(TOKENS), (k,), generator=random)) for k in length]
    return p.encode([PROMPTS[i % 4] for i in range(n)], texts)


def row_by_row(model, rollouts, temperature=1.0):
    """log_prob [N, T] from the logits of each row alone, without padding, cache or chunks."""
    out = torch.zeros(rollouts.mask.shape, dtype=torch.float64)
    for n, context in enumerate(rollouts.field("context_ids").values):
        action = rollouts.action[n, : rollouts.length[n]]
        ids = torch.cat([torch.tensor(context), action])
        logits = model(input_ids=ids[None], use_cache=False).logits[0, len(context) - 1 : -1].double() / temperature
        out[n, : len(action)] = torch.distributions.Categorical(logits=logits).log_prob(action)
    return out


# ---- evaluation


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_evaluate_equals_the_whole_logits_of_each_row_alone(name):
    p = policy(name, torch.float64)
    rollouts = written(p)
    log_prob = p.evaluate(rollouts, LOG_PROB)["log_prob"]
    # All of these but GPT-2 normalise in float32, whatever their dtype.
    torch.testing.assert_close(log_prob, row_by_row(p.inner, rollouts), rtol=0, atol=1e-10 if name == "gpt2" else 2e-6)
    assert (log_prob[~rollouts.mask] == 0).all()
    assert p._logits_of is not None  # none of these needs the detour through whole logits


@pytest.mark.parametrize("chunk", [2**24, 200])
def test_a_model_whose_logits_are_no_simple_function_of_the_hidden_state_is_found_out_and_right(chunk):
    def wrap(model):
        forward = model.forward

        def odd(*args, **kwargs):
            out = forward(*args, **kwargs)
            out.logits = out.logits + 0.1 * out.logits**2  # what nobody foresaw
            return out

        model.forward = odd
        return model

    p = LanguagePolicy(wrap(make("gpt2").double()), word_tokenizer(TOKENS), value_head=True, chunk=chunk)
    assert p._logits_of is None
    rollouts = written(p)
    found = p.evaluate(rollouts, frozenset({"log_prob", "entropy", "hidden", "value"}))
    torch.testing.assert_close(found["log_prob"], row_by_row(p.inner, rollouts), rtol=0, atol=1e-10)
    plain = policy("gpt2", torch.float64).evaluate(rollouts, frozenset({"hidden"}))
    torch.testing.assert_close(found["hidden"], plain["hidden"], rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_chunked_evaluation_has_the_same_values_and_gradients(name):
    whole, small = policy(name, torch.float64), policy(name, torch.float64, chunk=3 * 25)
    rollouts = written(whole, n=24)
    found = {}
    for p in (whole, small):
        out = p.evaluate(rollouts, frozenset({"log_prob", "entropy"}))
        total = (out["log_prob"] * torch.linspace(0, 1, out["log_prob"].shape[1])).sum() + out["entropy"].sum()
        total.backward()
        found[p] = (out["log_prob"], out["entropy"], *(q.grad for q in p.inner.parameters()))
    for a, b in zip(found[whole], found[small], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_chunks_bound_the_largest_tensor_when_the_vocabulary_is_large():
    tokens = [f"<{i}>" for i in range(3000)]
    p = LanguagePolicy.tiny(tokens, width=8, layers=1, heads=1, chunk=20 * 3004)
    rollouts = p.encode(["<1>"] * 32, ["<7>" * 20] * 32)
    with Largest() as seen:
        p.evaluate(rollouts, LOG_PROB)["log_prob"].sum().backward()
    assert 20 * 3004 <= seen.elements < 32 * 21 * 3004 / 10
    with Largest() as seen:
        LanguagePolicy(p.inner, p.tokenizer).evaluate(rollouts, LOG_PROB)
    assert seen.elements == 32 * 21 * 3004


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
@pytest.mark.parametrize("prompts", [PROMPTS, PROMPTS[:1]])
def test_contexts_read_once_give_what_rows_read_alone_give(name, prompts):
    p = policy(name, torch.float64)
    texts = ["".join(TOKENS[(5 * n + 3 * t) % 21] for t in range(1 + n % 4)) for n in range(24)]
    rollouts = p.encode([prompts[n % len(prompts)] for n in range(24)], texts)
    read = []
    hook = p.inner.base_model.register_forward_pre_hook(
        lambda _, __, kwargs: read.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    together = p.evaluate(rollouts, LOG_PROB)["log_prob"]
    hook.remove()
    longest = max(len(c) for c in rollouts.field("context_ids").values)
    assert (sum(read) < 0.75 * 24 * (longest + 4)) == (name != "gemma2")  # a sliding window's cache isn't read on from
    alone = torch.cat([p.evaluate(rollouts.rows([n]), LOG_PROB)["log_prob"] for n in range(24)])
    tolerance = 1e-10 if name == "gpt2" else 2e-6
    torch.testing.assert_close(together, alone, rtol=0, atol=tolerance)
    weight = torch.linspace(-1, 1, together.numel()).view_as(together)
    parameters = list(p.inner.parameters())
    for a, b in zip(*(torch.autograd.grad((x * weight).sum(), parameters) for x in (together, alone)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9 if name == "gpt2" else 1e-4, atol=10 * tolerance)


def test_padding_may_reach_beyond_the_models_positions():
    p = policy("gpt2", torch.float64)
    prompts = [*["1+2+3+4+5+6:" * 8] * 6, *["7:"] * 6]  # 57 and 3 tokens of 64 positions
    rollouts = p.encode(prompts, [*["12"] * 6, *["1234567890"] * 6])
    found = p.evaluate(rollouts, LOG_PROB)["log_prob"]
    torch.testing.assert_close(found, row_by_row(p.inner, rollouts), rtol=0, atol=1e-10)


def test_masked_steps_are_context_and_get_nothing():
    p = policy("gpt2", torch.float64, value_head=True)
    rollouts = written(p)
    mask = rollouts.mask & (torch.arange(rollouts.mask.shape[1]) != 1)
    want = frozenset({"log_prob", "entropy", "value", "hidden"})
    whole, some = p.evaluate(rollouts, want), p.evaluate(rollouts.replace(mask=mask), want)
    for k in want:
        assert (some[k][~mask] == 0).all()
        torch.testing.assert_close(some[k][mask], whole[k][mask], rtol=0, atol=1e-12)


def test_entropy_and_value_are_of_the_state_before_the_action():
    p = policy("gpt2", torch.float64, value_head=True)
    torch.nn.init.normal_(p.value_head.weight)
    rollouts = written(p)
    before = p.evaluate(rollouts, frozenset({"value", "entropy"}))
    changed = rollouts.replace(action=rollouts.action.index_put((torch.tensor(0), torch.tensor(2)), torch.tensor(9)))
    assert rollouts.action[0, 2] != 9
    after = p.evaluate(changed, frozenset({"value", "entropy"}))
    for k in before:  # the third action is seen from the fourth state on
        torch.testing.assert_close(before[k][0, :3], after[k][0, :3], rtol=0, atol=1e-12)
        assert abs(before[k][0, 3] - after[k][0, 3]) > 1e-6
    context = torch.tensor([rollouts.field("context_ids").values[0]])
    hidden = p.inner.transformer(context).last_hidden_state[0, -1]
    torch.testing.assert_close(before["value"][0, 0], (hidden @ p.value_head.weight[0]), rtol=0, atol=1e-12)


def test_evaluate_names_what_it_cannot_give():
    with pytest.raises(InputError, match=r"asked for ref_log_prob, value"):
        policy().evaluate(written(policy()), frozenset({"value", "ref_log_prob", "log_prob"}))


# ---- sampling


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_the_samplers_log_prob_is_the_trainers(name, temperature):
    """Cached and left-padded with rows that leave, against one right-padded pass."""
    p = policy(name)
    p.ends = list(range(2, 8))
    rollouts = p.sample(contexts(32), Sampling(max_new_tokens=20, temperature=temperature), seed=1)
    assert rollouts.length.unique().numel() > 4 or temperature == 0
    found = p.evaluate(rollouts, LOG_PROB)["log_prob"]
    torch.testing.assert_close(rollouts.log_prob, found.detach(), rtol=0, atol=2e-5)
    alone = row_by_row(p.inner, rollouts, temperature or 1.0).float()
    torch.testing.assert_close(rollouts.log_prob, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_greedy_sampling_is_that_of_transformers_generate(name):
    p = policy(name)
    rollouts = p.sample(contexts(4), Sampling(max_new_tokens=12, temperature=0), seed=0)
    for n, prompt in enumerate(PROMPTS):
        ids = p.tokenizer(prompt, return_tensors="pt").input_ids
        theirs = p.inner.generate(ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
        assert rollouts.action[n, : rollouts.length[n]].tolist() == theirs.tolist()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_sample_does_not_depend_on_the_rest_of_the_batch(name):
    p, rows = policy(name, torch.float64), contexts(32)
    sampling = Sampling(max_new_tokens=16)
    whole = p.sample(rows, sampling, seed=3)
    order = [30, 2, 17, 5, 11]
    some = p.sample([rows[i] for i in order], sampling, seed=3)
    for k, i in enumerate(order):
        n = int(whole.length[i])
        assert n == some.length[k]
        assert torch.equal(some.action[k, :n], whole.action[i, :n])
    assert not torch.equal(p.sample(rows, sampling, seed=4).action, whole.action)
    again = [Context(c.task, c.prompt, index=c.index + 100) for c in rows]
    assert not torch.equal(p.sample(again, sampling, seed=3).action[:, 0], whole.action[:, 0])


@pytest.mark.parametrize(("temperature", "top_k"), [(1.0, 0), (2.5, 0), (2.5, 2)])
def test_samples_have_the_frequencies_of_the_model(temperature, top_k):
    p, sampling = policy(), Sampling(max_new_tokens=1, temperature=temperature, top_k=top_k)
    rollouts = p.sample([Context("a", "5+8:", index=i) for i in range(4000)], sampling, seed=0)
    share = torch.bincount(rollouts.action[:, 0], minlength=p.vocabulary) / 4000
    logits = p.inner(torch.tensor([p.context("5+8:")])).logits[0, -1] / temperature
    kept = logits >= logits.topk(top_k or p.vocabulary).values[-1]
    probability = logits.masked_fill(~kept, -torch.inf).softmax(-1)
    # Three standard deviations of the share of a token of probability 1/4 are 0.02.
    assert (share - probability).abs().max() < 0.025


def test_rows_end_at_an_end_token_or_are_cut_and_say_which():
    p = policy()
    rollouts = p.sample(contexts(32), Sampling(max_new_tokens=20), seed=1)
    assert 0 < rollouts.terminated.sum() < 32
    for n in range(32):
        last = int(rollouts.length[n]) - 1
        action = rollouts.action[n, : last + 1].tolist()
        assert rollouts.mask[n].tolist() == [t <= last for t in range(rollouts.mask.shape[1])]
        assert p.tokenizer.eos_token_id not in action[:-1]
        ended = action[-1] == p.tokenizer.eos_token_id
        assert rollouts.terminated[n].nonzero().tolist() == ([[last]] if ended else [])
        assert rollouts.truncated[n].nonzero().tolist() == ([] if ended else [[last]])
        assert ended or last == 19


def test_every_end_token_of_the_generation_settings_ends_a_row():
    model = make("llama")
    model.generation_config.eos_token_id = [2, 7, 8]
    p = LanguagePolicy(model, word_tokenizer(TOKENS))
    rollouts = p.sample(contexts(32), Sampling(max_new_tokens=30), seed=1)
    last = rollouts.action.gather(1, rollouts.length[:, None] - 1)[:, 0]
    assert set(last[rollouts.terminated.any(1)].tolist()) == {2, 7, 8}


def test_a_stop_string_ends_a_row_at_the_token_that_completes_it():
    p = policy()
    free = p.sample(contexts(32), Sampling(max_new_tokens=20), seed=1)
    stopped = p.sample(contexts(32), Sampling(max_new_tokens=20, stop=("3+", "7")), seed=1)
    seen = 0
    for n in range(32):
        text, cut = free.field("completion").values[n][0], stopped.field("completion").values[n][0]
        at = min((m.end() for m in re.finditer(r"3\+|7", text)), default=None)
        if at is None:
            assert cut == text
            continue
        seen += 1
        end = next(int(e) for _, e in free.field("offset").values[n] if e >= at)  # "+4" is one token
        assert cut == text[:end]
        assert stopped.terminated[n].any()
    assert seen > 5


def test_a_row_is_cut_at_the_models_last_position():
    p = LanguagePolicy.tiny(TOKENS, width=8, layers=1, heads=1, max_length=8, seed=1)
    p.ends = []
    short = [c for c in contexts(4) if len(c.prompt) < 8]
    rollouts = p.sample(short, Sampling(max_new_tokens=20), seed=0)
    assert rollouts.length.tolist() == [4, 5, 4]
    assert rollouts.truncated.any(1).all()
    p.evaluate(rollouts, LOG_PROB)
    with pytest.raises(InputError, match=r"8 positions, got 11 tokens"):
        p.sample([Context("a", "1+2+3+4+5+6+7+8+9:")], Sampling(), seed=0)
    with pytest.raises(InputError, match=r"8 positions, got 10 tokens"):
        p.evaluate(p.encode(["7:"], ["1234567"]), LOG_PROB)


@pytest.mark.parametrize(("top_k", "top_p"), [(3, 1.0), (0, 0.6), (5, 0.8)])
def test_truncated_samples_are_renormalised_over_the_kept_set_and_refused_without_it(top_k, top_p):
    p = policy("gpt2")
    settings = {"max_new_tokens": 12, "temperature": 0.8, "top_k": top_k, "top_p": top_p}
    rollouts = p.sample(contexts(32), Sampling(**settings, keep_set=True), seed=1)
    kept = rollouts.field("kept").values
    assert (kept == rollouts.action[..., None]).any(-1)[rollouts.mask].all()
    assert (kept[~rollouts.mask] == -1).all()
    found = p.evaluate(rollouts, frozenset({"log_prob", "entropy"}))
    torch.testing.assert_close(found["log_prob"].detach(), rollouts.log_prob, rtol=0, atol=1e-5)
    assert (found["log_prob"] > row_by_row(p.inner, rollouts, 0.8))[rollouts.mask].all()
    without = p.sample(contexts(32), Sampling(**settings), seed=1)
    assert torch.equal(without.action, rollouts.action)
    with pytest.raises(InputError, match="keep_set=True"):
        p.evaluate(without, LOG_PROB)
    assert p.evaluate(without, frozenset({"hidden"}))["hidden"].shape == (*without.mask.shape, 16)


def test_fields_of_a_sample():
    p = policy()
    rows = contexts(8)
    rollouts = p.sample(rows, Sampling(max_new_tokens=10), seed=1)
    assert rollouts.task == [c.task for c in rows]
    assert rollouts.group.tolist() == [c.group for c in rows]
    assert rollouts.field("answer").values == [c.fields["answer"] for c in rows]
    assert rollouts.field("prompt").values == [c.prompt for c in rows]
    assert rollouts.field("context_ids").values == [p.tokenizer(c.prompt).input_ids for c in rows]
    assert rollouts.sampling["temperature"] == 1.0
    for n in range(8):
        text = rollouts.field("completion").values[n][0]
        assert text == p.tokenizer.decode(rollouts.action[n, : rollouts.length[n]], skip_special_tokens=True)
        for a, (start, end) in zip(rollouts.action[n].tolist(), rollouts.field("offset").values[n].tolist(), strict=True):
            piece = p.tokenizer.convert_ids_to_tokens(a)
            assert text[start:end] == ("" if piece.startswith("<") else piece)
    assert isinstance(p, Policy)


def test_messages_go_through_the_chat_template_and_come_back_with_the_answer():
    template = "{% for m in messages %}<user>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<answer>{% endif %}"
    p = LanguagePolicy.tiny(word_tokenizer(TOKENS, special=["<user>", "<answer>"], chat_template=template), width=8, heads=1)
    asked = [{"role": "user", "content": "5+8:"}]
    rollouts = p.sample([Context("a", asked)], Sampling(max_new_tokens=3), seed=0)
    marked = p.tokenizer.convert_ids_to_tokens(rollouts.field("context_ids").values[0])
    assert marked == ["<user>", "5", "+8", ":", "<answer>"]
    said = rollouts.field("messages").values[0][0]
    assert said == [*asked, {"role": "assistant", "content": rollouts.field("completion").values[0][0]}]
    with pytest.raises(InputError, match="chat template"):
        policy().sample([Context("a", asked)], Sampling(), seed=0)


def test_text_that_the_tokenizer_lacks_is_refused():
    with pytest.raises(InputError, match=r"'5\+x:'"):
        policy().sample([Context("a", "5+x:")], Sampling(), seed=0)


# ---- reference, learning


def test_a_copied_reference_stays_and_an_adapter_is_measured_against_its_base():
    p = policy(reference="copy")
    rollouts = written(p)
    before = p.evaluate(rollouts, LOG_PROB)["log_prob"].detach()
    u = p.updater(lr=1e-2)
    out = p.evaluate(rollouts, LOG_PROB)
    u.accumulate(out, {"log_prob": -rollouts.mask.float()})
    u.step()
    after = p.evaluate(rollouts, frozenset({"log_prob", "ref_log_prob"}))
    assert torch.equal(after["ref_log_prob"], before)
    assert not after["ref_log_prob"].requires_grad
    assert (after["log_prob"] - before).abs().max() > 1e-2
    p.set_reference()
    assert torch.equal(p.evaluate(rollouts, frozenset({"ref_log_prob"}))["ref_log_prob"], after["log_prob"])


def adapted(tmp_path, **settings):
    base = policy()
    base.save(tmp_path / "base")
    lora = {"r": 4, "target_modules": ["q_proj", "v_proj", "lm_head"]}
    return base, LanguagePolicy.load(tmp_path / "base", lora=lora, reference="adapter", **settings)


def test_lora_learns_alone_is_saved_alone_and_its_reference_is_the_base(tmp_path):
    from peft import PeftModel

    base, p = adapted(tmp_path)
    rollouts = written(p)
    u = p.updater(lr=1e-1)
    for _ in range(2):  # LoRA's first factor has no gradient while the second is zero
        u.accumulate(p.evaluate(rollouts, LOG_PROB), {"log_prob": -rollouts.mask.float()})
        u.step()
    found = p.evaluate(rollouts, frozenset({"log_prob", "ref_log_prob"}))
    torch.testing.assert_close(found["ref_log_prob"], base.evaluate(rollouts, LOG_PROB)["log_prob"].detach(), rtol=0, atol=1e-6)
    assert (found["log_prob"] - found["ref_log_prob"]).abs().max() > 0.1
    assert all("lora" in k for k in p.state_dict())
    sampled = p.sample(contexts(8), Sampling(8), seed=0)
    torch.testing.assert_close(sampled.log_prob, p.evaluate(sampled, LOG_PROB)["log_prob"].detach(), rtol=0, atol=1e-5)

    p.save(tmp_path / "adapter")
    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), tmp_path / "adapter")
    torch.testing.assert_close(row_by_row(theirs, rollouts).float(), found["log_prob"].detach(), rtol=0, atol=1e-5)
    again = LanguagePolicy.load(tmp_path / "adapter", reference="adapter")
    torch.testing.assert_close(again.evaluate(rollouts, LOG_PROB)["log_prob"], found["log_prob"], rtol=0, atol=1e-6)
    assert again.trained().keys() == p.trained().keys()


def test_the_updater_does_what_pytorch_does_with_the_whole_loss():
    p, rollouts = policy(value_head=True), written(policy())
    model, head = copy.deepcopy(p.inner), copy.deepcopy(p.value_head)
    theirs = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-2, weight_decay=0.1, betas=(0.8, 0.9))
    u = p.updater(lr=1.0, weight_decay=0.1, betas=(0.8, 0.9), max_grad_norm=0.5)
    for step in range(3):
        rows = [rollouts.rows([0, 1, 2]), rollouts.rows([3, 4, 5, 6, 7])]  # micro-batches
        for part in rows:
            out = p.evaluate(part, frozenset({"log_prob", "value"}))
            gradients = {"log_prob": -part.mask.float(), "value": 2 * (out["value"].detach() - 1) * part.mask}
            u.accumulate(out, gradients)
        got = u.step(lr=1e-2)

        theirs.zero_grad()
        for n in range(8):
            action = rollouts.action[n, : rollouts.length[n]]
            ids = torch.cat([torch.tensor(rollouts.field("context_ids").values[n]), action])[None]
            hidden = model.model(ids).last_hidden_state[0, -len(action) - 1 : -1]
            log_prob = torch.distributions.Categorical(logits=model.lm_head(hidden)).log_prob(action)
            (-log_prob.sum() + (head(hidden)[:, 0] - 1).square().sum()).backward()
        norm = torch.nn.utils.clip_grad_norm_([*model.parameters(), *head.parameters()], 0.5)
        theirs.step()
        assert got["grad_norm"] == pytest.approx(norm.item(), rel=1e-4), step
    for a, b in zip(p.inner.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    torch.testing.assert_close(p.value_head.weight, head.weight, rtol=0, atol=2e-4)


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_a_resumed_policy_and_updater_go_on_bit_for_bit(optimiser):
    settings = {"reference": "copy", "value_head": True}
    p, rollouts = policy(**settings), written(policy())

    def one(policy, updater, lr):
        out = policy.evaluate(rollouts, frozenset({"log_prob", "ref_log_prob", "value"}))
        ratio = (out["log_prob"] - out["ref_log_prob"]).detach().exp()
        updater.accumulate(out, {"log_prob": -ratio * rollouts.mask, "value": torch.ones_like(out["value"])})
        return updater.step(lr=lr)

    u = p.updater(lr=1e-2, optimiser=optimiser, weight_decay=0.01)
    one(p, u, 1e-2)
    p.set_reference()
    state = copy.deepcopy((p.state_dict(), u.state_dict()))
    assert all(isinstance(x, torch.Tensor) for part in state for x in part.values())
    q = policy(**settings)
    with torch.no_grad():
        for x in q.trained().values():
            x.add_(1.0)
    v = q.updater(lr=1.0, optimiser=optimiser)
    q.load_state_dict(state[0])
    v.load_state_dict(state[1])
    metrics = [(one(p, u, 5e-3), one(q, v, 5e-3)) for _ in range(2)]
    assert all(a == b for a, b in metrics)
    assert all(torch.equal(a, b) for a, b in zip(p.state_dict().values(), q.state_dict().values(), strict=True))


def test_a_state_of_another_policy_is_refused():
    with pytest.raises(CheckpointError, match=r"value_head"):
        policy().load_state_dict(policy(value_head=True).state_dict())
    u = policy(value_head=True).updater()
    u.parameters["value_head.weight"].grad = torch.ones(1, 16)
    u.step()
    other = policy().updater()
    with pytest.raises(CheckpointError, match="no such parameter"):
        other.load_state_dict(u.state_dict())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_gradient_that_is_not_finite_raises_and_changes_nothing(bad):
    p, rollouts = policy(), written(policy())
    u = p.updater()
    before = p.state_dict()
    gradient = -rollouts.mask.float()
    gradient[0, 0] = bad
    u.accumulate(p.evaluate(rollouts, LOG_PROB), {"log_prob": gradient})
    with pytest.raises(GuerdonError, match="Nothing was applied"):
        u.step()
    assert all(torch.equal(a, b) for a, b in zip(before.values(), p.state_dict().values(), strict=True))
    u.accumulate(p.evaluate(rollouts, LOG_PROB), {"log_prob": -rollouts.mask.float()})
    assert 0 < u.step()["grad_norm"] < torch.inf


def test_the_updater_names_what_it_does_not_know():
    p = policy()
    with pytest.raises(InputError, match="a gradient for value"):
        p.updater().accumulate(p.evaluate(written(p), LOG_PROB), {"value": torch.zeros(1)})
    with pytest.raises(InputError, match="no setting `learning_rate`"):
        p.updater().step(learning_rate=1.0)
    with pytest.raises(InputError, match="adamw, adam, sgd"):
        p.updater(optimiser="lion")


def test_a_tiny_policy_learns_demonstrations():
    rows = demonstrations(100, steps=3, seed=0)
    p = LanguagePolicy.tiny(DIGITS, width=32, heads=2, seed=0)
    u = p.updater(lr=1e-2)
    losses = []
    for step in range(40):
        batch = [rows[(step * 32 + i) % 100] for i in range(32)]
        r = p.encode([a for a, _ in batch], [b for _, b in batch])
        out = p.evaluate(r, LOG_PROB)
        losses.append(-out["log_prob"].sum().item() / r.mask.sum().item())
        u.accumulate(out, {"log_prob": -r.mask.float() / r.mask.sum()})
        u.step()
    # Copying the digits asked for and stopping is certain: 3 of 7 tokens are then a choice of ten, log(10) * 3 / 7 = 0.99.
    assert losses[0] > 3
    assert losses[-1] < 1.2


# ---- making, saving, loading


def test_tiny_depends_on_its_seed_alone_and_leaves_the_global_generator():
    torch.manual_seed(5)
    state = torch.get_rng_state()
    a, b, c = (LanguagePolicy.tiny(DIGITS, width=16, seed=s).state_dict() for s in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not all(torch.equal(a[k], c[k]) for k in a)
    p = LanguagePolicy.tiny(DIGITS, width=16)
    assert p.tokenizer.tokenize("5+8+4+7:") == ["5", "+8", "+4", "+7", ":"]
    assert p.tokenizer.tokenize("+8=3+4=7+7=4") == ["+8", "=3", "+4", "=7", "+7", "=4"]


def test_a_saved_policy_is_loaded_by_transformers_and_by_us(tmp_path):
    p = policy("gpt2", value_head=True)
    torch.nn.init.normal_(p.value_head.weight)
    rollouts = written(p)
    p.save(tmp_path)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    want = frozenset({"log_prob", "value"})
    expected = p.evaluate(rollouts, want)
    torch.testing.assert_close(row_by_row(model, rollouts).float(), expected["log_prob"].detach(), rtol=0, atol=1e-5)
    assert tokenizer("5+8:").input_ids == p.tokenizer("5+8:").input_ids
    q = LanguagePolicy.load(tmp_path, value_head=True, device="cpu")
    found = q.evaluate(rollouts, want)
    assert all(torch.equal(found[k], expected[k]) for k in want)
    half = LanguagePolicy.load(tmp_path, dtype=torch.bfloat16, device="cpu").evaluate(rollouts, LOG_PROB)["log_prob"]
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected["log_prob"], rtol=0, atol=0.3)


def test_a_directory_that_lacks_something_is_named_with_what_it_lacks(tmp_path):
    policy().save(tmp_path)
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        (tmp_path / name).rename(tmp_path / "aside")
        with pytest.raises(InputError, match=rf"{re.escape(str(tmp_path))} should hold .* lacks [^;]*{name.split('.')[1]}"):
            LanguagePolicy.load(tmp_path)
        (tmp_path / "aside").rename(tmp_path / name)
    LanguagePolicy.load(tmp_path, device="cpu")


def test_a_file_that_cannot_be_read_and_a_name_that_is_nowhere_are_named(tmp_path):
    policy().save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(InputError, match=re.escape(str(tmp_path))):
        LanguagePolicy.load(tmp_path)
    with pytest.raises(InputError, match="no-such/model"):
        LanguagePolicy.load("no-such/model")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="none, copy, adapter"):
        policy(reference="frozen")
    with pytest.raises(InputError, match="LoRA adapter"):
        policy(reference="adapter")
    with pytest.raises(InputError, match="reference='copy'"):
        policy().set_reference()


def test_what_is_drawn_can_be_trained_on_whatever_mode_the_model_read_in():
    told = []
    rollouts = policy().sample(contexts(6), Sampling(6, top_k=4, keep_set=True), seed=3, ready=told.append)
    for r in (rollouts, *told):
        tensors = [r.action, r.mask, r.log_prob, r.length, r.terminated, r.truncated]
        tensors += [f.values for f in r.fields.values() if isinstance(f.values, torch.Tensor)]
        assert not any(x.is_inference() for x in tensors)
    assert "kept" in rollouts.fields and told
