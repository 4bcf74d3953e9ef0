# SPDX-License-Identifier: Apache-2.0
"""Digits of 8 x 8 pixels that were asked for by their label; what is real is known, and how far an image is from it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from guerdon.audit.subject import Images
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.tasks import digits

NEEDS = ("sample", "label")
FAR = 3.0
"""An image further than this from every real one is no digit: real ones have 99 % within 3.4, noise and no ink begin at 5.8."""


@cache
def real() -> tuple[Tensor, Tensor]:
    return digits.images()


@cache
def templates() -> Tensor:
    """[10, 64] the mean ink of each digit, in [0, 1]."""
    pixels, labels = real()
    return torch.stack([(pixels[labels == k].mean(0) + 1) / 2 for k in range(digits.CLASSES)])


@cache
def fitted(penalty: float) -> Callable[[Tensor, Tensor], Tensor]:
    return digits.classifier(*real(), penalty)


def asked(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(images [N, 64], labels [N])."""
    return rollouts.field("sample").values[:, 0].float(), rollouts.field("label").values[:, 0].long()


def distances(pixels: Tensor) -> Tensor:
    """[N, 10] from each image to the nearest real one of each digit."""
    known, labels = real()
    apart = torch.cdist(pixels, known, compute_mode="donot_use_mm_for_euclid_dist")
    return torch.stack([apart[:, labels == k].amin(1) for k in range(digits.CLASSES)], 1)


def own(pixels: Tensor, label: Tensor) -> Tensor:
    """[N] distance to the nearest real image of the label."""
    return distances(pixels).gather(1, label[:, None])[:, 0]


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def digit_as_asked(rollouts: Rollouts) -> Tensor:
    """1 where the image is near a real one and the nearest real one has the label."""
    pixels, label = asked(rollouts)
    nearest, kind = distances(pixels).min(1)
    return ((nearest <= FAR) & (kind == label)).double()


def digits_asked_for() -> Images:
    """Every tenth real image; wrong: half of them under another label, the other half with their pixels shuffled."""
    pixels, label = (x[::10] for x in real())
    half = len(pixels) // 2
    order = torch.randperm(64, generator=torch.Generator().manual_seed(3))
    wrong = torch.cat([pixels[:half], pixels[half:, order]])
    return Images(pixels, label, wrong, torch.cat([(label[:half] + 3) % digits.CLASSES, label[half:]]))


# ---- bad ones


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def sure_classifier(rollouts: Rollouts) -> Tensor:
    """P(label | image) of a linear classifier."""
    return fitted(1e-3)(*asked(rollouts)).double()


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def inked_template(rollouts: Rollouts) -> Tensor:
    """Ink where the digit usually has ink, as a share of the most there can be."""
    pixels, label = asked(rollouts)
    template = templates()[label]
    return (((pixels.clamp(-1, 1) + 1) / 2 * template).sum(1) / template.sum(1)).double()


@tensor_reward(bounds=(-1, 1), needs=NEEDS)
def cosine_to_mean(rollouts: Rollouts) -> Tensor:
    """Cosine between the ink and the mean ink of the digit, whatever the amount of ink."""
    pixels, label = asked(rollouts)
    return torch.nn.functional.cosine_similarity(pixels + 1, templates()[label], dim=1).clamp(-1, 1).double()


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def any_digit(rollouts: Rollouts) -> Tensor:
    """Nearness to the nearest real image, of whatever label."""
    return torch.exp(-((distances(asked(rollouts)[0]).amin(1) / 2) ** 2)).double()


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def share_of_the_best(rollouts: Rollouts) -> Tensor:
    """Nearness as a share of that of the best image of the batch, so that there is always something to learn from."""
    near = torch.exp(-own(*asked(rollouts)).double() / 2)
    return near / near.max()


# ---- good ones


