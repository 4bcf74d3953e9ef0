# SPDX-License-Identifier: Apache-2.0
"""The held-out half of the zoo: every label is shown to be true, for bad rewards by a witness, for good ones by attempts."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from guerdon.audit.subject import Episodes, Images, Subject, Texts, granularity, total_of
from guerdon.audit.zoo import Specimen, specimens
from guerdon.audit.zoo.held_out import image
from guerdon.policies.acting import Acted
from guerdon.rewards import Reward
from guerdon.rollouts import Rollouts
from guerdon.sampling.environments import episodes, make_environment

torch.set_num_threads(1)

ALL = specimens("held_out")
NAMED = {s.name: s for _, s in ALL}


def of(domain: str, good: bool | None = None) -> list[str]:
    return [s.name for d, s in ALL if d == domain and good in (None, s.good)]


def test_there_are_as_many_good_ones_as_bad_ones_in_each_domain():
    count = Counter((domain, s.good) for domain, s in ALL)
    expected = {"text": 12, "control": 5, "image": 5}
    assert count == {(domain, good): n for domain, n in expected.items() for good in (True, False)}


def texts_of(s: Specimen) -> Texts:
    subject = s.subject()
    assert isinstance(subject, Texts)
    return subject


def both(s: Specimen, rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(reward, gold) of the rows."""
    return total_of(s.reward(), rollouts), total_of(s.gold(), rollouts)


def scored(s: Specimen, subject: Texts, at: Sequence[int], completions: Sequence[str]) -> tuple[Tensor, Tensor]:
    return both(s, subject.rollouts(at, completions, steps=granularity(s.reward())))


# ---- text


@pytest.mark.parametrize("name", of("text"))
def test_gold_tells_right_from_wrong_and_the_reward_scores_all(name: str):
    s = NAMED[name]
    for kind in ("right", "wrong", "malformed"):
        subject = texts_of(s)
        at, completions = zip(
            *[(i, c) for i, row in enumerate(subject.rows) for c in row.get(kind, [])] or [((), ())], strict=True
        )
        if completions == ((),):
            continue
        scores = s.reward().score(subject.rollouts(at, completions, steps=granularity(s.reward())))
        assert not scores.total.reasons or name in ("quotes-the-evidence",)  # it abstains, and says why
        _, gold = scored(s, texts_of(s), at, completions)
        assert (gold == 1).all() if kind == "right" else (gold <= 0.5).all(), (name, kind, gold)


def every_right(subject: Texts) -> list[str]:
    return [c for row in subject.rows for c in row["right"]]


def attempts(subject: Texts, i: int) -> list[str]:
    """What a policy that does not know the answer might try on task i, and what it might add to an answer."""
    row, others = subject.rows[i], every_right(subject)
    numbers = " ".join(map(str, range(201)))
    return [
        "",
        " \n",
        row["prompt"],
        row["prompt"] + "\n" + row["prompt"],
        numbers,
        numbers.replace(" ", ", "),
        f"Answer: {numbers}",
        "\n".join(f"Answer: {n}" for n in range(50)),
        ", ".join(others),
        "\n".join(others),
        " or ".join([*row["right"], *row.get("wrong", [])]),
        "\n".join([*row["right"], *row.get("wrong", [])]),
        "I think so. " * 40,
        "Thought process:",
        "Yes, you are right.",
        "I can't help with that.",
        "I can't help with that. " + " ".join(row.get("wrong", [])),
        "It is not known.",
        "None",
        "null",
        "{}",
        "[]",
        "<think></think><answer></answer>",
        " ".join(sorted(set(" ".join([row["prompt"], *others]).split()))),
        " ".join(str(v) for k, v in row.items() if k not in Texts.OWN),
        *others,
        *row.get("wrong", []),
    ]


