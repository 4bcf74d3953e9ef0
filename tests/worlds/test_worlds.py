# SPDX-License-Identifier: Apache-2.0
"""Batched worlds: the vector interface, seeds, scripted policies with known returns, and what hacking pays."""

import itertools
from collections import deque

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers.vector import RecordEpisodeStatistics

from guerdon import worlds
from guerdon.errors import InputError, ShapeError
from guerdon.worlds import Table, expected_return, four_rooms, optimal_policy, policy_evaluation
from guerdon.worlds.ids import MAKE as IDS
from guerdon.worlds.ids import Single
from guerdon.worlds.sea import DEPTH, TREASURE, front
from guerdon.worlds.world import MOVES

MAKE = {
    "key_door": lambda n, limit=30: worlds.key_door(n, 5, limit),
    "boat_race": lambda n, limit=30: worlds.boat_race(n, limit=limit),
    "tomato_watering": lambda n, limit=30: worlds.tomato_watering(n, limit=limit),
    "side_effects": lambda n, limit=30: worlds.side_effects(n, limit=limit),
    "deep_sea_treasure": lambda n, limit=30: worlds.deep_sea_treasure(n, limit=limit),
    "table_world": lambda n, limit=30: worlds.table_world(four_rooms(), n, limit),
}
every_world = pytest.mark.parametrize("make", MAKE.values(), ids=MAKE)
UP, RIGHT, DOWN, LEFT = range(4)


def actions_for(world, steps, seed=0):
    return np.random.default_rng(seed).integers(0, world.single_action_space.n, (steps, world.num_envs))


def play(world, actions, seed=5):
    """[T, W, ...] of each: observations before the steps, then what the steps gave."""
    before, told = world.reset(seed=seed)[0], []
    for a in actions:
        observation, reward, terminated, truncated, info = world.step(a)
        told.append((before, reward, terminated, truncated, info))
        before = observation
    return [np.stack([t[i] for t in told]) for i in range(4)]


@every_world
def test_spaces_flags_and_resets_are_as_gymnasium_says(make):
    world = make(9)
    assert world.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    observation, info = world.reset(seed=1)
    assert world.observation_space.contains(observation) and info == {}
    ends = np.zeros(9, dtype=int)
    age = np.zeros(9, dtype=int)
    for a in actions_for(world, 200):
        assert world.action_space.contains(a)
        observation, reward, terminated, truncated, info = world.step(a)
        age += 1
        assert world.observation_space.contains(observation)
        assert np.array_equal(observation, world.observe(slice(None)))  # of the new episode, where one ended
        assert reward.shape == terminated.shape == truncated.shape == (9,)
        assert reward.dtype == np.float64 and terminated.dtype == truncated.dtype == bool
        assert not (terminated & truncated).any()
        ended = terminated | truncated
        assert np.array_equal(truncated, (age == 30) & ~terminated)
        assert ("final_obs" in info) == ended.any()
        if ended.any():
            assert np.array_equal(info["_final_obs"], ended) and world.observation_space.contains(info["final_obs"])
            assert np.array_equal(info["final_obs"][~ended], observation[~ended])
        names = [k for k in info if k[0] != "_" and not k.startswith("final")]
        assert all(len(info[k]) == 9 and info[f"_{k}"].all() for k in names)
        ends += ended
        age[ended] = 0
    assert (ends >= 6).all()


@every_world
def test_the_final_observation_is_what_the_last_step_led_to(make):
    """A world that is cut sees at its cut what one that goes on sees, and its next episode begins elsewhere in its stream."""
    short, long = make(40, limit=4), make(40, limit=1000)
    actions = actions_for(short, 4)
    short.reset(seed=2)
    long.reset(seed=2)
    for a in actions[:3]:
        short.step(a)
        long.step(a)
    _, _, _, cut, info = short.step(actions[3])
    onward, *_ = long.step(actions[3])
    assert cut.sum() >= 10
    assert np.array_equal(info["final_obs"][cut], onward[cut])


@every_world
def test_seeds_reproduce_and_worlds_do_not_touch_each_other(make):
    actions = actions_for(make(6), 80)
    one, again, other = play(make(6), actions), play(make(6), actions), play(make(6), actions, seed=6)
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    fixed_start = np.array_equal(other[0], one[0])
    assert not fixed_start or isinstance(make(1), type(worlds.deep_sea_treasure(1)))  # nothing is drawn in the sea
    alone = play(make(1), actions[:, 3:4], seed=[5 + 3])
    assert all(np.array_equal(a[:, 3:4], b) for a, b in zip(one, alone, strict=True))
    world = make(3)
    starts = world.reset(seed=[7, 7, 8])[0]
    assert np.array_equal(starts[0], starts[1])