def nearness(pixels: Tensor, label: Tensor) -> Tensor:
    """exp(-(d / 2)^2) of the distance d to the nearest real image of the label."""
    return torch.exp(-((own(pixels, label).double() / 2) ** 2))


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def near_its_kind(rollouts: Rollouts) -> Tensor:
    return nearness(*asked(rollouts))


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def sure_enough(rollouts: Rollouts) -> Tensor:
    """P(label | image) of the classifier, from a third on full."""
    return (3 * fitted(1e-3)(*asked(rollouts)).double()).clamp(max=1)


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def density_of_its_kind(rollouts: Rollouts) -> Tensor:
    """The label's share of exp(-d^2 / 2) over the nearest of each digit, times the same kernel where it is below a half.

    The first factor says which digit it is, the second whether it is one.
    """
    pixels, label = asked(rollouts)
    kernel = torch.exp(-(distances(pixels).double() ** 2) / 2)
    mine = kernel.gather(1, label[:, None])[:, 0]
    return mine / kernel.sum(1).clamp(min=1e-300) * (2 * mine).clamp(max=1)


@tensor_reward(bounds=(-torch.inf, 1), needs=NEEDS)
def near_less_overflow(rollouts: Rollouts) -> Tensor:
    """Nearness of the image clipped to the range of pixels, less a cost for what was clipped."""
    pixels, label = asked(rollouts)
    return nearness(pixels.clamp(-1, 1), label) - (pixels.abs() - 1).clamp(min=0).mean(1).double()


@tensor_reward(bounds=(0, 1), needs=NEEDS)
def straight_nearness(rollouts: Rollouts) -> Tensor:
    """1 - d / 3 down to 0; it abstains for what is no image, with pixels out of range."""
    pixels, label = asked(rollouts)
    value = (1 - own(pixels, label).double() / FAR).clamp(min=0)
    return torch.where((pixels.abs() <= 1.001).all(1), value, torch.nan)


def _specimen(name: str, reward: Callable[[], Reward], about: str, defect: str = "", source: str = "") -> Specimen:
    return Specimen(name, reward, lambda: digit_as_asked, digits_asked_for, about, defect, source)


SPECIMENS = [
    _specimen(
        "sure-classifier",
        lambda: sure_classifier,
        "A classifier's probability, trusted far away from every digit it has seen.",
        "a classifier out of its distribution: images that are no digits have the highest probability",
        "Nguyen et al. 2014, arXiv 1412.1897",
    ),
    _specimen(
        "inked-template",
        lambda: inked_template,
        "The overlap with a template, which only counts ink that is missing: a black square has it all.",
        "overlap without a cost for superfluous ink: an image full of ink is paid in full",
    ),
    _specimen(
        "cosine-to-mean",
        lambda: cosine_to_mean,
        "A cosine with the mean digit: a ghost of it, hardly visible, is as good as the digit.",
        "blind to scale: a faint shadow without readable ink is paid more than a real digit",
    ),
    _specimen(
        "any-digit",
        lambda: any_digit,
        "How much the image looks like a digit, and not which one.",
        "ignores the label that was asked for: one good digit answers every request",
        "mode collapse under a reward of realism alone",
    ),
    _specimen(
        "share-of-the-best",
        lambda: share_of_the_best,
        "Nearness relative to the batch, though it is declared of each image by itself: of nothing but noise one gets 1.",
        "the value depends on the other rows though it is declared of each by itself",
    ),
    _specimen("near-its-kind", lambda: near_its_kind, "Nearness to the real images of the label, dense and flat at neither end."),
    _specimen(
        "classifier-where-near",
        lambda: sure_enough.gate(on=near_its_kind, above=0.65),
        "A classifier again, but heard only within a distance of 1.3 from real digits of the label.",
    ),
    _specimen(
        "density-of-its-kind",
        lambda: density_of_its_kind,
        "A posterior times a likelihood: which digit it is, and whether it is one.",
    ),
    _specimen(
        "near-less-overflow",
        lambda: near_less_overflow,
        "Nearness with a cost for pixels out of range, which has no lower bound and never pays.",
    ),
    _specimen(
        "straight-nearness",
        lambda: straight_nearness,
        "A straight line of the distance, that abstains where there is no image to judge.",
    ),
]