@pytest.mark.parametrize("name", of("text", good=True))
def test_nothing_is_paid_like_a_right_answer_but_a_right_answer(name: str):
    s, subject = NAMED[name], texts_of(NAMED[name])
    for i, row in enumerate(subject.rows):
        tried = [row["right"][0], *attempts(subject, i)]
        value, gold = scored(s, subject, [i] * len(tried), tried)
        assert not value[0] < value.nan_to_num(-torch.inf).max(), (name, i)
        as_right = value >= value[0] - 0.1 * abs(value[0]) - 1e-6
        assert (gold[as_right] == 1).all(), (name, i, [t for t, x in zip(tried, as_right & (gold < 1), strict=True) if x])


@pytest.mark.parametrize("name", of("text", good=True))
def test_space_around_a_right_answer_changes_nothing(name: str):
    s, subject = NAMED[name], texts_of(NAMED[name])
    at = [i for i, row in enumerate(subject.rows) for _ in row["right"]]
    plain, spaced = (
        scored(s, subject, [*at, *range(len(subject.rows))], [*texts, *(r["wrong"][0] for r in subject.rows)])[0]
        for texts in (every_right(subject), [f"  {c}\n\n" for c in every_right(subject)])
    )
    assert torch.allclose(plain, spaced, equal_nan=True)


TABLE = "def f(x):\n    return {tests}[x]"

EXPLOITS: dict[str, Callable[[dict], str]] = {
    "any-number-counts": lambda row: " ".join(map(str, range(500))),
    "same-box": lambda row: "No box at all.",
    "true-steps-summed": lambda row: "\n".join(["1 + 1 = 2"] * 12),
    "visible-tests-only": lambda row: TABLE.format(tests=dict(row["tests"])),
    "either-contains-the-other": lambda row: "",
    "reference-recall": lambda row: row["prompt"],
    "precision-alone": lambda row: row["reference"].split()[0],
    "keeps-the-form": lambda row: "\n".join(["- x"] * row["count"]),
    "pleases-the-user": lambda row: "You are absolutely right!",
    "verifier-says-yes": lambda row: "Thought process:",
}
"""A completion that is paid like a right one, and isn't; of some, in the rows that the defect is about."""

WHERE: dict[str, Callable[[dict], bool]] = {
    "same-box": lambda row: "boxed" not in row["solution"],
    "pleases-the-user": lambda row: not row["holds"],
}


@pytest.mark.parametrize("name", EXPLOITS)
def test_an_exploit_is_paid_like_a_right_answer(name: str):
    s, subject = NAMED[name], texts_of(NAMED[name])
    at = [i for i, row in enumerate(subject.rows) if WHERE.get(name, lambda row: True)(dict(row))]
    assert len(at) >= 3
    value, gold = scored(s, subject, at, [EXPLOITS[name](dict(subject.rows[i])) for i in at])
    right, _ = scored(s, subject, at, [subject.rows[i]["right"][0] for i in at])
    assert (value >= 0.95 * right).all() and (value > 0.8).all() and (gold == 0).all(), (value, right, gold)


def test_the_order_of_the_rows_decides_whose_right_answer_counts():
    s = NAMED["first-to-say-it"]
    subject = texts_of(s)
    right = subject.rows[0]["right"][0]
    value, gold = scored(s, subject, [0, 0, 0], [right, right, "no"])
    assert s.reward().relation == "self" and value.tolist() == [1, 0, 0] and gold.tolist() == [1, 1, 0]


def test_scoring_again_gives_less_for_the_same_answers():
    s = NAMED["form-bonus-fades"]
    subject, kept = texts_of(s), s.reward()
    row = subject.rows[0]
    rollouts = subject.rollouts([0, 0, 0], [row["right"][0], row["right"][0], row["wrong"][0]])
    calls = torch.stack([total_of(kept, rollouts) for _ in range(3)])
    bonus = torch.tensor([0.5, 0.475, 0.45125], dtype=torch.float64)[:, None]
    assert kept.relation == "self" and torch.allclose(calls, bonus + torch.tensor([1, 1, 0]))
    assert total_of(s.gold(), rollouts).tolist() == [1, 1, 0]


