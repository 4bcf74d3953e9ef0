# SPDX-License-Identifier: Apache-2.0
"""A game of guessing a digit, played by an untrained model through a chat template of its own."""

import math

import pytest
import torch

from guerdon.errors import InputError
from guerdon.policies.language import LanguagePolicy
from guerdon.policies.tokenizer import word_tokenizer
from guerdon.protocols import Context, Sampling
from guerdon.sampling.conversation import Step, converse
from guerdon.scores import Status

torch.set_num_threads(1)

# Each message is a marker, its text and a line end; an assistant's is closed by the end token.
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% if m.role == 'assistant' %}<eos>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
SPECIAL = ["<user>", "<assistant>"]
TOKENS = [*"0123456789", "guess", "higher", "lower", "yes", "what?", "\n"]


def policy(template=TEMPLATE, seed=0, **settings):
    return LanguagePolicy.tiny(
        word_tokenizer(TOKENS, special=SPECIAL, chat_template=template), width=16, heads=2, seed=seed, **settings
    )


class Guess:
    """Says higher or lower until the secret digit is guessed. Gives 1 for the digit, 0 for another, no reward for no digit."""

    def reset(self, task):
        self.secret = int(task.fields["secret"])
        return [{"role": "user", "content": "guess"}]

    def step(self, message):
        said = message["content"][:1]
        if not said.isdigit():
            return Step([{"role": "user", "content": "what?"}])
        if int(said) == self.secret:
            return Step([{"role": "user", "content": "yes"}], terminated=True, reward=1.0)
        return Step([{"role": "user", "content": "higher" if int(said) < self.secret else "lower"}], reward=0.0)