@every_world
def test_what_was_returned_is_not_written_to(make):
    world = make(7)
    kept = [world.reset(seed=0)[0]]
    for a in actions_for(world, 60):
        observation, reward, terminated, truncated, info = world.step(a)
        kept += [observation, reward, terminated, truncated, *(x for x in info.values() if isinstance(x, np.ndarray))]
        if len(kept) < 30:
            copies = [x.copy() for x in kept]
    assert all(np.array_equal(a, b) for a, b in zip(copies, kept[: len(copies)], strict=True))


@every_world
def test_a_saved_state_goes_on_as_it_was(make):
    world, actions = make(8), actions_for(make(8), 100)
    play(world, actions[:50])
    other = make(8)
    other.load_state_dict(world.state_dict())
    for a in actions[50:]:
        one, two = world.step(a), other.step(a)
        assert all(np.array_equal(x, y) for x, y in zip(one[:4], two[:4], strict=True))
    with pytest.raises(InputError, match="expected the state"):
        other.load_state_dict({"stream": world.stream})


@every_world
def test_gymnasiums_wrapper_counts_its_episodes(make):
    world = RecordEpisodeStatistics(make(5))
    world.reset(seed=0)
    total, lengths = np.zeros(5), []
    for a in actions_for(world, 120):
        _, reward, terminated, truncated, info = world.step(a)
        total += reward
        ended = terminated | truncated
        if ended.any():
            assert np.allclose(info["episode"]["r"][ended], total[ended]) and np.array_equal(info["_episode"], ended)
            lengths += info["episode"]["l"][ended].tolist()
            total[ended] = 0
    assert lengths and max(lengths) <= 30


@every_world
@pytest.mark.filterwarnings("ignore:.*:UserWarning:gymnasium")
def test_gymnasiums_checker_finds_nothing(make):
    check_env(Single(make), skip_render_check=True)


@pytest.mark.parametrize("name", IDS)
def test_a_world_has_an_id_of_gymnasiums_for_one_and_for_many(name):
    one, many = gymnasium.make(f"guerdon.worlds.ids:{name}", limit=20), gymnasium.make_vec(name, 3, limit=20)
    starts, start = many.reset(seed=4)[0], one.reset(seed=5)[0]
    assert np.array_equal(starts[1], start) and one.observation_space == many.single_observation_space
    for a in actions_for(many, 20):
        after, reward, terminated, truncated, info = one.step(a[1])
        observations, rewards, ended, cut, told = many.step(a)
        assert (reward, terminated, truncated) == (rewards[1], ended[1], cut[1])
        assert np.array_equal(after, told.get("final_obs", observations)[1])
        assert info.keys() == {k for k in told if k[0] != "_" and not k.startswith("final_")}
        assert all(np.array_equal(x, told[k][1]) for k, x in info.items())
        if terminated or truncated:
            break
    assert truncated or name == "DeepSeaTreasure-v0"


@every_world
def test_wrong_actions_are_refused(make):
    world = make(3)
    with pytest.raises(ShapeError, match=r"should have shape \[3\] and follow a reset, got \[3\] before any reset"):
        world.step(np.zeros(3, dtype=int))
    world.reset(seed=0)
    for bad in (np.array([0, 0, world.single_action_space.n]), np.array([0, -1, 0]), np.zeros(3)):
        with pytest.raises(InputError, match="actions should be integers of 0 to"):
            world.step(bad)
    with pytest.raises(ShapeError, match=r"should have shape \[3\]"):
        world.step(np.zeros((3, 1), dtype=int))
    with pytest.raises(InputError, match="expected a seed"):
        world.reset(seed=[1, 2])


def towards(from_, to):
    """[W] actions of a walk to ``to`` that goes along columns first, then rows."""
    rows, columns = (to - from_).T
    return np.where(columns > 0, RIGHT, np.where(columns < 0, LEFT, np.where(rows > 0, DOWN, UP)))


# ---- key, door, goal


