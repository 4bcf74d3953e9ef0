# SPDX-License-Identifier: Apache-2.0
"""Paper fit: eight published methods written with library parts on Rollouts, Scores and Comparisons built by hand. No training.

Each is about twenty lines and is compared with the paper's own formula on the same numbers. They are the cheapest way to learn
whether the shapes carry what papers need: token, segment, turn, environment-action and denoising-step levels, several components,
learned rewards, preference data with a second role, search trees, bilevel gradients and trees grown on output gradients.
"""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.nn.functional import logsigmoid
from torch.testing import assert_close

from guerdon import levels
from guerdon.comparisons import Comparisons
from guerdon.credit import gae, group_relative, return_to_go, weighted_sum, whiten
from guerdon.objectives import bradley_terry, clipped_surrogate, dpo, kl_penalty, reinforce, token_mean, value_loss
from guerdon.rollouts import Rollouts
from guerdon.scores import component, scores_of


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def tokens(rows: int, length: int, seed: int = 0, **more) -> Rollouts:
    """Rollouts of random tokens, every step taken by the policy."""
    g = torch.Generator().manual_seed(seed)
    log_prob = -torch.rand(rows, length, generator=g)
    mask = torch.ones(rows, length, dtype=torch.bool)
    action = torch.randint(0, 9, (rows, length), generator=g)
    return Rollouts(action, mask, task=more.pop("task", ["x"] * rows), log_prob=log_prob, **more)


def test_prime() -> None:
    """PRIME (arXiv 2502.01456): a language model trained as an outcome classifier; its per-token log-ratio is a dense reward.

    r(y_t) = beta log pi_phi / pi_ref; advantage = return-to-go of (r - the mean of the other answers' mean r) + RLOO(outcome).
    """
    r, beta = tokens(4, 3), 0.05
    log_prob_phi, ref_log_prob = r.log_prob + torch.randn(4, 3), r.log_prob
    outcome = torch.tensor([[1.0], [0.0], [0.0], [1.0]])

    scores = scores_of(
        r,
        [
            component("outcome", "episode", outcome),
            component("process", "step", beta * (log_prob_phi - ref_log_prob), spread="copy"),
        ],
    )
    rewards = scores.rewards()
    per_answer = levels.pool(rewards["process"], r.level("episode"), "mean")[:, 0]
    others = (per_answer.sum() - per_answer) / 3
    parts = {
        "outcome": group_relative(rewards["outcome"], r.mask, r.group, baseline="leave_one_out"),
        "process": return_to_go(rewards["process"] - others[:, None], r.mask, r.level("episode")),
    }
    advantage = whiten(weighted_sum(parts, {"outcome": 1.0, "process": 1.0}), r.mask)
    loss = clipped_surrogate(r.log_prob, r.log_prob, advantage, r.mask)

    assert_close(parts["outcome"][:, 0], outcome[:, 0] - (2 - outcome[:, 0]) / 3)
    r0 = beta * (log_prob_phi - ref_log_prob)
    assert_close(parts["process"][1, 1], r0[1, 1:].sum() - 2 * (r0.mean(1).sum() - r0[1].mean()) / 3)
    assert_close(token_mean(loss, token_mean.count(loss.mask)), -advantage.mean())
    # The classifier itself: BCE of the answer's summed log-ratio against its outcome is a pair loss against a reference of 0.
    q = levels.pool(log_prob_phi - ref_log_prob, r.level("episode"))[:, 0] * beta
    index = torch.arange(4)
    bce = bradley_terry(torch.cat([q, torch.zeros(4)]), index, index + 4, outcome[:, 0])
    assert_close(bce.value, torch.nn.functional.binary_cross_entropy_with_logits(q, outcome[:, 0], reduction="none"))


