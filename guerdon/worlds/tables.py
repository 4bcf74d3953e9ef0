# SPDX-License-Identifier: Apache-2.0
"""Exact reinforcement learning in a table, in float64: what shaping, credit and estimators are tested against.

    S   states        v(s)     `value` [S], discounted reward from s on
    A   actions       π(a|s)   `policy` [S, A], probabilities, rows sum to 1
    γ   discount      d(s, a)  `occupancy` [S, A], discounted visits, not normalised

A terminal state ends the episode: its value and visits are 0, and what its own rows hold is not read. With γ = 1 a policy that is
evaluated has to reach one. All functions are pure and differentiable, through the linear solve too: in the reward, the transition
and the policy.

    Puterman 1994, Markov Decision Processes, chapters 4 to 6; Sutton and Barto 2018, chapters 3 and 4.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import torch
from torch import Tensor

from guerdon.errors import InputError, check_shape


@dataclass(frozen=True, eq=False)
class Table:
    """A Markov decision process of S states and A actions.

    transition [S, A, S]  P(s'|s, a)
    reward     [S, A]     of an action, or [S, A, S] of an action and where it leads
    start      [S]        P(first state)
    gamma      in [0, 1]
    terminal   [S] bool   the episode ends on arrival
    """

    transition: Tensor
    reward: Tensor
    start: Tensor
    gamma: float
    terminal: Tensor

    def __post_init__(self) -> None:
        check_shape("Table", "transition", self.transition, (None, None, None))
        states, actions, _ = self.transition.shape
        check_shape("Table", "transition", self.transition, (states, actions, states))
        check_shape("Table", "reward", self.reward, (states, actions) if self.reward.dim() == 2 else (states, actions, states))
        check_shape("Table", "start", self.start, (states,))
        check_shape("Table", "terminal", self.terminal, (states,))
        for name, rows in (("transition", self.transition[~self.terminal]), ("start", self.start)):
            wrong = ((rows.sum(-1) - 1).abs() > 1e-9) | (rows < 0).any(-1)
            if wrong.any():
                raise InputError(
                    f"Table: `{name}` should hold probabilities that sum to 1, got a sum of {float(rows.sum(-1)[wrong][0]):.6g}. "
                    "Usual cause: counts that were not divided, or float32."
                )
        if not 0 <= self.gamma <= 1:
            raise InputError(f"Table: `gamma` should lie in [0, 1], got {self.gamma}.")

    @property
    def states(self) -> int:
        return self.transition.shape[0]

    @property
    def actions(self) -> int:
        return self.transition.shape[1]


def expected_reward(table: Table) -> Tensor:
    """r(s, a) = Σ_s' P(s'|s, a) r(s, a, s'), [S, A]; 0 in terminal states."""
    reward = table.reward if table.reward.dim() == 2 else (table.transition * table.reward).sum(-1)
    return torch.where(table.terminal[:, None], 0, reward)


def q_values(table: Table, value: Tensor) -> Tensor:
    """q(s, a) = r(s, a) + γ Σ_s' P(s'|s, a) v(s'), [S, A], with v of terminal states read as 0.

    ``value`` [S]. Terminal states' own rows are 0.
    """
    check_shape("q_values", "value", value, (table.states,))
    after = table.transition @ torch.where(table.terminal, 0, value)
    return expected_reward(table) + table.gamma * torch.where(table.terminal[:, None], 0, after)


def policy_evaluation(table: Table, policy: Tensor) -> Tensor:
    """v = (I - γ P_π)⁻¹ r_π, [S]: the value of a policy, by a linear solve.

    P_π(s'|s) = Σ_a π(a|s) P(s'|s, a) among states that are not terminal; r_π(s) = Σ_a π(a|s) r(s, a).
    ``policy`` [S, A].

    >>> corridor = grid_table("S.G")
    >>> policy_evaluation(corridor, torch.full((3, 4), 0.25, dtype=torch.float64)).round(decimals=4).tolist()
    [0.439, 0.6341, 0.0]
    """
    check_shape("policy_evaluation", "policy", policy, (table.states, table.actions), "a policy of logits or of another table")
    return _solve(_identity_minus(table, policy), (policy * expected_reward(table)).sum(-1))


def advantages(table: Table, policy: Tensor) -> Tensor:
    """q(s, a) - v(s) under ``policy``, [S, A]; 0 on average over the policy's actions, and in terminal states."""
    value = policy_evaluation(table, policy)
    return q_values(table, value) - value[:, None]


def occupancy(table: Table, policy: Tensor) -> Tensor:
    """d(s, a) = Σ_t γ^t P(s_t = s, a_t = a), [S, A]: the discounted visits, of all of which Σ d r is the expected return.

    d(s, a) = π(a|s) d(s),   d = (I - γ P_πᵀ)⁻¹ start,   and 0 in terminal states. Without terminal states the sum is 1 / (1 - γ).
    """
    check_shape("occupancy", "policy", policy, (table.states, table.actions), "a policy of logits or of another table")
    start = torch.where(table.terminal, 0, table.start)
    return _solve(_identity_minus(table, policy).T, start)[:, None] * torch.where(table.terminal[:, None], 0, policy)


def expected_return(table: Table, policy: Tensor) -> Tensor:
    """J = Σ_s start(s) v(s), a number: the discounted return of an episode."""
    return table.start @ policy_evaluation(table, policy)


def value_iteration(table: Table, *, tolerance: float = 1e-12, most: int = 100_000) -> Tensor:
    """The best value of every state, [S]: v ← max_a q(s, a) until no state changes by more than ``tolerance`` x (1 - γ) / γ.

    So ``tolerance`` bounds the distance to the fixed point; for γ = 1, where no such bound exists, it bounds the last change.
    InputError after ``most`` sweeps.

    >>> value_iteration(grid_table("S.G", gamma=0.5)).tolist()
    [0.5, 1.0, 0.0]
    """
    enough = tolerance * (1 - table.gamma) / table.gamma if 0 < table.gamma < 1 else tolerance
    value = torch.zeros_like(table.start)
    floor = 4 * torch.finfo(value.dtype).eps
    for _ in range(most):
        new = q_values(table, value).amax(-1)
        change = (new - value).abs().max()
        value = new
        if change <= max(enough, floor * float(new.abs().max())):
            return value
    raise InputError(
        f"value_iteration: values should settle within {most} sweeps, they still change by {float(change):.3g}. "
        "Usual cause: gamma = 1 with a reward that can be collected for ever."
    )


def optimal_policy(table: Table, *, tolerance: float = 1e-9) -> Tensor:
    """Uniform over the best actions of each state, [S, A]: those within ``tolerance`` of the largest q(s, a)."""
    q = q_values(table, value_iteration(table))
    best = (q >= q.amax(-1, keepdim=True) - tolerance).to(q.dtype)
    return best / best.sum(-1, keepdim=True)


def shaped(table: Table, potential: Tensor) -> Table:
    """The same table with r'(s, a, s') = r(s, a, s') + γ φ(s') - φ(s), where φ of terminal states is 0.

    ``potential`` [S]. Best policies and advantages stay as they are and every value moves by exactly -φ(s).

    Ng, Harada and Russell 1999.
    """
    check_shape("shaped", "potential", potential, (table.states,))
    potential = torch.where(table.terminal, 0, potential)
    reward = table.reward if table.reward.dim() == 3 else table.reward[..., None]
    return dataclasses.replace(table, reward=reward + table.gamma * potential - potential[:, None, None])


def grid_table(layout: str, *, gamma: float = 0.9, slip: float = 0.0, goal: float = 1.0) -> Table:
    """A maze as a table: states are its open cells, row by row; actions are up, right, down, left.

    ``layout``  lines of ``#`` wall, ``.`` open, ``S`` start (several: drawn evenly), ``G`` goal: terminal, ``goal`` on arrival
    ``slip``    probability that one of the three other directions is taken instead, evenly. Walls and edges are run into.

    >>> table = grid_table("S.#\\n..G", slip=0.3)
    >>> table.states, [round(x, 2) for x in table.transition[1, 1].tolist()]
    (5, [0.1, 0.8, 0.0, 0.1, 0.0])
    """
    lines = layout.strip("\n").split("\n")
    cells = {(r, c): x for r, line in enumerate(lines) for c, x in enumerate(line) if x != "#"}
    unknown = sorted(set(cells.values()) - set(".SG"))
    if unknown or "S" not in cells.values():
        raise InputError(f"grid_table: `layout` should be of `#`, `.`, `G` and at least one `S`, got {unknown or 'no S'}.")
    number = {cell: i for i, cell in enumerate(cells)}
    there = [[number.get((r + dr, c + dc), i) for dr, dc in MOVES] for (r, c), i in number.items()]
    moved = torch.nn.functional.one_hot(torch.tensor(there), len(cells)).double()
    transition = (1 - slip) * moved + slip / 3 * (moved.sum(1, keepdim=True) - moved)
    start, terminal = (torch.tensor([x == kind for x in cells.values()]) for kind in "SG")
    reward = goal * terminal.double().expand_as(transition)
    return Table(transition, reward, start.double() / start.sum(), gamma, terminal)


MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Row and column steps of the actions up, right, down, left."""

FOUR_ROOMS = """
.....#.....
.....#.....
...........
.....#.....
.....#.....
#.####.....
.....###.##
.....#.....
.....#.....
...........
.....#.....
"""


def four_rooms(*, gamma: float = 0.9, slip: float = 1 / 3, goal: tuple[int, int] = (6, 8)) -> Table:
    """The four rooms of Sutton, Precup and Singh 1999, a table of 104 cells: ``goal`` ends the episode, all others are starts.

    ``goal`` (row, column), in a hallway by default. Moves go astray with probability ``slip``.

    >>> four_rooms().states
    104
    """
    lines = [list(line) for line in FOUR_ROOMS.strip().replace(".", "S").split("\n")]
    row, column = goal
    if not (0 <= row < len(lines) and 0 <= column < len(lines[0])) or lines[row][column] == "#":
        raise InputError(f"four_rooms: `goal` should be an open cell (row, column) of 11 x 11, got {goal}.")
    lines[row][column] = "G"
    return grid_table("\n".join("".join(line) for line in lines), gamma=gamma, slip=slip)


def _identity_minus(table: Table, policy: Tensor) -> Tensor:
    """I - γ P_π [S, S] with terminal states cut off on both sides."""
    among = ~(table.terminal[:, None] | table.terminal)
    moves = torch.where(among, torch.einsum("sa,sat->st", policy, table.transition), 0)
    return torch.eye(table.states, dtype=moves.dtype, device=moves.device) - table.gamma * moves


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    solution, wrong = torch.linalg.solve_ex(matrix, right)
    if int(wrong) or not bool(solution.isfinite().all()):
        raise InputError(
            "tables: with gamma = 1 the policy should reach a terminal state from everywhere, got a singular system. "
            "Usual cause: a policy that can stay away from the goal for ever."
        )
    return solution