def shortest(world, i):
    """Steps to the goal by breadth-first search over (row, column, has key)."""
    start = (*world.agent[i].tolist(), bool(world.has_key[i]))
    seen, queue = {start}, deque([(start, 0)])
    while queue:
        (row, column, has_key), steps = queue.popleft()
        if (row, column) == tuple(world.goal[i]):
            return steps
        for dr, dc in MOVES.tolist():
            r, c = row + dr, column + dc
            if not (0 <= r < world.size and 0 <= c < world.size):
                continue
            if c == world.wall[i] and not (r == world.door[i] and has_key):
                continue
            state = (r, c, has_key or (r, c) == tuple(world.key[i]))
            if state not in seen:
                seen.add(state)
                queue.append((state, steps + 1))
    raise AssertionError("no way to the goal")


@pytest.mark.parametrize("size", [3, 4, 6, 11])
def test_the_distance_is_that_of_the_shortest_way(size):
    world = worlds.key_door(64, size)
    world.reset(seed=size)
    assert world.distance().tolist() == [shortest(world, i) for i in range(64)]
    for a in actions_for(world, 60):
        *_, info = world.step(a)
        ended = info.get("_final_obs", np.zeros(64, dtype=bool))
        fresh = world.distance()
        assert np.array_equal(info["distance"][~ended], fresh[~ended])
        assert (world.has_key | (world.agent[:, 1] < world.wall)).all()  # without the key the door is shut
    assert world.distance().tolist() == [shortest(world, i) for i in range(64)]


@pytest.mark.parametrize("size", [3, 5, 8, 16])
def test_key_then_door_then_goal_is_paid_1_after_the_shortest_way(size):
    world = worlds.key_door(200, size)
    world.reset(seed=1)
    expected, taken, done = world.distance(), np.zeros(200), np.full(200, -1)
    for step in range(1, expected.max() + 1):
        in_left = world.agent[:, 1] < world.wall
        door, before = np.stack([world.door, world.wall], 1), np.stack([world.door, world.wall - 1], 1)
        at_door = (world.agent == before).all(1)
        goal = np.where(in_left[:, None], np.where(at_door[:, None], door, before), world.goal)
        through = world.agent[:, 1] == world.wall  # out of the door first, then along columns
        to = np.where((in_left & ~world.has_key)[:, None], world.key, goal)
        action = np.where(through, RIGHT, towards(world.agent, to))
        _, reward, terminated, truncated, info = world.step(action)
        first = done < 0
        assert np.array_equal(reward[first], terminated[first]) and not truncated[first].any()
        taken += info["key"] * first
        assert np.array_equal(info["distance"][first], (expected - step)[first])
        done[first & terminated] = step
    assert np.array_equal(done, expected) and (taken == 1).all()


# ---- worlds that can be hacked


def totals(world, policy, steps, seed=0):
    """Reward and true reward of the first ``steps``, summed per world."""
    world.reset(seed=seed)
    proxy, true = np.zeros(world.num_envs), np.zeros(world.num_envs)
    for t in range(steps):
        _, reward, _, _, info = world.step(policy(world, t))
        proxy, true = proxy + reward, true + info["true_reward"]
    return proxy, true


def always(action):
    return lambda world, t: np.full(world.num_envs, action)


def to_and_fro(world, t):
    """Drift up to a line, then over it and back."""
    before_line = world.place % world.spacing == world.spacing - 1
    on_line = world.place % world.spacing == 0
    return np.where(before_line, 0, np.where(on_line, 2, 0))


def test_the_boat_that_goes_to_and_fro_earns_more_and_gets_nowhere():
    world = worlds.boat_race(64)
    honest, laps = totals(world, always(1), 100)
    assert set(honest.tolist()) == {25.0} and np.allclose(laps, 200 / 32)
    hacked, nowhere = totals(worlds.boat_race(64), to_and_fro, 100)
    assert (hacked >= 46).all() and (hacked <= 51).all()
    assert (np.abs(nowhere) <= 7 / 32 + 1e-9).all()


def boat_table(world, gamma):
    """The race as a table, one row of places by stepping each of them once."""
    length = world.length
    transition, reward, true = np.zeros((length, 3, length)), np.zeros((length, 3)), np.zeros((length, 3))
    world.reset(seed=0)
    for a in range(3):
        world.place[:] = np.arange(length)
        _, reward[:, a], _, _, info = world.step(np.full(length, a))
        transition[np.arange(length), a, world.place] = 1
        true[:, a] = info["true_reward"]
    none, start = torch.zeros(length, dtype=torch.bool), torch.full((length,), 1 / length, dtype=torch.float64)
    return [Table(torch.tensor(transition), torch.tensor(r), start, gamma, none) for r in (reward, true)]


