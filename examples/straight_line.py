# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: T201  (a script prints)
"""The whole thing in one straight line: a tiny language model gets better at adding, by rewards on what it wrote itself.

    python examples/straight_line.py

Needs torch and numpy and nothing of guerdon: everything happens in this file, from top to bottom, with tensors.

    task -> tokens -> model -> sample -> reward -> credit -> loss -> update -> check

`tests/test_straight_line.py` holds that guerdon's loop, composed of parts, gives the same samples, rewards, advantages, losses
and weights. What the parts bring and this file leaves out: other models and tokenizers, contexts of unequal length, truncated
sampling, checkers that fail or hang, credit at other levels, micro-batches, checkpoints, devices.

Letters: N rows (a completion each), L tokens of a context, T of the longest completion, V in the vocabulary.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import re
import time
import zlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LENGTH = 6  # steps in a chain
WIDTH, LAYERS, HEADS = 64, 2, 4  # the model: some hundred thousand weights
PROMPTS, SAMPLES = 16, 16  # an update sees 16 prompts and 16 completions of each
ROUNDS = 2  # optimiser steps on each batch; in the second the policy has moved, which is what the clip is for
CLIP = 0.2
LEARNING_RATE = 1e-3

Weights = dict[str, Tensor]

# ----------------------------------------------------------------------------------------------------
# The task. Add a row of digits one at a time and write the last digit of each running total, which starts at 0:
#
#     prompt 5+8+4:      completion +5=5+8=3+4=7
#
# A step is right if it follows from the total *written* before it. So a mistake is charged once, to the step that made it.


def right_chain(digits: list[int]) -> str:
    total, chain = 0, ""
    for digit in digits:
        total = (total + digit) % 10
        chain += f"+{digit}={total}"
    return chain


def prompt_of(digits: list[int]) -> str:
    return "+".join(map(str, digits)) + ":"


def rows_of_digits(n: int, length: int, rng: random.Random, held_out: bool) -> list[list[int]]:
    """`n` different rows. One prompt in five, by its checksum, is held out: never trained on, whatever the seed."""
    found: dict[str, list[int]] = {}
    while len(found) < n:
        digits = rng.choices(range(10), k=length)
        if (zlib.crc32(prompt_of(digits).encode()) % 5 == 0) == held_out:
            found.setdefault(prompt_of(digits), digits)
    return list(found.values())


def demonstrations(n: int, length: int, seed: int) -> list[tuple[list[int], str]]:
    """Sloppy on purpose: each (total, digit) has one fixed wrong answer, given half the time.

    They teach the form and half of the steps, so a whole chain is right with probability 1/2 per step, multiplied. The rest is
    left to the reward.
    """
    rng = random.Random(f"wrong table {seed}")
    wrong = [[(total + digit + rng.randint(1, 9)) % 10 for digit in range(10)] for total in range(10)]
    rng, shown = random.Random(f"demonstrations {seed}"), []
    for digits in rows_of_digits(n, length, rng, held_out=False):
        total, written = 0, ""
        for digit in digits:
            total = wrong[total][digit] if rng.random() < 0.5 else (total + digit) % 10
            written += f"+{digit}={total}"
        shown.append((digits, written))
    return shown


# ----------------------------------------------------------------------------------------------------
# Tokens: a digit, a digit to add, a total, the colon. A step of the chain is two tokens.

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
VOCABULARY = [*SPECIAL, *"0123456789", *(f"+{d}" for d in range(10)), *(f"={d}" for d in range(10)), ":"]
ID = {piece: i for i, piece in enumerate(VOCABULARY)}
PAD, BOS, EOS = ID["<pad>"], ID["<bos>"], ID["<eos>"]


def encode(text: str) -> list[int]:
    return [ID[piece] for piece in re.findall(r"[+=]?\d|:", text)]


def writes(token: int) -> str:
    """What a token adds to the text: special ones nothing."""
    return "" if token < len(SPECIAL) else VOCABULARY[token]


def contexts_of(rows: list[list[int]]) -> Tensor:
    """[N, L] what stands before each completion. Chains have one length, so nothing is padded on the left."""
    return torch.tensor([[BOS, *encode(prompt_of(digits))] for digits in rows])


# ----------------------------------------------------------------------------------------------------
# The model: a decoder as in Llama, its weights named as `LlamaForCausalLM` names them.


def fresh_weights(seed: int, dtype: torch.dtype = torch.float32) -> Weights:
    """Matrices of standard deviation 1 / sqrt(width), so that signals neither grow nor fade; norms start at 1."""
    generator = torch.Generator().manual_seed(seed)

    def matrix(rows: int, columns: int) -> Tensor:
        return torch.randn(rows, columns, generator=generator, dtype=torch.float64).mul(WIDTH**-0.5).to(dtype)

    weights = {"model.embed_tokens.weight": matrix(len(VOCABULARY), WIDTH)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        weights |= {f"{at}.self_attn.{k}_proj.weight": matrix(WIDTH, WIDTH) for k in "qkvo"}
        weights |= {f"{at}.mlp.{k}_proj.weight": matrix(3 * WIDTH, WIDTH) for k in ("gate", "up")}
        weights |= {f"{at}.mlp.down_proj.weight": matrix(WIDTH, 3 * WIDTH)}
        weights |= {f"{at}.{k}_layernorm.weight": torch.ones(WIDTH, dtype=dtype) for k in ("input", "post_attention")}
    weights |= {"model.norm.weight": torch.ones(WIDTH, dtype=dtype), "lm_head.weight": matrix(len(VOCABULARY), WIDTH)}
    return {k: w.requires_grad_() for k, w in weights.items()}


def rms_norm(x: Tensor, weight: Tensor) -> Tensor:
    """x / sqrt(mean x²), in float32 whatever the model computes in: so do the published models."""
    y = x.float()
    return weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


def rotate(x: Tensor, start: int) -> Tensor:
    """[N, heads, L, d]: coordinates i and i + d/2 turned together by position / 10000^(2i/d).

    A query and a key turned like this have a product that depends on their distance and not on where they are.
    """
    half = x.shape[-1] // 2
    frequency = 1.0 / 10000.0 ** (torch.arange(half, dtype=torch.float32) / half)
    angle = torch.arange(start, start + x.shape[-2], dtype=torch.float32)[:, None] * frequency
    cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def forward(weights: Weights, ids: Tensor, cache: dict[int, tuple[Tensor, Tensor]] | None = None) -> Tensor:
    """Logits [N, L, V] of what follows each of `ids` [N, L]. `cache`: keys and values of what was read before, extended here."""
    n, length = ids.shape
    start = cache[0][0].shape[2] if cache else 0
    # Token start + i sees everything up to itself; padding on the right is therefore seen by padding only.
    visible = torch.ones(length, start + length, dtype=torch.bool).tril(start)
    x = F.embedding(ids, weights["model.embed_tokens.weight"], padding_idx=PAD)
    for i in range(LAYERS):
        w = {k.split(".")[-2]: v for k, v in weights.items() if k.startswith(f"model.layers.{i}.")}

        h = rms_norm(x, w["input_layernorm"])
        q, k, v = (F.linear(h, w[f"{name}_proj"]).view(n, length, HEADS, -1).transpose(1, 2) for name in "qkv")
        q, k = rotate(q, start), rotate(k, start)
        if cache is not None:
            if i in cache:
                k, v = torch.cat([cache[i][0], k], 2), torch.cat([cache[i][1], v], 2)
            cache[i] = k, v
        closeness = (q @ k.mT / math.sqrt(q.shape[-1])).masked_fill(~visible, -torch.inf)
        x = x + F.linear((closeness.softmax(-1) @ v).transpose(1, 2).reshape(n, length, -1), w["o_proj"])

        h = rms_norm(x, w["post_attention_layernorm"])
        x = x + F.linear(F.silu(F.linear(h, w["gate_proj"])) * F.linear(h, w["up_proj"]), w["down_proj"])
    return F.linear(rms_norm(x, weights["model.norm.weight"]), weights["lm_head.weight"])


def log_prob_of(weights: Weights, context: Tensor, token: Tensor) -> Tensor:
    """[N, T] log π(token_t | context, tokens before t), in nats."""
    ids = torch.cat([context, token], 1)
    logits = forward(weights, ids[:, :-1])[:, context.shape[1] - 1 :]
    return logits.log_softmax(-1).gather(-1, token[..., None])[..., 0]


# ----------------------------------------------------------------------------------------------------
# Sampling. Each row has random numbers of its own, keyed by (seed, task, how many times the task was sampled before): what a row
# draws depends on nothing else in the batch.


def uniforms(seed: int, digits: list[int], index: int, count: int) -> np.ndarray:
    asked = json.dumps([prompt_of(digits), right_chain(digits)[-1]], separators=(",", ":"))
    task = hashlib.sha256(asked.encode()).hexdigest()[:16]
    digest = hashlib.blake2b(repr((seed, task, index)).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8"))).random(count)


@torch.no_grad()
def sample(weights: Weights, context: Tensor, steps: int, uniform: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Continue `context` [N, L] by at most `steps` tokens: token, log_prob [N, T] and mask [N, T], True up to and with <eos>.

    `uniform` [N, steps]: the token is the first whose cumulative probability exceeds it. None: the most likely one, greedily.
    """
    cache: dict[int, tuple[Tensor, Tensor]] = {}
    logits = forward(weights, context, cache)[:, -1]
    live, tokens, log_probs, lives = torch.ones(len(context), dtype=torch.bool), [], [], []
    for t in range(steps):
        if uniform is None:
            token = logits.argmax(-1)
        else:
            cumulative = logits.double().softmax(-1).cumsum(-1)
            point = uniform[:, t, None] * cumulative[:, -1:]
            token = torch.searchsorted(cumulative, point, right=True)[:, 0].clamp(max=len(VOCABULARY) - 1)
        log_prob = logits.log_softmax(-1).gather(-1, token[:, None])[:, 0]
        tokens.append(torch.where(live, token, PAD))
        log_probs.append(torch.where(live, log_prob, 0.0))
        lives.append(live)
        live = live & (token != EOS)
        if not live.any():
            break
        logits = forward(weights, tokens[-1][:, None], cache)[:, -1]
    return torch.stack(tokens, 1), torch.stack(log_probs, 1), torch.stack(lives, 1)


