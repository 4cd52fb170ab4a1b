"""Who wins is a pure function of the set of bids."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.core.contract_net.clearing import MAX_COST_MS, Bid, plausible, rank, score, tie_break, within_tolerance
from tests.support.contract_model import node_id, record_of

TASK = record_of(node_id(0)).task
costs = st.integers(0, MAX_COST_MS)
bids = st.lists(
    st.builds(Bid, st.integers(1, 40).map(node_id), st.integers(0, 5), st.integers(0, 5), st.booleans()),
    unique_by=lambda bid: bid.peer,
    max_size=8,
)


@pytest.mark.parametrize(
    ("added", "load", "p", "expected"),
    [
        (38_200, 10_000, 4, 5_387_444_097_600_000_000),
        (5, 0, 1, 5),
        (5, 1000, 1, 5),
        (1, 1, 4, 15),
        (0, 9_999, 8, 0),
    ],
)
def test_the_score_is_the_growth_of_the_potential(added: int, load: int, p: int, expected: int) -> None:
    assert score(added, load, p) == expected


@given(costs, costs, st.sampled_from([1, 4, 8]))
def test_scores_are_exact_integers_that_grow_with_cost_and_load(added: int, load: int, p: int) -> None:
    here = score(added, load, p)
    assert type(here) is int
    assert score(added + 1, load, p) > here
    assert score(added, load + 1, p) >= here


@given(bids, st.sampled_from([1, 4, 8]), st.randoms())
def test_the_ranking_does_not_depend_on_the_order(some: list[Bid], p: int, rnd: object) -> None:
    shuffled = list(some)
    rnd.shuffle(shuffled)  # type: ignore[attr-defined]
    assert rank(TASK, shuffled, p) == rank(TASK, some, p)


@given(bids, st.integers(0, 7))
def test_a_bid_that_leaves_does_not_change_the_order_of_the_others(some: list[Bid], index: int) -> None:
    ranked = rank(TASK, some, 4)
    gone = ranked[index : index + 1]
    assert rank(TASK, [bid for bid in some if bid not in gone], 4) == [bid for bid in ranked if bid not in gone]


@given(bids)
def test_who_holds_the_result_comes_first_and_who_gave_back_last(some: list[Bid]) -> None:
    gave_back = frozenset(bid.peer for bid in some[::2])
    ranked = rank(TASK, some, 4, gave_back)
    groups = [(not bid.holds_result, bid.peer in gave_back) for bid in ranked]
    assert groups == sorted(groups)


def test_equal_bids_are_ordered_by_task_and_not_by_peer_alone() -> None:
    equal = [Bid(node_id(i), 1000, 0) for i in range(1, 6)]
    winners = {rank(record_of(node_id(0), n).task, equal, 4)[0].peer for n in range(1, 40)}
    assert len(winners) == 5, "nobody wins every tie"
    assert tie_break(TASK, node_id(1)) != tie_break(TASK, node_id(2))


@pytest.mark.parametrize(
    "price", [(-1, 0), (0, -1), (MAX_COST_MS + 1, 0), (0, MAX_COST_MS + 1), (1.0, 0), (float("nan"), 0), (True, 0)]
)
def test_nonsense_is_not_plausible(price: tuple[int, int]) -> None:
    assert not plausible(*price)


@given(costs, costs)
def test_whole_milliseconds_within_bounds_are_plausible(added: int, load: int) -> None:
    assert plausible(added, load)


@pytest.mark.parametrize(
    ("bid", "now", "stands"),
    [
        ((1000, 0), (1000, 0), True),
        ((1000, 0), (1050, 0), True),
        ((1000, 0), (1051, 0), False),
        ((1000, 0), (0, 0), True),
        ((1000, 9000), (1500, 9000), True),
        ((1000, 9000), (1000, 9501), False),
        ((1000, 9000), (900, 9501), False),
        ((0, 0), (0, 0), True),
        ((0, 0), (1, 0), False),
    ],
)
def test_a_price_stands_within_the_tolerance_of_the_plan(
    bid: tuple[int, int], now: tuple[int, int], stands: bool
) -> None:
    assert within_tolerance(bid, now, 0.05) is stands


def test_every_permutation_of_a_call_has_one_winner() -> None:
    some = [Bid(node_id(i), 1000 * (i % 3), 0) for i in range(1, 6)]
    assert len({rank(TASK, order, 4)[0] for order in itertools.permutations(some)}) == 1