def test_the_best_policy_for_the_boats_reward_makes_no_laps():
    """Exactly, by value iteration: the optimum of what is paid is nearly worthless in what is meant, and below chance."""
    paid, meant = boat_table(worlds.boat_race(32, limit=1000), gamma=0.99)
    hack, honest = optimal_policy(paid), optimal_policy(meant)
    chance = torch.full((32, 3), 1 / 3, dtype=torch.float64)
    assert expected_return(paid, hack) > 1.9 * expected_return(paid, honest)
    assert expected_return(meant, hack) < 0.1 * expected_return(meant, chance) < 0.1 * expected_return(meant, honest)
    assert torch.equal(honest.argmax(1), torch.ones(32, dtype=torch.long))


def test_the_bucket_makes_every_tomato_look_watered():
    world = worlds.tomato_watering(2000)
    # up the path to the bucket, then stay
    proxy, true = totals(world, lambda w, t: np.where(w.agent.any(1), UP, 4), 100)
    assert ((proxy >= 98) & (proxy <= 100)).all()  # two steps of the way are outside the bucket
    decayed = sum(0.5 * 0.95 ** (t + 1) for t in range(100))  # half are watered at the start
    assert abs(true.mean() - decayed) < 4 * true.std() / np.sqrt(2000)


CYCLE = [(0, 1), (0, 2), (0, 3), (1, 3), (1, 2), (2, 2), (2, 3), (3, 3), (3, 2), (3, 1), (2, 1), (1, 1)]


def waters(world, t):
    """Round and round over the twelve tomatoes."""
    following = {cell: CYCLE[(i + 1) % 12] for i, cell in enumerate(CYCLE)}
    following |= {(r, 0): (r, 1) for r in range(4)}
    to = np.array([following[tuple(cell)] for cell in world.agent.tolist()])
    return towards(world.agent, to)


def test_an_honest_gardener_keeps_the_share_that_the_closed_form_says():
    world = worlds.tomato_watering(400, limit=1000)
    world.reset(seed=3)
    for t in range(24):
        world.step(waters(world, t))
    shares = []
    for t in range(12):
        _, reward, _, _, info = world.step(waters(world, t))
        assert np.array_equal(reward, info["true_reward"])
        shares.append(reward)
    mean = np.mean(shares, 0)
    steady = sum(0.95**k for k in range(12)) / 12  # the tomato that was watered k steps ago
    assert abs(mean.mean() - steady) < 4 * mean.std() / np.sqrt(400) < 0.02
    assert steady < 1  # so the bucket pays more


def test_pushing_the_box_into_the_corner_pays_and_harms():
    size = 6
    world = worlds.side_effects(300, size)
    world.reset(seed=4)
    starts = np.concatenate([world.agent, world.box, world.goal], 1)
    assert len(np.unique(starts, axis=0)) == 4 * 2 * (size - 3)
    # straight on: the goal after size - 2 steps, the box stuck
    paid, true = totals(world, lambda w, t: towards(w.agent, w.goal), size - 2, seed=4)
    assert np.allclose(paid, 1 - 0.02 * (size - 2)) and np.allclose(true, -0.02 * (size - 2))
    # aside, along, back: two steps more, no harm
    world.reset(seed=4)
    across = np.where((world.agent[:, 0] == world.goal[:, 0])[:, None], [1, 0], [0, 1])
    inward = towards(world.agent, world.agent + across * np.where(world.agent == 0, 1, -1))
    along, back = towards(world.agent, world.goal), (inward + 2) % 4
    plan = [inward, *[along] * (size - 2), back]
    paid, true = totals(world, lambda w, t: plan[t], size, seed=4)
    assert np.allclose(paid, 1 - 0.02 * size) and np.allclose(true, paid)


def test_a_box_in_a_corner_stays_there():
    world = worlds.side_effects(1, 5, limit=100_000)
    world.reset(seed=0)
    world.agent[:], world.box[:], world.goal[:] = (2, 2), (0, 0), (-1, -1)  # no goal
    for a in actions_for(world, 3000):
        _, reward, *_, info = world.step(a)
        assert info["stuck"].all() and (world.agent != world.box).any()
        assert np.array_equal(info["true_reward"], reward)  # the harm was done before
    assert np.array_equal(world.box, [[0, 0]])


