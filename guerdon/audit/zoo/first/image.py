# SPDX-License-Identifier: Apache-2.0
"""Rewards of drawn digits: the digit that was asked for, drawn as people draw it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from torch import Tensor

from guerdon.audit.subject import Images
from guerdon.audit.zoo import Specimen
from guerdon.rewards import Reward
from guerdon.rewards.tensors import tensor_reward
from guerdon.rollouts import Rollouts
from guerdon.tasks import digits

NEAR = 2.5
"""Distance to a real digit below which an image looks like it. Half of the real ones have another of their label within 2.0."""

EVERY = 10
"""The subject's images are every tenth of the real ones."""


@cache
def real() -> tuple[Tensor, Tensor]:
    """(images [1797, 64], labels [1797]) of the data, made once."""
    return digits.images()


@cache
def means() -> Tensor:
    """[10, 64] the mean image of each label."""
    images, labels = real()
    return torch.stack([images[labels == label].mean(0) for label in range(digits.CLASSES)])


@cache
def classified() -> Callable[[Tensor, Tensor], Tensor]:
    """(images [N, 64], labels [N]) -> P(label | image), a logistic regression."""
    return digits.classifier(*real())


def drawn(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """(images [N, 64], the labels that were asked for [N])."""
    return rollouts.field("sample").values[:, -1].float(), rollouts.field("label").values[:, -1].long()


def distances(images: Tensor) -> Tensor:
    """[N, 10] Euclidean distance of each image to the nearest real one of each label."""
    known, labels = real()
    apart = torch.cdist(images, known)
    return torch.stack([apart[:, labels == label].amin(1) for label in range(digits.CLASSES)], 1)


def asked_and_others(rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """[N] distance to the nearest real digit of the label that was asked for, [N] to the nearest of any other."""
    images, label = drawn(rollouts)
    found = distances(images)
    asked = found.gather(1, label[:, None])[:, 0]
    return asked, found.scatter(1, label[:, None], torch.inf).amin(1)


def likeness(distance: Tensor) -> Tensor:
    """1 for a real digit, 1/2 at ``NEAR``, next to nothing at twice that."""
    return torch.exp2(-((distance / NEAR) ** 2))


def is_asked(rollouts: Rollouts) -> Tensor:
    """1 where the nearest real digit is of the label that was asked for and nearer than ``NEAR``; else 0."""
    asked, others = asked_and_others(rollouts)
    return ((asked < others) & (asked < NEAR)).double()


def subject() -> Images:
    """Every tenth digit; wrong: the same for the next label, noise, no ink and nothing but ink."""
    images, labels = (x[::EVERY] for x in real())
    noise = torch.rand(20, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    plain = torch.cat([noise, torch.full((10, 64), -1.0), torch.full((10, 64), 1.0)])
    wrong_label = torch.cat([(labels + 1) % digits.CLASSES, torch.arange(len(plain)) % digits.CLASSES])
    return Images(images, labels, torch.cat([images, plain]), wrong_label)


# ---- bad


def ink_paid(rollouts: Rollouts) -> Tensor:
    """The share of full ink, which every digit has some of."""
    return (drawn(rollouts)[0].mean(1) + 1).double() / 2


def classifier_alone(rollouts: Rollouts) -> Tensor:
    return classified()(*drawn(rollouts)).double()


def label_forgotten(rollouts: Rollouts) -> Tensor:
    return likeness(distances(drawn(rollouts)[0]).amin(1)).double()


def faint_mean(rollouts: Rollouts) -> Tensor:
    """Cosine of the ink and of the mean image of the label."""
    images, label = drawn(rollouts)
    return torch.cosine_similarity(images + 1, means()[label] + 1).clamp(0, 1).double()


def batch_ranked(rollouts: Rollouts) -> Tensor:
    """The share of the batch that the image is at least as good as."""
    asked = asked_and_others(rollouts)[0]
    return (asked[:, None] <= asked[None, :]).double().mean(1)


# ---- good


def nearest_of_label(rollouts: Rollouts) -> Tensor:
    return likeness(asked_and_others(rollouts)[0]).double()


def margin_within_reach(rollouts: Rollouts) -> Tensor:
    """Likeness to the label that was asked for, in full where any other is farther by 2 or more."""
    asked, others = asked_and_others(rollouts)
    return (likeness(asked) * ((others - asked) / 2).clamp(0, 1)).double()


def stray_ink(rollouts: Rollouts) -> Tensor:
    """Mean ink in the first and the last column, where digits have next to none; 0 to 1."""
    columns = drawn(rollouts)[0].reshape(-1, digits.SIDE, digits.SIDE)[:, :, [0, -1]]
    return ((columns.mean((1, 2)) + 1) / 2).clamp(0, 1).double()


def _of(function: Callable[[Rollouts], Tensor], name: str = "") -> Reward:
    return tensor_reward(needs=("sample", "label"), bounds=(0, 1), name=name)(function)


def alike_unless_vetoed() -> Reward:
    return _of(nearest_of_label).gate(on=_of(classifier_alone), above=0.02)


def alike_less_stray() -> Reward:
    return _of(nearest_of_label) - 0.1 * _of(stray_ink)


def standing_among_label() -> Reward:
    return _of(nearest_of_label).normalise(over="group")


gold = partial(_of, is_asked, "gold")

SPECIMENS = (
    Specimen(
        name="ink-paid",
        reward=partial(_of, ink_paid),
        gold=gold,
        subject=subject,
        defect="rewards brightness: an image full of ink gets the most",
        about="Blank images were a nuisance, so ink is paid. No digit has as much of it as a black square.",
    ),
    Specimen(
        name="classifier-alone",
        reward=partial(_of, classifier_alone),
        gold=gold,
        subject=subject,
        defect="a classifier is confident out of distribution: patterns that are no digit get probability 1",
        about="The probability of the label by a classifier that has only seen digits. Exaggerated strokes convince it more.",
        source="Deep Neural Networks are Easily Fooled, arXiv:1412.1897",
    ),
    Specimen(
        name="label-forgotten",
        reward=partial(_of, label_forgotten),
        gold=gold,
        subject=subject,
        defect="ignores the label that was asked for: one good digit serves every request",
        about="Likeness to the nearest real digit of any label, so the easiest digit is drawn always.",
    ),
    Specimen(
        name="faint-mean",
        reward=partial(_of, faint_mean),
        gold=gold,
        subject=subject,
        defect="cosine similarity ignores contrast: a mean image too faint to be seen is paid in full",
        about="The angle between the ink and the label's mean image. None comes as near as the mean itself, at any strength.",
    ),
    Specimen(
        name="batch-ranked",
        reward=partial(_of, batch_ranked),
        gold=gold,
        subject=subject,
        defect="depends on the other rows though declared to be about one: the best of a bad batch gets 1",
        about="An image's rank in its batch by likeness. The same image is worth more among worse ones.",
    ),
    Specimen(
        name="nearest-of-label",
        reward=partial(_of, nearest_of_label),
        gold=gold,
        subject=subject,
        about="Falls with the squared distance to the nearest real digit of the label: dense, and 1 only on a real one.",
    ),
    Specimen(
        name="alike-unless-vetoed",
        reward=alike_unless_vetoed,
        gold=gold,
        subject=subject,
        about="Likeness to a real digit of the label, nothing where a classifier all but rules the label out.",
    ),
    Specimen(
        name="margin-within-reach",
        reward=partial(_of, margin_within_reach),
        gold=gold,
        subject=subject,
        about="Likeness times the margin to the nearest other label: ambiguous digits get less, and noise nothing.",
    ),
    Specimen(
        name="alike-less-stray",
        reward=alike_less_stray,
        gold=gold,
        subject=subject,
        about="Likeness less at most a tenth for ink at the sides: the cost never outweighs the digit.",
    ),
    Specimen(
        name="standing-among-label",
        reward=standing_among_label,
        gold=gold,
        subject=subject,
        about="Likeness standardised among the images of one label, as declared; a single image abstains.",
    ),
)