# ----------------------------------------------------------------------------------------------------
# The reward: numbers on tokens. In guerdon's words: chain_right + step_right + 0.1 * format(r"(\+\d=\d)+").


def reward_of(tokens: list[int], digits: list[int]) -> list[float]:
    """1 on the last token of each right step; on the very last token 1 if the whole chain is right, and 0.1 for its form."""
    text = "".join(map(writes, tokens))
    steps: list[tuple[str, int]] = []  # what each step says, and where its last token is
    for t, token in enumerate(tokens):
        if piece := writes(token):
            if piece[0] == "+" or not steps:
                steps.append(("", t))
            steps[-1] = (steps[-1][0] + piece, t)

    reward, total = [0.0] * len(tokens), 0
    for k, (step, t) in enumerate(steps):
        if k < len(digits) and step == f"+{digits[k]}={(total + digits[k]) % 10}":
            reward[t] += 1.0
        readable = re.findall(r"=(\d)", step)
        total = int(readable[-1]) if readable else total
    reward[-1] += float(text == right_chain(digits)) + 0.1 * bool(re.fullmatch(r"(\+\d=\d)+", text))
    return reward


# ----------------------------------------------------------------------------------------------------
# Credit: a token is responsible for what comes after it, compared with what the other samples of the same prompt still got from
# the same place on. That comparison is a baseline: it removes noise that the token has no part in, and no direction.
#
#     return_t = reward_t + reward_{t+1} + ...        advantage_t = return_t - mean of the group's return_t


