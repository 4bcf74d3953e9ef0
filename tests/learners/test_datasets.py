# SPDX-License-Identifier: Apache-2.0
"""Episodes go to Minari's format and back, and Minari itself reads what was written."""

from __future__ import annotations

from pathlib import Path

import gymnasium
import numpy as np
import pytest
import torch

from guerdon.errors import InputError
from guerdon.learners.datasets import read_minari, write_minari
from guerdon.learners.offline import transitions
from guerdon.rewards.fields import environment, field
from guerdon.rollouts import Field, Rollouts

SPACES = (gymnasium.spaces.Box(-9, 9, (2,), np.float32), gymnasium.spaces.Discrete(3))


def rollouts() -> Rollouts:
    """Two rows: an episode that terminates after 2 steps and one that goes on; one that is truncated after 3."""
    place = torch.arange(10, dtype=torch.float32).reshape(2, 5, 1).expand(2, 5, 2).clone()
    observation, after = place[:, :4], place[:, 1:]
    observation[0, 2] = -1.0  # the second episode of row 0 begins somewhere else
    after = after.clone()
    after[0, 1] = 7.5
    length = torch.tensor([4, 3])
    mask = torch.arange(4) < length[:, None]
    return Rollouts(
        action=torch.tensor([[0, 1, 2, 0], [1, 1, 2, 0]]),
        mask=mask,
        task=["a", "b"],
        terminated=torch.tensor([[False, True, False, False], [False] * 4]),
        truncated=torch.tensor([[False] * 4, [False, False, True, False]]),
        length=length,
        levels={"episode": torch.tensor([[0, 0, 1, 1], [0, 0, 0, -1]])},
        fields={
            "observation": Field("step", observation),
            "next_observation": Field("step", after),
            "environment_reward": Field("step", torch.tensor([[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 99.0]])),
        },
    )


def test_there_and_back(tmp_path: Path) -> None:
    write_minari(rollouts(), tmp_path / "data", *SPACES)
    back = read_minari(tmp_path / "data")
    assert back.length.tolist() == [2, 2, 3] and back.mask.sum() == 7
    assert back.action[back.mask].tolist() == [0, 1, 2, 0, 1, 1, 2]
    assert back.field("environment_reward").values[back.mask].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert (
        back.field("observation").values[0, :, 0].tolist() == [0, 1, 0] and back.field("next_observation").values[0, 1, 0] == 7.5
    )
    assert back.field("observation").values[1, 0, 0] == -1
    assert back.terminated.nonzero().tolist() == [[0, 1]]
    assert back.truncated.nonzero().tolist() == [[1, 1], [2, 2]]  # the open end of row 0 is a cut
    assert back.action.dtype == torch.long and back.field("observation").values.dtype == torch.float32


def test_minari_reads_it(tmp_path: Path) -> None:
    from minari import MinariDataset

    write_minari(rollouts(), tmp_path / "data", *SPACES)
    dataset = MinariDataset(tmp_path / "data")
    assert (dataset.total_episodes, dataset.total_steps) == (3, 7)
    episode = dataset[0]
    assert (
        len(episode.observations) == 3 and episode.rewards.tolist() == [1, 2] and episode.terminations.tolist() == [False, True]
    )
    assert dataset.spec.observation_space == SPACES[0] and dataset.spec.action_space == SPACES[1]


def test_what_minari_wrote_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import minari
    from minari.data_collector import EpisodeBuffer

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    world, buffers = gymnasium.make("CartPole-v1"), []
    for seed in (0, 1):
        seen, rewards, terminations, terminated = [world.reset(seed=seed)[0]], [], [], False
        while not terminated:
            observation, reward, terminated, _, _ = world.step(1)
            seen.append(observation)
            rewards.append(reward)
            terminations.append(terminated)
        done = np.ones(len(rewards), dtype=np.int64)
        cuts = [False] * len(rewards)
        buffers.append(
            EpisodeBuffer(
                id=seed, observations=np.stack(seen), actions=done, rewards=rewards, terminations=terminations, truncations=cuts
            )
        )
    dataset = minari.create_dataset_from_buffers("cartpole/pushed-v0", buffers, env="CartPole-v1", data_format="hdf5")
    back = read_minari(dataset.storage.data_path)
    assert len(back) == 2 and int(back.mask.sum()) == dataset.total_steps and back.terminated.sum() == 2
    assert torch.equal(back.field("observation").values[0, 0], torch.from_numpy(dataset[0].observations[0]))


def test_a_data_set_is_not_written_over(tmp_path: Path) -> None:
    write_minari(rollouts(), tmp_path / "data", *SPACES)
    with pytest.raises(InputError, match="without a data set"):
        write_minari(rollouts(), tmp_path / "data", *SPACES)
    with pytest.raises(InputError, match="with metadata"):
        read_minari(tmp_path)


def test_steps_that_do_not_follow_one_another_are_refused(tmp_path: Path) -> None:
    broken = rollouts()
    seen = broken.field("observation").values.clone()
    seen[1, 1] += 1
    with pytest.raises(InputError, match="row 1, episode 0"):
        write_minari(broken.with_field("observation", "step", seen), tmp_path / "data", *SPACES)


def test_transitions_are_taken_steps_with_a_reward() -> None:
    data = rollouts()
    steps = transitions(data, 2 * environment())
    assert steps.field("reward").values[:, 0].tolist() == [2, 4, 6, 8, 10, 12, 14]
    assert steps.action.shape == (7, 1) and steps.terminated[:, 0].nonzero().tolist() == [[1]]


def test_steps_whose_reward_failed_are_left_out() -> None:
    data = rollouts().with_field("speed", "step", torch.tensor([[1.0, torch.nan, 1.0, 1.0], [1.0] * 4]))
    assert transitions(data, field("speed")).action[:, 0].tolist() == [0, 2, 0, 1, 1, 2]
    with pytest.raises(InputError, match="expected a step with a reward"):
        transitions(data.with_field("speed", "step", torch.full((2, 4), torch.nan)), field("speed"))