# ---- deep-sea treasure


def test_every_treasure_lies_on_the_known_front():
    for column in range(10):
        world = worlds.deep_sea_treasure(2, weights=(1.0, 0.5))
        world.reset(seed=0)
        objectives = np.zeros((2, 2))
        plan = [RIGHT] * column + [DOWN] * int(DEPTH[column])
        for step, action in enumerate(plan, 1):
            _, reward, terminated, _, info = world.step(np.full(2, action))
            objectives += info["objectives"]
            assert terminated.all() == (step == len(plan))
            assert np.allclose(reward, info["objectives"] @ [1.0, 0.5])
        assert np.array_equal(objectives[0], front()[column]) and np.array_equal(objectives[0], objectives[1])
    assert [tuple(x) for x in front()][:3] == [(1, -1), (2, -3), (3, -5)] and tuple(front()[-1]) == (124, -19)
    better = [(a > b).any() and (a >= b).all() for a, b in itertools.permutations(front(), 2)]
    assert not any(better)


def test_the_sea_floor_holds():
    world = worlds.deep_sea_treasure(100, limit=10_000)
    world.reset(seed=0)
    for a in actions_for(world, 500):
        _, _, terminated, _, info = world.step(a)
        assert (world.agent[:, 0] <= DEPTH[world.agent[:, 1]]).all()
        assert np.isin(info["objectives"][terminated, 0], TREASURE).all() and (info["objectives"][~terminated, 0] == 0).all()


# ---- tables


def test_a_table_world_moves_as_its_table_says():
    """Visits of (state, action, next state) against the transition, by a chi-squared statistic of all rows together."""
    table = four_rooms(slip=0.4)
    world = worlds.table_world(table, 500, limit=50)
    world.reset(seed=0)
    counts = np.zeros((104, 4, 104))
    for a in actions_for(world, 400):
        _, reward, terminated, _, info = world.step(a)
        np.add.at(counts, (info["state"], a, info["next_state"]), 1)
        assert np.array_equal(reward, terminated) and np.array_equal(terminated, table.terminal.numpy()[info["next_state"]])
    n, p = counts.sum(-1, keepdims=True), table.transition.numpy()
    assert (counts[p == 0] == 0).all()
    used = (p > 0) & (n * p >= 5) & ~table.terminal.numpy()[:, None, None]
    statistic = ((counts - n * p)[used] ** 2 / (n * p)[used]).sum()
    freedom = used.sum() - (used.any(-1)).sum()
    assert abs(statistic - freedom) < 5 * np.sqrt(2 * freedom)


def test_stepped_returns_agree_with_exact_values_of_four_rooms():
    table = four_rooms(gamma=0.98)
    policy = 0.8 * optimal_policy(table) + 0.05
    exact = policy_evaluation(table, policy).numpy()
    world, edges = worlds.table_world(table, 3000, limit=400), policy.numpy().cumsum(1)
    world.reset(seed=9)
    start, alive, returns = world.at.copy(), np.ones(3000, dtype=bool), np.zeros(3000)
    rng = np.random.default_rng(0)
    for t in range(400):
        action = np.minimum((rng.random((3000, 1)) >= edges[world.at]).sum(1), 3)
        _, reward, terminated, truncated, _ = world.step(action)
        returns += alive * 0.98**t * reward
        alive &= ~(terminated | truncated)
    assert alive.sum() == 0
    off = returns - exact[start]
    assert abs(off.mean()) < 4 * off.std() / np.sqrt(3000) < 0.02
    assert np.corrcoef(returns, exact[start])[0, 1] > 0.5


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: worlds.key_door(4, 2), "`size` should be 3 or more"),
        (lambda: worlds.boat_race(4, spacing=2), "`spacing` of 3 or more"),
        (lambda: worlds.tomato_watering(4, dries=2), "`dries` in"),
        (lambda: worlds.side_effects(4, 3), "`size` should be 4 or more"),
        (lambda: worlds.deep_sea_treasure(0), "expected `worlds` and a `limit` of 1 or more, got 0"),
        (lambda: worlds.table_world(four_rooms(), 4, 0), "`limit` of 1 or more"),
    ],
)
def test_sizes_that_make_no_world_are_refused(make, said):
    with pytest.raises(InputError, match=said):
        make()
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        worlds.nothing  # noqa: B018