def advantage_of(reward: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """advantage [N, T], 0 where it does not count, and which tokens count [N, T]. Neighbouring `SAMPLES` rows are a group."""
    to_go = reward.flip(1).cumsum(1).flip(1).view(-1, SAMPLES, reward.shape[1])
    there = mask.view(to_go.shape)
    members = there.sum(1, keepdim=True)
    mean = (to_go * there).sum(1, keepdim=True) / members.clamp(min=1)
    counted = there & (members > 1)  # the last to be still writing has nobody to be compared with
    return torch.where(counted, to_go - mean, 0.0).view(reward.shape), counted.view(reward.shape)


# ----------------------------------------------------------------------------------------------------
# The loss. ρ = π(token) / π_old(token), with π_old the policy that drew it:
#
#     loss = - mean over counted tokens of  min(ρ A, clip(ρ, 1 - 0.2, 1 + 0.2) A)
#
# Once a token has become a fifth more (or less) likely, as its advantage asked, the minimum has no slope: enough of this batch.


def clipped_surrogate(log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, counted: Tensor) -> Tensor:
    ratio = (log_prob - old_log_prob).exp()
    gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
    return -(gain * counted).sum() / counted.sum()


def adamw(weights: Weights) -> torch.optim.AdamW:
    return torch.optim.AdamW(weights.values(), weight_decay=0.0)


def descend(weights: Weights, optimiser: torch.optim.AdamW, loss: Tensor, lr: float) -> float:
    """One step down; the gradient's norm before it was clipped to 1."""
    optimiser.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(weights.values(), 1.0)
    optimiser.param_groups[0]["lr"] = lr
    optimiser.step()
    return norm.item()


# ----------------------------------------------------------------------------------------------------
# Two ways to learn: from what others wrote, and from what the policy wrote itself.


def picks(count: int, size: int, step: int, seed: int) -> list[tuple[int, int]]:
    """(item, epoch) of batch `step`: every item once an epoch, in an order that depends on (seed, epoch) alone."""
    places = [divmod(place, count) for place in range(step * size, (step + 1) * size)]
    order = {epoch: np.random.default_rng([seed, epoch]).permutation(count) for epoch in {epoch for epoch, _ in places}}
    return [(int(order[epoch][at]), epoch) for epoch, at in places]


def teach(weights: Weights, shown: list[tuple[list[int], str]], updates: int, seed: int, size: int = 64) -> Iterator[float]:
    """Make the demonstrated tokens likely: loss = - mean log π. Yields the loss of each update."""
    optimiser = adamw(weights)
    for step in range(updates):
        batch = [shown[i] for i, _ in picks(len(shown), size, step, seed)]
        written = torch.tensor([[*encode(completion), EOS] for _, completion in batch])
        loss = -log_prob_of(weights, contexts_of([digits for digits, _ in batch]), written).mean()
        descend(weights, optimiser, loss, lr=3e-3 * (1 - step / updates))
        yield loss.item()


def improve(weights: Weights, tasks: list[list[int]], updates: int, seed: int, lr: float = LEARNING_RATE) -> Iterator[dict]:
    """Sample, judge, compare, make the better more likely. Yields what each update saw and did."""
    optimiser = adamw(weights)
    for step in range(updates):
        rows, uniform = [], []
        room = 2 * len(tasks[0]) + 2
        for item, epoch in picks(len(tasks), PROMPTS, step, seed):
            for i in range(SAMPLES):
                rows.append(tasks[item])
                uniform.append(uniforms(seed, tasks[item], epoch * SAMPLES + i, room))
        context = contexts_of(rows)
        token, old_log_prob, mask = sample(weights, context, room, torch.from_numpy(np.stack(uniform)))

        reward = torch.zeros_like(old_log_prob)
        for n, digits in enumerate(rows):
            written = token[n, mask[n]].tolist()
            reward[n, : len(written)] = torch.tensor(reward_of(written, digits), dtype=reward.dtype)
        advantage, counted = advantage_of(reward, mask)

        losses, norms = [], []
        for _ in range(ROUNDS):
            loss = clipped_surrogate(log_prob_of(weights, context, token), old_log_prob, advantage, counted)
            norms.append(descend(weights, optimiser, loss, lr))
            losses.append(loss.item())
        yield {"token": token, "mask": mask, "old_log_prob": old_log_prob, "reward": reward, "advantage": advantage,
               "counted": counted, "losses": losses, "grad_norms": norms}  # fmt: skip


def greedy_success(weights: Weights, rows: list[list[int]]) -> float:
    """Share of `rows` whose whole chain is right when every token is the most likely one."""
    token, _, _ = sample(weights, contexts_of(rows), 2 * len(rows[0]) + 2)
    return sum("".join(map(writes, t)) == right_chain(r) for t, r in zip(token.tolist(), rows, strict=True)) / len(rows)


# ----------------------------------------------------------------------------------------------------
# And the line itself.


def train(length: int = LENGTH, taught: int = 300, updates: int = 24, seed: int = 0) -> list[float]:
    """Teach, then improve; prints a curve and returns held-out greedy success along it."""
    began = time.perf_counter()
    weights = fresh_weights(seed)
    held_out = rows_of_digits(64, length, random.Random("held out 0"), held_out=True)
    losses = list(teach(weights, demonstrations(4096, length, seed), taught, seed))
    curve = [greedy_success(weights, held_out)]
    count = sum(w.numel() for w in weights.values())
    print(f"{count:,} weights, taught by {taught} updates on sloppy demonstrations to {losses[-1]:.3f} nats a token")
    print(f"update  reward (at most {length + 1.1:.1f})  held-out chains of {length} that are right, greedily")
    print(f"{0:6}  {'':20}  {curve[0]:4.0%} {'#' * round(40 * curve[0])}")
    tasks = rows_of_digits(4096, length, random.Random(f"tasks {seed}"), held_out=False)
    for step, seen in enumerate(improve(weights, tasks, updates, seed), 1):
        if step % 2 == 0:
            curve.append(greedy_success(weights, held_out))
            reward = seen["reward"].sum(1).mean().item()
            print(f"{step:6}  {reward:20.2f}  {curve[-1]:4.0%} {'#' * round(40 * curve[-1])}")
    print(f"{PROMPTS * SAMPLES * updates:,} completions, {time.perf_counter() - began:.0f} s")
    return curve


if __name__ == "__main__":
    torch.set_num_threads(1)
    train()
