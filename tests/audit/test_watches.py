# SPDX-License-Identifier: Apache-2.0
"""Watched quantities by hand, and what a reward reads of them."""

from __future__ import annotations

import math

import pytest
import torch

from guerdon.audit.watches import CONTROL, TEXT, images, reading
from guerdon.audit.watches.control import EPISODE_LENGTH, JERK, VISITATION, cells_of, episode_length, jerk, visitation_entropy
from guerdon.audit.watches.gold import gold_names, kl_from_start
from guerdon.audit.watches.text import DISTINCT, ENTROPY, LENGTH, REPETITION, distinct, entropy, length, repetition
from guerdon.errors import InputError
from guerdon.rewards import reward
from guerdon.rewards.checkers import environment, exact, field, kl, length_penalty, numeric
from guerdon.rewards.checkers import length as length_reward
from guerdon.rewards.oracle import oracle
from guerdon.rollouts import Field, Rollouts

NAN = math.nan


def tokens(rows: list[list[int]], **more) -> Rollouts:
    size = max(map(len, rows))
    action = torch.tensor([row + [0] * (size - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (size - len(row)) for row in rows])
    return Rollouts(action, mask, [str(i) for i in range(len(rows))], **more)


def same(found: torch.Tensor, wanted: list) -> bool:
    return torch.allclose(found, torch.tensor(wanted, dtype=torch.float64), equal_nan=True)


# ---- text


def test_of_tokens() -> None:
    rows = tokens([[1, 2, 1, 2, 1], [1, 2, 3, 4, 5], [7]], group=torch.tensor([0, 0, 1]))
    assert same(length(rows), [5, 5, 1])
    assert same(repetition(rows, 2), [0.5, 0, NAN])  # 12 21 12 21: two of four were there before; one token has no pair
    assert same(distinct(rows, 2), [5 / 8, NAN, NAN])  # 12 21 | 12 23 34 45, and 12 is in both


def test_steps_that_others_took_do_not_count() -> None:
    rows = tokens([[1, 1, 1, 1]], log_prob=torch.tensor([[-1.0, -3.0, -5.0, NAN]]))
    half = rows.replace(mask=torch.tensor([[True, True, False, False]]))
    assert same(length(half), [2]) and same(repetition(half, 2), [0]) and same(entropy(half), [2])


def test_entropy_is_that_of_what_was_sampled_from() -> None:
    probability = torch.tensor([0.7, 0.2, 0.1], dtype=torch.float64)
    drawn = torch.multinomial(probability, 40_000, replacement=True, generator=torch.Generator().manual_seed(0)).reshape(200, 200)
    rows = Rollouts(drawn, torch.ones(200, 200, dtype=torch.bool), ["a"] * 200, log_prob=probability[drawn].log())
    assert entropy(rows).mean().item() == pytest.approx(-(probability * probability.log()).sum().item(), abs=0.01)


# ---- control


def steps(action: torch.Tensor, episode: torch.Tensor | None = None, observation: torch.Tensor | None = None) -> Rollouts:
    n, t = action.shape[:2]
    levels = {} if episode is None else {"episode": episode}
    fields = {} if observation is None else {"observation": Field("step", observation)}
    return Rollouts(action, torch.ones(n, t, dtype=torch.bool), ["e"] * n, levels=levels, fields=fields)


def test_episode_lengths_are_those_within_the_row() -> None:
    rows = steps(torch.zeros(2, 5), torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, -1]]))
    assert same(episode_length(rows), [[3, 2], [4, NAN]])


def test_jerk_is_the_third_difference_within_an_episode() -> None:
    cubic = (torch.arange(6.0) ** 3)[None, :, None]  # third difference 6 everywhere
    assert same(jerk(steps(cubic)), [6.0])
    broken = torch.tensor([[0, 0, 0, 0, 1, 1]])
    assert same(jerk(steps(cubic, broken)), [6.0])  # one window of four lies in episode 0
    assert same(jerk(steps(cubic[:, :3])), [NAN])
    to_and_fro, still = torch.tensor([[0, 1, 0, 1]]), torch.tensor([[2, 2, 2, 2]])
    assert same(jerk(steps(to_and_fro)), [4 * math.sqrt(2)])  # one-hot: (4, -4)
    assert same(jerk(steps(still)), [0.0]) and same(jerk(steps(to_and_fro + 5)), [4 * math.sqrt(2)])