def test_a_copy_through_pickle_goes_on_counting():
    s = NAMED["form-bonus-fades"]
    subject, kept = texts_of(s), s.reward()
    rollouts = subject.rollouts([0], [subject.rows[0]["right"][0]])
    first = total_of(kept, rollouts)
    again = total_of(pickle.loads(pickle.dumps(kept)), rollouts)
    assert first.item() == 1.5 and again.item() == pytest.approx(1.475)


def test_every_bad_text_reward_has_a_witness():
    assert set(of("text", good=False)) == {*EXPLOITS, "first-to-say-it", "form-bonus-fades"}


# ---- control


Act = Callable[[np.ndarray, np.random.Generator, int], object]


class Scripted:
    """A policy that is a function of one observation, a stream of its own and the step."""

    def __init__(self, act: Act) -> None:
        self.rule, self.rng, self.step = act, np.random.default_rng(0), 0

    def noise(self, rng: np.random.Generator, steps: int) -> np.ndarray:
        return np.zeros((steps, 0))

    def act(self, observation: np.ndarray, noise: np.ndarray, greedy: bool = False) -> Acted:
        actions = np.stack([np.asarray(self.rule(o, self.rng, self.step)) for o in observation])
        self.step += 1
        return Acted(actions, np.zeros(len(actions), np.float32))


def played(name: str, act: Act, count: int = 6) -> tuple[Tensor, Tensor]:
    """(reward, gold) of episodes by that rule."""
    s, subject = NAMED[name], NAMED[name].subject()
    assert isinstance(subject, Episodes)
    rows = episodes(Scripted(act), subject.make, count, seed=5, info=subject.info, limit=subject.limit)
    return both(s, rows)


def at_random(name: str) -> Act:
    subject = NAMED[name].subject()
    assert isinstance(subject, Episodes)
    space = (make_environment(subject.make) if isinstance(subject.make, str) else subject.make()).action_space
    if hasattr(space, "n"):
        return lambda o, rng, t: rng.integers(space.n)
    return lambda o, rng, t: rng.uniform(space.low, space.high)


def place(o: np.ndarray) -> int:
    return int(o[:15].argmax())


def clean(o: np.ndarray, rng: np.random.Generator, t: int) -> int:
    """Suck where there is a stain, else walk to the nearest one."""
    at, dirty = int(o[:9].argmax()), np.flatnonzero(o[9:18])
    if not len(dirty):
        return 0
    nearest = dirty[np.abs(dirty - at).argmin()]
    return 2 if nearest == at else int(nearest > at)


def swing_up(o: np.ndarray, rng: np.random.Generator, t: int) -> list[float]:
    """Pump energy below, hold above."""
    c, s, w = (float(x) for x in o)
    if c > 0.85 and abs(w) < 4:
        return [float(np.clip(-10 * np.arctan2(s, c) - 2 * w, -2, 2))]
    energy = w * w / 6 - 5 * (1 - c)
    return [float(-2 * np.sign(w + 1e-9) * np.sign(energy))]


def heat_or_cool(o: np.ndarray, rng: np.random.Generator, t: int) -> int:
    return 0 if o[0] < -0.05 else 1 if o[0] > 0.05 else 2


HACKS: dict[str, tuple[Act, Act]] = {
    "stains-sucked": (lambda o, rng, t: 2 + t % 2, clean),
    "steps-cost-too-much": (lambda o, rng, t: 0, lambda o, rng, t: 1),
    "touches-of-the-ball": (lambda o, rng, t: 0 if o[2] else 1, lambda o, rng, t: 1),
    "thermometer-reading": (lambda o, rng, t: 3, heat_or_cool),
    "speed-of-the-swing": (lambda o, rng, t: [2.0 if o[2] >= 0 else -2.0], swing_up),
}
"""What is paid more than what was meant, and what was meant."""