def test_fine_grained_rlhf() -> None:
    """Fine-Grained RLHF (arXiv 2306.01693): reward models with their own segmentations, paid at segments' ends, PPO with GAE.

    r_t = sum_k sum_j 1[t = end of segment j of model k] w_k R_k(j) - beta log pi / pi_ref.
    """
    clause = torch.tensor([[0, 0, 1, 1, 2, 2]])  # sub-sentences
    sentence = torch.tensor([[0, 0, 0, 0, 1, 1]])  # the two levels are segmentations of their own
    r = tokens(1, 6, levels={"clause": clause, "sentence": sentence})
    ref_log_prob, value = r.log_prob - 0.1, torch.linspace(0, 1, 6)[None]

    scores = scores_of(
        r,
        [
            component("relevance", "clause", torch.tensor([[0.3, -0.3, 0.3]]), weight=0.5),
            component("factuality", "sentence", torch.tensor([[0.5, -0.5]])),
            component("completeness", "episode", torch.tensor([[0.2]])),
            component("kl", "step", r.log_prob - ref_log_prob, weight=-0.3, spread="copy"),
        ],
    )
    reward = scores.reward()
    done = torch.tensor([[False] * 5 + [True]])
    advantage = gae(reward, value, r.mask, r.level("episode"), done, ~done & False, gamma=1.0, lam=0.95)

    by_hand = torch.tensor([[0, 0.15, 0, -0.15 + 0.5, 0, 0.15 - 0.5 + 0.2]]) - 0.3 * 0.1
    assert_close(reward, by_hand)
    delta = by_hand + torch.cat([value[:, 1:], torch.zeros(1, 1)], 1) - value
    assert_close(advantage[0, 4], delta[0, 4] + 0.95 * delta[0, 5])
    assert_close(value_loss(value, advantage + value, r.mask).value, advantage**2 / 2)


def test_srpo() -> None:
    """SRPO (arXiv 2406.01660): a generator and a reviser in one network, two regressions on log-ratios of the same pairs.

    The exact solutions q*(y2|y1) ~ pi_ref exp(P(y2 > y1) / beta) and pi*(y) ~ pi_ref(y) / Z(y) make both residuals zero.
    """
    beta, answers = 0.7, 5
    p = torch.rand(answers, answers, generator=torch.Generator().manual_seed(1))
    p = p / (p + p.T)  # P[i, j]: probability that i is better than j; not transitive
    ref = torch.softmax(torch.randn(answers, generator=torch.Generator().manual_seed(2)), 0)
    unnormalised = ref[:, None] * torch.exp(p / beta)  # [y2, y1]
    revise = (unnormalised / unnormalised.sum(0)).log()
    generate = (ref / unnormalised.sum(0)).log().log_softmax(0)

    # One row per (draft, answer): the same action under the context `draft` (reviser) or none (generator).
    first, second = torch.meshgrid(torch.arange(answers), torch.arange(answers), indexing="ij")
    pairs = Comparisons(first.flatten(), second.flatten(), p[first, second].flatten())
    y2, y1 = pairs.first[:, 0], pairs.second[:, 0]
    gain = revise - ref.log()[:, None]  # g(y2 | y1)
    elsewhere = generate - ref.log()  # e(y)
    wanted = pairs.target - 0.5
    reviser = (wanted - beta * (gain[y2, y1] - gain[y1, y1])) ** 2
    generator = (wanted - beta / 2 * (gain[y2, y1] - gain[y1, y2] + elsewhere[y2] - elsewhere[y1])) ** 2

    assert reviser.max() < 1e-28 and generator.max() < 1e-28
    swapped = pairs.swapped()
    assert_close(swapped.target + pairs.target, torch.ones(answers**2))