def test_visitation_entropy() -> None:
    places = torch.eye(4)[torch.tensor([[0, 1, 2, 3, 0, 1, 2, 3], [0, 1, 0, 1, 0, 1, 0, 1], [2] * 8])]
    rows = steps(torch.zeros(3, 8), observation=places)
    cells = cells_of(rows)
    assert bool(cells["joint"])
    assert same(visitation_entropy(rows, **cells), [math.log(4), math.log(2), 0])
    spread = steps(torch.zeros(1, 8), observation=torch.stack([torch.arange(8.0), torch.zeros(8)], -1)[None])
    alone = cells_of(spread)
    assert not bool(alone["joint"])  # no cell is visited twice
    assert same(visitation_entropy(spread, **alone), [math.log(8) / 2])  # one dimension spread out, one constant


# ---- images


def picture(*shape: int, **values: float) -> torch.Tensor:
    x = torch.full(shape, -1.0)
    for place, value in values.items():
        x[int(place[1]), int(place[2])] = value
    return x


def drawn(*pictures: torch.Tensor) -> Rollouts:
    x = torch.stack(pictures).flatten(1)
    return Rollouts(
        x[:, None], torch.ones(len(x), 1, dtype=torch.bool), ["i"] * len(x), fields={"sample": Field("episode", x[:, None])}
    )


def test_images() -> None:
    rows = drawn(picture(2, 2), picture(2, 2, p00=1.0), torch.tensor([[-1.0, -0.9], [-1.0, -0.9]]))
    brightness, edges, inks = (q(rows) for q in images(2, 2))
    assert same(brightness, [0, 0.25, 0.025])
    assert same(edges, [0, 0.5, 0])  # of four pairs of neighbours two differ; a twentieth of the range is no edge
    assert same(inks, [0, -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)), 0])


def test_colours_are_inks_of_their_own() -> None:
    red, blue = torch.tensor([1.0, -1.0, -1.0]), torch.tensor([-1.0, -1.0, 1.0])
    rows = drawn(torch.stack([red, blue]).reshape(1, 2, 3))
    _, edges, inks = (q(rows) for q in images(1, 2, 3))
    assert same(edges, [1.0]) and same(inks, [math.log(2)])
    with pytest.raises(InputError, match="should have 3 x 3 x 1 values an image"):
        images(3, 3)[0](rows)


# ---- what a reward reads


@reward
def long(completion, step_count):
    return step_count


@reward
def nice(completion):
    return 1.0


@pytest.mark.parametrize(
    ("quantity", "scorer", "how"),
    [
        (LENGTH, numeric() - 0.1 * length_reward(), "itself"),
        (LENGTH, numeric() + length_penalty(10), "itself"),
        (LENGTH, long, "itself"),
        (LENGTH, numeric() + length_reward().watch(), "its fields"),  # what is only watched is not read
        (LENGTH, nice, "its fields"),
        (REPETITION, exact(), "its fields"),
        (DISTINCT, kl(), "no"),
        (ENTROPY, exact(), "no"),
        (ENTROPY, exact() - 0.1 * kl(), "its fields"),
        (JERK, environment(), "no"),
        (JERK, environment() + field("action"), "its fields"),
        (VISITATION, environment(), "no"),
        (EPISODE_LENGTH, environment().gate(on=field("observation").pool("last"), above=0.0), "its fields"),
    ],
    ids=lambda x: getattr(x, "name", str(x)),
)
def test_what_a_reward_reads_of_a_quantity(quantity, scorer, how) -> None:
    assert reading(quantity, scorer) == how


def test_quantities_apply_where_their_fields_are() -> None:
    text = Rollouts.from_text(["", ""], ["a b", "c"])
    assert [q.name for q in TEXT if q.applies(text)] == ["length", "repetition", "distinct"]  # no log_prob
    assert [q.name for q in CONTROL if q.applies(text)] == ["jerk"]


# ---- gold


def test_golds_are_the_oracles_by_the_names_they_have_in_the_trace() -> None:
    made = numeric() + oracle(exact()).watch() + oracle(nice.named("true")).watch() + exact().watch()
    names = gold_names(made)
    assert len(names) == 2 and "true" in names
    scores = made(completions=["4"], answer=["5"])
    assert [scores.trace[n].values.item() for n in names] == [0.0, 1.0]
    assert gold_names(numeric()) == gold_names(object()) == []


def test_kl_is_a_sum_over_the_row() -> None:
    rows = tokens([[1, 2], [3]], log_prob=torch.tensor([[-1.0, -1.0], [-2.0, 0.0]]))
    assert kl_from_start(rows, torch.tensor([[-2.0, -3.0], [-2.0, -9.0]])) == pytest.approx(1.5)