def rows(n=24):
    return [Context(f"secret {i % 3}", "guess", {"secret": i % 3 + 4}, index=i // 3, group=i % 3) for i in range(n)]


def play(n=24, max_turns=4, new=3, p=None, environment=Guess, **settings):
    sampling = Sampling(max_new_tokens=new, **settings)
    return converse(p or policy(), [environment() for _ in range(n)], rows(n), sampling, seed=1, max_turns=max_turns)


def test_the_tokens_of_a_row_are_the_rendered_conversation_and_the_mask_marks_the_policys():
    p = policy()
    rollouts = play(p=p)
    turns = set()
    for n in range(24):
        length = int(rollouts.length[n])
        action, mask = rollouts.action[n, :length], rollouts.mask[n, :length]
        messages = rollouts.field("messages").values[n][0]
        assistant = [m["content"] for m in messages if m["role"] == "assistant"]
        turns.add(len(assistant))
        # What the template says of the same messages up to where the policy stopped writing.
        until = max(i for i, m in enumerate(messages) if m["role"] == "assistant")
        rendered = p.tokenizer.apply_chat_template(messages[: until + 1], tokenize=False)
        context = rollouts.field("context_ids").values[n]
        # Markers that the untrained policy writes itself are not part of a message's text.
        unseen = set(p.tokenizer.all_special_ids) - {p.tokenizer.eos_token_id}
        shown = [a for a, mine in zip(action.tolist(), mask.tolist(), strict=True) if not (mine and a in unseen)]
        said = p.tokenizer.decode([*context, *shown])
        assert rendered.startswith(said)
        assert rendered[len(said) :] in ("\n", "<eos>\n")
        assert not rollouts.mask[n, length:].any()
        for k, text in enumerate(assistant):
            mine = action[mask & (rollouts.level("turn")[n, :length] == k)]
            assert p.decoder.text(mine.tolist()) == text
        assert mask[-1]
    assert len(turns) > 2  # conversations of different lengths were seen


def test_log_prob_of_the_policys_tokens_is_that_of_evaluate():
    p = policy()
    for settings in ({}, {"temperature": 0.7}, {"temperature": 1.3, "top_k": 5, "keep_set": True}):
        rollouts = play(p=p, **settings)
        assert (rollouts.mask.sum(1) < rollouts.length).any()
        found = p.evaluate(rollouts, frozenset({"log_prob"}))["log_prob"].detach()
        torch.testing.assert_close(rollouts.log_prob, found, rtol=0, atol=2e-5)
        assert (rollouts.log_prob[~rollouts.mask] == 0).all()


def test_turns_hold_a_message_and_the_reply_to_it_and_the_environments_reward():
    rollouts = play()
    counts = rollouts.unit_counts("turn")
    for n in range(24):
        messages = rollouts.field("messages").values[n][0]
        secret = rollouts.field("secret").values[n]
        said = [m["content"] for m in messages if m["role"] == "assistant"]
        assert len(said) == counts[n]
        turn = rollouts.level("turn")[n, : rollouts.length[n]]
        assert (turn.diff() >= 0).all()
        starts = turn.diff(prepend=torch.tensor([-1])).nonzero()[:, 0]
        assert rollouts.mask[n][starts].all()  # a turn begins with the policy's own token
        rewards = rollouts.field("environment_reward").values[n]
        status = rollouts.field("environment_status").values[n]
        for text, reward, s in zip(said, rewards, status, strict=True):
            if text[:1].isdigit():
                assert (reward, s) == (float(int(text[0]) == secret), Status.OK)
            else:
                assert math.isnan(reward)
                assert s == Status.ABSTAIN
    assert len(rollouts.values_at("environment_reward", "turn")) == sum(counts)


def test_a_row_is_terminated_by_the_environment_or_truncated_at_the_last_turn():
    rollouts = play()
    won = torch.tensor([r[-1] == 1.0 for r in rollouts.field("environment_reward").values])
    assert 0 < won.sum() < 24
    last = torch.arange(rollouts.mask.shape[1]) == rollouts.length[:, None] - 1
    assert torch.equal(rollouts.terminated, last & won[:, None])
    assert torch.equal(rollouts.truncated, last & ~won[:, None])
    assert all(c == 4 for c, w in zip(rollouts.unit_counts("turn"), won.tolist(), strict=True) if not w)
    assert rollouts.field("messages").values[int(won.nonzero()[0])][0][-1] == {"role": "user", "content": "yes"}


def test_offsets_are_within_the_policys_text():
    rollouts = play()
    for n in range(24):
        text = rollouts.field("completion").values[n][0]
        said = [m["content"] for m in rollouts.field("messages").values[n][0] if m["role"] == "assistant"]
        assert text == "\n".join(said)
        offset = rollouts.field("offset").values[n]
        for k, one in enumerate(said):
            spans = offset[rollouts.mask[n] & (rollouts.level("turn")[n] == k)]
            assert "".join(text[a:b] for a, b in spans.tolist()) == one
        assert all(a == b for a, b in offset[~rollouts.mask[n]].tolist())
        assert (offset[:, 0].diff() >= 0).all()


def test_a_conversation_does_not_depend_on_the_others():
    p, chosen = policy(dtype=torch.float64), [1, 8, 20]
    whole = converse(p, [Guess() for _ in range(24)], rows(), Sampling(3), seed=1, max_turns=4)
    some = converse(p, [Guess() for _ in chosen], [rows()[i] for i in chosen], Sampling(3), seed=1, max_turns=4)
    for k, i in enumerate(chosen):
        assert whole.field("messages").values[i] == some.field("messages").values[k]
        n = int(whole.length[i])
        assert torch.equal(whole.action[i, :n], some.action[k, :n])


class Breaks(Guess):
    """Raises on its second step; with secret 4 already on reset; with secret 5 its first reward is no number."""

    def reset(self, task):
        self.steps = 0
        if task.fields["secret"] == 4:
            raise ConnectionError("nobody there")
        return super().reset(task)

    def step(self, message):
        self.steps += 1
        if self.steps == 2:
            raise KeyError("lost the game")
        return Step([{"role": "user", "content": "what?"}], reward=math.nan if self.secret == 5 else 0.5)


def test_an_environment_that_raises_is_an_error_of_its_turn_and_never_a_zero():
    p = policy()
    rollouts = play(n=6, p=p, environment=Breaks)
    for n in range(6):
        secret = rollouts.field("secret").values[n]
        reward, status = (rollouts.field(f"environment_{k}").values[n] for k in ("reward", "status"))
        reason = rollouts.field("environment_reason").values[n]
        assert math.isnan(reward[-1])
        assert status[-1] == Status.ERROR
        assert rollouts.truncated[n].nonzero().tolist() == [[int(rollouts.length[n]) - 1]]
        assert len(reward) == rollouts.unit_counts("turn")[n]
        if secret == 4:
            assert not rollouts.mask[n].any()
            assert reason == ["reset: ConnectionError: nobody there"]
            assert rollouts.unit_counts("episode")[n] == 1
        else:
            assert reason[1] == "step: KeyError: 'lost the game'"
            assert rollouts.mask[n].any()
            assert status[0] == (Status.ERROR if secret == 5 else Status.OK)
    log_prob = p.evaluate(rollouts, frozenset({"log_prob"}))["log_prob"].detach()
    torch.testing.assert_close(log_prob, rollouts.log_prob, rtol=0, atol=2e-5)


def test_a_mistake_in_the_environment_goes_through():
    class Mistaken(Guess):
        def step(self, message):
            return undefined  # noqa: F821

    with pytest.raises(NameError):
        play(n=3, environment=Mistaken)


def test_a_conversation_ends_where_the_models_positions_do():
    rollouts = play(p=policy(max_length=20), max_turns=40)
    before = torch.tensor([len(c) for c in rollouts.field("context_ids").values])
    assert (before + rollouts.length).max() <= 20
    assert (rollouts.truncated.any(1) | rollouts.terminated.any(1)).all()
    assert rollouts.truncated.any()


@pytest.mark.parametrize(
    "template",
    [
        TEMPLATE.replace("m.content", "m.content | trim"),  # strips what the policy wrote
        "{{ messages | length }}" + TEMPLATE,  # counts
        TEMPLATE.replace("{% for m in messages %}", "{% for m in messages[-2:] %}"),  # forgets
    ],
)
def test_a_template_that_does_not_only_append_is_refused(template):
    with pytest.raises(InputError, match="should only append"):
        play(p=policy(template, seed=3), max_turns=4, new=4)


def test_each_context_needs_its_environment():
    with pytest.raises(InputError, match="each of 24 contexts, got 2"):
        converse(policy(), [Guess(), Guess()], rows(), Sampling(3), seed=0, max_turns=1)
