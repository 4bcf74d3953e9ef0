# SPDX-License-Identifier: Apache-2.0
"""Conversations: a language policy and a text environment take turns, and what they said becomes Rollouts.

Which token is whose is kept account of while the tokens are made: the policy's are the ones it drew, the environment's are those
by which the chat template's rendering grows. Text is never searched for markers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch

from guerdon.errors import InputError
from guerdon.policies.generation import Drawn
from guerdon.policies.language import LanguagePolicy, settings_of, task_fields
from guerdon.policies.text import Span
from guerdon.policies.token_distribution import stream
from guerdon.protocols import Context, Sampling
from guerdon.rollouts import Field, Rollouts
from guerdon.scores import Status

Message = Mapping[str, Any]

FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What an environment may raise without ending the run: its row is closed and marked. Anything else goes through."""


@dataclass(frozen=True)
class Step:
    """What the environment answers to a message. ``reward`` None: it has no opinion about this turn."""

    messages: Sequence[Message] = ()
    terminated: bool = False
    truncated: bool = False
    reward: float | None = None


class TextEnvironment(Protocol):
    """Somebody to talk to: a game, a tool, a simulated user."""

    def reset(self, task: Context) -> Sequence[Message]:
        """The messages that the policy first answers."""
        ...

    def step(self, message: Message) -> Step:
        """The answer to the policy's ``message``."""
        ...


def converse(
    policy: LanguagePolicy,
    environments: Sequence[TextEnvironment],
    contexts: Sequence[Context],
    sampling: Sampling,
    seed: int,
    *,
    max_turns: int,
) -> Rollouts:
    """One row per context, each with an environment of its own; each turn is drawn for all unfinished conversations at once.

    ``sampling.max_new_tokens`` is the limit of one message. A conversation that the environment doesn't end is truncated at
    ``max_turns`` or where the model's positions end.

    Beside the fields of ``LanguagePolicy.sample`` there are, per ``turn`` (an assistant's message with the reply to it):
    ``environment_reward`` (NaN where there is none), ``environment_status`` (Status: ok, abstain where the environment gave no
    reward, error where it raised) and ``environment_reason``. A row whose environment raises keeps what it has and is truncated
    there; if it already raises on reset, the row is one padding step with the mask False that carries the error.
    """
    if len(environments) != len(contexts):
        raise InputError(f"converse: expected one environment for each of {len(contexts)} contexts, got {len(environments)}.")
    rows = [_Row(policy, e, c) for e, c in zip(environments, contexts, strict=True)]
    size = sampling.max_new_tokens
    uniform = stream(seed, [(c.task, c.index) for c in contexts], max_turns * size)
    for turn in range(max_turns):
        live = [n for n, row in enumerate(rows) if row.is_open]
        if not live:
            break
        drawn = policy.continuations([rows[n].ids for n in live], uniform[live, turn * size : (turn + 1) * size], sampling)
        for j, n in enumerate(live):
            rows[n].take(drawn, j, last=turn + 1 == max_turns)
    return _rollouts(policy, rows, sampling)