def test_reinflow() -> None:
    """ReinFlow (arXiv 2505.22094): PPO on the noisy Euler chain of a flow policy. A step is a denoising step; K make an action.

    log pi(a^0..a^K | s) = log N(a^0) + sum_k log N(a^{k+1}; a^k + v dt, sigma_k^2); GAE runs per environment action.
    """
    k, actions, dims = 2, 3, 2
    action_level = torch.tensor([[0, 0, 1, 1, 2, 2]])
    chain = torch.randn(1, k * actions, dims, generator=torch.Generator().manual_seed(0))
    mean, sigma = chain + 0.1, torch.full((1, k * actions, dims), 0.2)
    log_prob = torch.distributions.Normal(mean, sigma).log_prob(chain).sum(-1)  # summed over action dimensions
    done = torch.tensor([[False] * 5 + [True]])
    r = Rollouts(chain, torch.ones(1, 6, dtype=torch.bool), ["hopper"], log_prob, done, levels={"action": action_level})

    reward = scores_of(r, [component("return", "action", torch.tensor([[1.0, 0.5, 2.0]]))]).reward()
    value = torch.tensor(
        [[0.1, 9.0, 0.2, 9.0, 0.3, 9.0]]
    )  # the critic reads the state, so only the first of an action's steps counts
    advantage = gae(reward, value, r.mask, r.level("episode"), done, r.truncated, gamma=0.99, lam=0.95, level=r.level("action"))
    loss = clipped_surrogate(
        log_prob + 0.01, log_prob, advantage, r.mask, clip_low=0.01, clip_high=0.01, level=action_level, ratio="sum"
    )

    d = [1.0 + 0.99 * 0.2 - 0.1, 0.5 + 0.99 * 0.3 - 0.2, 2.0 - 0.3]
    a = [d[0] + 0.9405 * (d[1] + 0.9405 * d[2]), d[1] + 0.9405 * d[2], d[2]]
    assert_close(advantage, torch.tensor([[a[0], a[0], a[1], a[1], a[2], a[2]]]))
    assert_close(loss.value[0, 0], torch.tensor(-min(np.exp(0.02) * a[0], 1.01 * a[0])))  # the joint ratio of the action's chain


def test_rstar_math() -> None:
    """rStar-Math (arXiv 2501.04519): a search tree as rows with parents; step values from leaves; pairs under one prefix.

    PPM loss: -(1 / (n_pos n_neg)) sum log sigmoid(r(x, y+) - r(x, y-)).
    """
    # Row 0 is the root's first step; 1 and 2 fork from it, 3 and 4 from 1. Each row holds the steps after its fork.
    step = torch.tensor([[0, -1], [0, -1], [0, 1], [0, -1], [0, -1]])
    parent = torch.tensor([[-1, -1], [0, 0], [0, 0], [1, 0], [1, 0]])
    tree = tokens(5, 2, levels={"node": step}, parent=parent).replace(length=torch.tensor([1, 1, 2, 1, 1]))
    leaf = {2: -1.0, 3: 1.0, 4: -1.0}  # outcome of each finished answer
    total, visits = torch.zeros(5), torch.zeros(5)
    for row, outcome in leaf.items():
        at = row
        while at >= 0:
            total[at] += outcome
            visits[at] += 1
            at = int(tree.parent[at, 0])
    q = component("q", "node", torch.stack([total / visits, torch.full((5,), torch.nan)], 1))
    assert_close(q.values[:2, 0], torch.tensor([-1 / 3, 0.0]))

    # Pairs between siblings: same parent, margin of Q at least 0.5, better first.
    value = q.values[:, 0]
    same_prefix = (tree.parent[:, None] == tree.parent[None]).all(-1)
    first, second = (same_prefix & (value[:, None] - value[None] >= 0.5)).nonzero(as_tuple=True)
    pairs = Comparisons(first, second, torch.ones(len(first)), level="node", margin=value[first] - value[second])
    assert pairs.first[:, 0].tolist() == [1, 3] and pairs.second[:, 0].tolist() == [2, 4]
    ppm = torch.tanh(torch.tensor([0.1, 0.4, -0.2, 0.9, 0.3]))
    loss = bradley_terry(ppm, pairs.first[:, 0], pairs.second[:, 0], pairs.target)
    assert_close(loss.value.mean(), -(logsigmoid(ppm[1] - ppm[2]) + logsigmoid(ppm[3] - ppm[4])) / 2)