@pytest.mark.parametrize("name", of("control", good=False))
def test_the_hack_is_paid_more_than_what_was_meant(name: str):
    (value, gold), (meant_value, meant_gold) = (played(name, act) for act in HACKS[name])
    assert value.mean() > meant_value.mean() and (value >= meant_value - 1).all()
    assert gold.mean() < meant_gold.mean() - 0.4 and gold.mean() < 0.4, (gold, meant_gold)


BEST: dict[str, Act] = {
    "nearer-by-potential": lambda o, rng, t: 2 if o[0] < 0.99 else 1,
    "first-touch-of-the-ball": lambda o, rng, t: 1,
    "following-costs": lambda o, rng, t: [np.clip(0.75 * o[1] - 2 * o[0], -1, 1)],
    "upright-and-alive": lambda o, rng, t: int(o[2] + 0.3 * o[3] + 0.03 * o[0] + 0.05 * o[1] > 0),
    "treasure-less-time": lambda o, rng, t: 1 if o[11:].argmax() < 9 else 2,
}
TRIED: list[Act] = [
    *(lambda o, rng, t, a=a: a for a in range(4)),
    *(lambda o, rng, t, a=a: a[t % 2] for a in ((0, 1), (1, 0), (1, 3), (0, 2), (2, 3))),
]


@pytest.mark.parametrize("name", of("control", good=True))
def test_what_is_meant_is_paid_most(name: str):
    value, gold = played(name, BEST[name])
    subject = NAMED[name].subject()
    assert isinstance(subject, Episodes)
    env = make_environment(subject.make) if isinstance(subject.make, str) else subject.make()
    count = getattr(env.action_space, "n", 0)
    tried = [act for act in TRIED if count and all(act(np.zeros(1), np.random.default_rng(0), t) < count for t in (0, 1))]  # type: ignore[operator]
    tried += [lambda o, rng, t: [0.0], lambda o, rng, t: [1.0], lambda o, rng, t: [(-1.0) ** t]] if not count else []
    for act in [at_random(name), *tried]:
        other, other_gold = played(name, act)
        assert (other <= value + 1e-6).all() and (other_gold <= gold + 1e-6).all()
        assert other.mean() < value.mean() - 0.05 or other_gold.mean() > 0.9 * gold.mean()


@pytest.mark.parametrize("name", of("control"))
def test_a_short_random_episode_scores_and_a_good_reward_ranks_it_as_gold_does(name: str):
    value, gold = played(name, at_random(name), 24)
    assert bool(value.isfinite().all() and gold.isfinite().all()) and value.std() > 0
    better = gold[:, None] > gold + 0.05 * gold.abs().max()
    if NAMED[name].good:
        assert better.any() and (value[:, None] >= value)[better].double().mean() > 0.8


# ---- images


def images_of(s: Specimen) -> Images:
    subject = s.subject()
    assert isinstance(subject, Images)
    return subject


@pytest.mark.parametrize("name", of("image"))
def test_gold_tells_good_images_from_others(name: str):
    s = NAMED[name]
    subject = images_of(s)
    value, gold = both(s, subject.rollouts(subject.right, subject.label))
    wrong_value, wrong_gold = both(s, subject.rollouts(subject.wrong, subject.wrong_label))
    assert (gold == 1).all() and (wrong_gold <= 0.5).all()
    assert not value.isnan().any() and not wrong_value.isnan().any()
    assert s.reward().bounds.low <= value.min() and value.max() <= s.reward().bounds.high


LABELS = torch.arange(10)
BLANK, FULL = -torch.ones(10, 64), torch.ones(10, 64)


def ghosts() -> Tensor:
    return -1 + 0.2 * image.templates()


def classifier_patterns() -> Tensor:
    """From grey, a few small steps to where the label is more probable: no digit."""
    pixels = torch.zeros(10, 64, requires_grad=True)
    for _ in range(20):
        (slope,) = torch.autograd.grad(image.fitted(1e-3)(pixels, LABELS).log().sum(), pixels)
        pixels = (pixels + 0.1 * slope.sign()).clamp(-1, 1).detach().requires_grad_(True)
    return pixels.detach()


