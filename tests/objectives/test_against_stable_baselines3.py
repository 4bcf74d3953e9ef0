# SPDX-License-Identifier: Apache-2.0
"""Side by side with Stable-Baselines3: one real PPO update on CartPole moves every parameter by our gradient."""

import numpy as np
import pytest
import torch

from guerdon.credit import whiten
from guerdon.objectives import clipped_surrogate, entropy_bonus, token_mean, value_loss

sb3 = pytest.importorskip("stable_baselines3")


@pytest.mark.filterwarnings("ignore")
def test_ppo_update():
    rate, steps = 0.01, 64
    how = {"n_steps": steps, "batch_size": steps, "n_epochs": 1, "ent_coef": 0.05, "vf_coef": 0.5, "clip_range": 0.1}
    ppo = sb3.PPO(
        "MlpPolicy",
        "CartPole-v1",
        learning_rate=rate,
        max_grad_norm=1e9,
        seed=0,
        device="cpu",
        policy_kwargs={"optimizer_class": torch.optim.SGD, "net_arch": [8]},
        **how,
    )
    _, callback = ppo._setup_learn(steps)
    ppo.collect_rollouts(ppo.env, callback, ppo.rollout_buffer, steps)
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():  # step away from the policy that sampled, so that the ratio clips
        for p in ppo.policy.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=g))

    buffer = ppo.rollout_buffer
    observation = torch.as_tensor(buffer.observations[:, 0])
    action = torch.as_tensor(buffer.actions[:, 0]).long().flatten()
    old, advantage, returns = (torch.as_tensor(x).T for x in (buffer.log_probs, buffer.advantages, buffer.returns))
    value, log_prob, entropy = (x.reshape(1, steps) for x in ppo.policy.evaluate_actions(observation, action))
    yes = torch.ones(1, steps, dtype=torch.bool)
    surrogate = clipped_surrogate(log_prob, old, whiten(advantage, yes), yes, clip_low=0.1, clip_high=0.1)
    terms = ((1.0, surrogate), (1.0, value_loss(value, returns, yes)), (0.05, entropy_bonus(entropy, yes)))
    loss = sum(weight * token_mean(term, steps) for weight, term in terms)  # their 0.5 times the square is our half square
    before = {name: p.detach().clone() for name, p in ppo.policy.named_parameters()}
    gradient = dict(zip(before, torch.autograd.grad(loss, list(ppo.policy.parameters())), strict=True))

    ppo.train()
    for name, p in ppo.policy.named_parameters():
        assert gradient[name].abs().max() > 1e-3, name
        torch.testing.assert_close((before[name] - p.detach()) / rate, gradient[name], rtol=1e-3, atol=2e-5)
    logged = ppo.logger.name_to_value
    total, count = surrogate.metrics["approx_kl"]
    assert (total / count).item() == pytest.approx(logged["train/approx_kl"], rel=1e-4)
    assert loss.item() == pytest.approx(logged["train/loss"], rel=1e-5)
    clipped = sum((surrogate.metrics[k][0] / steps).item() for k in ("clip_low", "clip_high"))
    assert 0 < clipped <= logged["train/clip_fraction"]  # theirs counts steps that are outside on the harmless side too
    assert np.isfinite(loss.item())