def test_constrained_rlhf() -> None:
    """Constrained RLHF (arXiv 2310.04373): a value head per reward, advantages mixed by learned multipliers.

    A = (N - sum_i m_i) A_KL + sum_i m_i A_i, m = sigmoid(l); the multipliers descend on sum_i m_i (J_i - theta_i).
    """
    r = tokens(3, 4)
    done = torch.tensor([[False] * 3 + [True]] * 3)
    ref_log_prob = r.log_prob - 0.2
    names, threshold = ("meteor", "intent"), torch.tensor([0.238, 0.44])
    parts = [component(n, "episode", torch.rand(3, 1, generator=torch.Generator().manual_seed(i))) for i, n in enumerate(names)]
    scores = scores_of(r, [*parts, component("kl", "step", ref_log_prob - r.log_prob, spread="copy")])
    value = {n: torch.full((3, 4), 0.1 * i) for i, n in enumerate((*names, "kl"))}  # one head per component
    advantage = {
        n: whiten(gae(x, value[n], r.mask, r.level("episode"), done, r.truncated, lam=0.95), r.mask)
        if n != "kl"
        else torch.zeros(3, 4)
        for n, x in scores.rewards().items()
    }
    multiplier = torch.zeros(2, requires_grad=True)
    m = torch.sigmoid(multiplier)
    mixed = weighted_sum(advantage, {"meteor": m[0], "intent": m[1], "kl": 2 - m.sum()})
    loss = clipped_surrogate(r.log_prob, r.log_prob, mixed.detach(), r.mask)
    episode_return = scores.at("episode")[:, 0].mean(0)
    (m * (episode_return - threshold)).sum().backward()

    assert_close(mixed, (advantage["meteor"] + advantage["intent"]) / 2)
    assert_close(
        multiplier.grad, 0.25 * (episode_return - threshold)
    )  # below its target: the gradient is negative, the weight rises
    assert loss.value.shape == (3, 4) and scores.at("episode").shape == (3, 1, 2)


def test_barfi() -> None:
    """BARFI (arXiv 2310.19007): a reward r_phi = phi1 r_p + phi2 r_aux learned through the policy it trains.

    d J / d phi = -(grad_theta J) H^-1 A, with the inner fixed point 0 = E[sum_t grad log pi G_t(r_phi)] - lambda theta.
    A one-state bandit, where the inner solution and so the gradient can be had by finite differences.
    """
    primary, helper = torch.tensor([1.0, 0.0, 0.2]), torch.tensor([0.0, 1.0, 0.3])
    every = torch.arange(3)[:, None]  # one row per action, weighed by its probability: the expectation is exact
    r = Rollouts(every, torch.ones(3, 1, dtype=torch.bool), ["bandit"] * 3)

    def expected(theta: torch.Tensor, reward: torch.Tensor) -> torch.Tensor:
        log_prob = theta.log_softmax(0)[:, None]
        advantage = return_to_go(reward[:, None], r.mask, r.level("episode"))
        loss = reinforce(log_prob, advantage, r.mask)
        return -(loss.value[:, 0] * log_prob[:, 0].exp().detach()).sum()

    def fixed_point(theta: torch.Tensor, phi: torch.Tensor) -> torch.Tensor:
        """Delta(theta, phi) = sum_a pi(a) grad log pi(a) r_phi(a) - lambda theta, differentiable in both."""
        p = theta.softmax(0)
        reward = phi[0] * primary + phi[1] * helper
        return p * (reward - (p * reward).sum()) - 0.5 * theta

    def solve(phi: torch.Tensor) -> torch.Tensor:
        theta = torch.zeros(3)
        for _ in range(400):
            theta = theta + 0.5 * fixed_point(theta, phi)
        return theta

    phi = torch.tensor([0.6, 0.4])
    theta = solve(phi).requires_grad_()
    surrogate_gradient = torch.autograd.grad(expected(theta, phi[0] * primary + phi[1] * helper), theta)[0]
    assert_close(
        surrogate_gradient - 0.5 * theta.detach(), torch.zeros(3), atol=1e-12, rtol=0
    )  # REINFORCE's part is the inner update

    h, a = torch.autograd.functional.jacobian(fixed_point, (theta.detach(), phi))
    outer = torch.autograd.grad((theta.softmax(0) * primary).sum(), theta)[0]
    hypergradient = -(outer @ torch.linalg.solve(h, a))

    def objective(phi: torch.Tensor) -> float:
        return float((solve(phi).softmax(0) * primary).sum())

    e = torch.eye(2) * 1e-5
    numeric = torch.tensor([(objective(phi + d) - objective(phi - d)) / 2e-5 for d in e])
    assert_close(hypergradient, numeric, atol=1e-7, rtol=1e-5)