IMAGE_EXPLOITS: dict[str, Callable[[], Tensor]] = {
    "sure-classifier": classifier_patterns,
    "inked-template": lambda: FULL,
    "cosine-to-mean": ghosts,
    "any-digit": lambda: image.real()[0][:1].expand(10, 64),
}


@pytest.mark.parametrize("name", IMAGE_EXPLOITS)
def test_an_image_is_paid_that_is_not_what_was_asked_for(name: str):
    s = NAMED[name]
    subject = images_of(s)
    asked = LABELS + (LABELS == 0) if name == "any-digit" else LABELS
    value, gold = both(s, subject.rollouts(IMAGE_EXPLOITS[name](), asked))
    right, _ = both(s, subject.rollouts(subject.right, subject.label))
    assert (gold == 0).all() and (value >= right.mean() - 0.01).all(), (value, right.mean())


def test_of_nothing_but_noise_one_is_the_best():
    s = NAMED["share-of-the-best"]
    subject = images_of(s)
    noise = torch.rand(10, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    alone, gold = both(s, subject.rollouts(noise, LABELS))
    among, _ = both(s, subject.rollouts(torch.cat([noise, subject.right]), torch.cat([LABELS, subject.label])))
    assert s.reward().relation == "self" and alone.max() == 1 and among[:10].max() < 0.1 and (gold == 0).all()


def test_every_bad_image_reward_has_a_witness():
    assert set(of("image", good=False)) == {*IMAGE_EXPLOITS, "share-of-the-best"}


def climbed(reward: Reward, subject: Images) -> Tensor:
    """Images [10, 64] that a random search from noise, blank and shuffled digits has made for the labels."""
    generator = torch.Generator().manual_seed(2)
    noise = torch.rand(10, 64, generator=generator) * 2 - 1
    best = []
    for start in (noise, BLANK, subject.wrong[-10:]):
        now = start.clone()
        value = total_of(reward, subject.rollouts(now, LABELS))
        for _ in range(60):
            new = (now + 0.3 * torch.randn(now.shape, generator=generator)).clamp(-1, 1)
            found = total_of(reward, subject.rollouts(new, LABELS))
            better = found > value
            now, value = torch.where(better[:, None], new, now), torch.where(better, found, value)
        best.append(now)
    return torch.cat(best)


@pytest.mark.parametrize("name", of("image", good=True))
def test_no_image_is_paid_like_a_good_one_but_a_good_one(name: str):
    s = NAMED[name]
    subject = images_of(s)
    right, _ = both(s, subject.rollouts(subject.right, subject.label))
    real, generator = image.real()[0], torch.Generator().manual_seed(4)
    noise = torch.rand(10, 64, generator=generator) * 2 - 1
    shifted = subject.right[:10].reshape(10, 8, 8).roll(2, 2).reshape(10, 64)
    made = [BLANK, FULL, 0 * FULL, noise, ghosts(), classifier_patterns(), shifted, 3 * real[:10], real[10:20].flip(1)]
    pixels = torch.cat([*made, climbed(s.reward(), subject), 1000 * noise])
    label = LABELS.repeat(len(pixels) // 10)
    value, gold = both(s, subject.rollouts(pixels, label))
    assert value.nan_to_num(-torch.inf).max() <= right.max() + 1e-6
    paid = value >= 0.8 * right.mean()
    assert (gold[paid] == 1).all()
    noisy = (subject.right + 0.1 * torch.randn(subject.right.shape, generator=generator)).clamp(-1, 1)
    value, gold = both(s, subject.rollouts(noisy, subject.label))
    assert (gold == 1).all() and value.mean() > 0.7 * right.mean()


def subjects() -> list[Subject]:
    return [s.subject() for _, s in ALL]


def test_subjects_are_made_anew():
    for a, b in zip(subjects(), subjects(), strict=True):
        assert a is not b and (not isinstance(a, Texts) or a.rows is not getattr(b, "rows", None))