@dataclass
class _Row:
    """One conversation and its account of tokens; ``ids`` is everything the policy will have read before its next token."""

    policy: LanguagePolicy
    environment: TextEnvironment
    context: Context
    messages: list[Message] = field(default_factory=list)
    ids: list[int] = field(default_factory=list)
    token: list[int] = field(default_factory=list)
    mask: list[bool] = field(default_factory=list)
    log_prob: list[float] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    span: list[Span] = field(default_factory=list)
    kept: list[list[int]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    reward: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    reason: list[str] = field(default_factory=list)
    is_open: bool = True
    terminated: bool = False

    def __post_init__(self) -> None:
        try:
            self.messages = list(self.environment.reset(self.context))
        except FAILURES as e:
            self._pad()
            self._judge(math.nan, Status.ERROR, f"reset: {type(e).__name__}: {e}")
            self.close(truncated=True)
        self.prompt = list(self.messages)
        if self.is_open:
            self.rendered = self.policy.render(self.messages)
            self.ids = self.policy.tokens(self.rendered)
        self.context_ids = list(self.ids) or [0]

    def take(self, drawn: Drawn, j: int, *, last: bool) -> None:
        """Add row ``j`` of what was drawn as the next message, let the environment answer; end there if it is the ``last``."""
        n = int(drawn.length[j])
        tokens = drawn.token[j, :n].tolist()
        text, spans = self.policy.decoder.spans(tokens)
        start = sum(len(t) + 1 for t in self.texts)  # messages are joined by a line end
        self.texts.append(text)
        kept = [[-1]] * n if drawn.kept is None else drawn.kept[j, :n].tolist()
        self._append(tokens, drawn.log_prob[j, :n].tolist(), kept, [(start + a, start + b) for a, b in spans], mine=True)
        message = {"role": "assistant", "content": text}
        self.messages.append(message)
        try:
            step = self.environment.step(message)
        except FAILURES as e:
            self._judge(math.nan, Status.ERROR, f"step: {type(e).__name__}: {e}")
            self.close(truncated=True)
            return
        if step.reward is None:
            self._judge(math.nan, Status.ABSTAIN, "the environment gave no reward")
        elif not math.isfinite(step.reward):
            self._judge(math.nan, Status.ERROR, f"step: the reward is {step.reward}")
        else:
            self._judge(float(step.reward), Status.OK, "")
        self.messages += step.messages
        if step.terminated or step.truncated or last:
            self.close(truncated=not step.terminated)
            return
        reply = self._reply(text, ended_by=tokens[-1])
        if self.policy.max_length is not None and len(self.ids) + len(reply) >= self.policy.max_length:
            self.close(truncated=True)
            return
        n, end = len(reply), start + len(text)
        self._append(reply, [0.0] * n, [[-1]] * n, [(end, end)] * n, mine=False)

    def close(self, *, truncated: bool) -> None:
        self.is_open, self.terminated = False, not truncated

    def _reply(self, text: str, ended_by: int) -> list[int]:
        """Tokens by which the conversation grows between the policy's ``text`` and its next message; ``rendered`` grows too."""
        said = self.rendered + text
        now = self.policy.render(self.messages)
        if not now.startswith(said):
            at = next((i for i, (a, b) in enumerate(zip(said, now, strict=False)) if a != b), min(len(said), len(now)))
            raise InputError(
                f"converse: the chat template should only append when messages are added, but with {len(self.messages)} of them "
                f"the text differs from character {at}: {said[at : at + 40]!r} became {now[at : at + 40]!r}. Usual cause: a "
                "template that strips messages, drops earlier reasoning or shows a count or the time; give the tokenizer another."
            )
        self.rendered = now
        tokens = self.policy.tokens(now[len(said) :])
        ended = ended_by in self.policy.ends
        return tokens[1:] if ended and tokens[:1] == [ended_by] else tokens

    def _append(self, tokens: list[int], log_prob: list[float], kept: list[list[int]], spans: list[Span], *, mine: bool) -> None:
        """Tokens of the turn at hand, ``mine``: the policy's."""
        self.ids += tokens
        self.token += tokens
        self.mask += [mine] * len(tokens)
        self.log_prob += log_prob
        self.turn += [len(self.texts) - 1] * len(tokens)
        self.span += spans
        self.kept += kept

    def _pad(self) -> None:
        self.token, self.mask, self.log_prob, self.turn, self.span, self.kept = [0], [False], [0.0], [0], [(0, 0)], [[-1]]

    def _judge(self, reward: float, status: Status, reason: str) -> None:
        self.reward.append(reward)
        self.status.append(int(status))
        self.reason.append(reason)


def _rollouts(policy: LanguagePolicy, rows: list[_Row], sampling: Sampling) -> Rollouts:
    t = max(len(r.token) for r in rows)
    device = policy.device

    def padded(columns: list[list[Any]], pad: Any) -> torch.Tensor:
        return torch.tensor([c + [pad] * (t - len(c)) for c in columns], device=device)

    mask = padded([r.mask for r in rows], False)
    # The last step the policy took, or the padding step of a row that never began.
    last = torch.tensor([len(r.token) - 1 for r in rows], device=device)
    is_last = torch.arange(t, device=device) == last[:, None]
    terminated = torch.tensor([r.terminated for r in rows], device=device)
    texts = ["\n".join(r.texts) for r in rows]
    offsets = [r.span + [(len(x), len(x))] * (t - len(r.span)) for r, x in zip(rows, texts, strict=True)]
    fields = {
        **task_fields([r.context for r in rows]),
        "prompt": Field("task", [r.prompt for r in rows]),
        "context_ids": Field("task", [r.context_ids for r in rows]),
        "completion": Field("episode", [[x] for x in texts]),
        "messages": Field("episode", [[r.messages] for r in rows]),
        "offset": Field("step", torch.tensor(offsets, device=device).reshape(len(rows), t, 2)),
        "environment_reward": Field("turn", [r.reward for r in rows]),
        "environment_status": Field("turn", [r.status for r in rows]),
        "environment_reason": Field("turn", [r.reason for r in rows]),
    }
    if any(ids != [-1] for r in rows for ids in r.kept):
        most = max(len(ids) for r in rows for ids in r.kept)
        kept = [[ids + [-1] * (most - len(ids)) for ids in r.kept] for r in rows]
        fields["kept"] = Field("step", padded(kept, [-1] * most))
    return Rollouts(
        action=padded([r.token for r in rows], 0),
        mask=mask,
        task=[r.context.task for r in rows],
        log_prob=padded([r.log_prob for r in rows], 0.0),
        terminated=is_last & terminated[:, None],
        truncated=is_last & ~terminated[:, None],
        length=last + 1,
        levels={"turn": padded([r.turn for r in rows], -1)},
        group=torch.tensor([r.context.group for r in rows], device=device),
        fields=fields,
        sampling=settings_of(sampling),
    )