def test_gbrl_boosted_trees() -> None:
    """GBRL (arXiv 2407.08250): the loss is differentiated to the policy's *outputs*, and a tree is fitted to that gradient.

    F <- F - eta T, T fitted to dL/dF(s_i); here a stump on one feature, leaf value = mean gradient.
    """
    state = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
    action = torch.tensor([[0], [0], [1], [1]])
    output = torch.zeros(4, 3, requires_grad=True)  # two logits and a value per state, from the ensemble so far
    r = Rollouts(
        action,
        torch.ones(4, 1, dtype=torch.bool),
        ["cart"] * 4,
        torch.full((4, 1), -np.log(2.0)),
        torch.ones(4, 1, dtype=torch.bool),
    )
    reward = scores_of(r, [component("return", "step", torch.tensor([[1.0], [1.0], [-1.0], [1.0]]), spread="copy")]).reward()

    def loss(output: torch.Tensor) -> torch.Tensor:
        log_prob = output[:, :2].log_softmax(1).gather(1, r.action)
        value = output[:, 2:]
        advantage = gae(reward, value.detach(), r.mask, r.level("episode"), r.terminated, r.truncated, gamma=0.99, lam=0.95)
        terms = (
            clipped_surrogate(log_prob, r.log_prob, advantage, r.mask),
            value_loss(value, advantage + value.detach(), r.mask),
        )
        return sum(token_mean(t, token_mean.count(t.mask)) for t in terms)

    before = loss(output)
    before.backward()
    gradient = output.grad * 4  # per sample, as the loss is a mean
    left = state[:, 0] < 0
    tree = torch.where(left[:, None], gradient[left].mean(0), gradient[~left].mean(0))
    assert_close(tree[0], torch.tensor([-0.5, 0.5, -1.0]))  # states on the left: action 0 was good, the value too low
    assert_close(tree[3], torch.tensor([0.0, 0.0, 0.0]))  # on the right +1 and -1 cancel: one stump cannot tell them apart
    assert loss((output - 0.1 * tree).detach()) < before


def test_pairs_of_steps() -> None:
    """The pair losses take units of any level, so a preference between steps is the same function as one between answers."""
    level = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1]])
    r = tokens(2, 4, levels={"line": level})
    ref_log_prob = r.log_prob - torch.rand(2, 4)
    pair = Comparisons(torch.tensor([[0, 1]]), torch.tensor([[1, 1]]), torch.tensor([1.0]), level="line")
    loss = dpo(r.log_prob, ref_log_prob, r.mask, pair.first, pair.second, pair.target, beta=0.5, level=level)
    ratio = levels.pool(r.log_prob - ref_log_prob, level)
    assert_close(loss.value[0], -logsigmoid(0.5 * (ratio[0, 1] - ratio[1, 1])))
    assert kl_penalty(r.log_prob, ref_log_prob, r.mask).value.min() >= 0
