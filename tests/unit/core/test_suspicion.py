"""Formulas of suspicion, by table."""

from __future__ import annotations

import pytest

from meshagent.core.suspicion import (
    MAX_LOCAL_HEALTH,
    confirmations_wanted,
    moved_health,
    push_pull_s,
    retransmit_limit,
    scaled_s,
    suspicion_min_s,
    suspicion_timeout_s,
)


@pytest.mark.parametrize(
    ("multiplier", "nodes", "period_s", "expected_s"),
    [
        (4, 1, 1.0, 4.0),
        (4, 10, 1.0, 4.0),
        (4, 100, 1.0, 8.0),
        (4, 1000, 1.0, 12.0),
        (3, 5, 0.2, 0.6),
        (5, 0, 3.0, 15.0),
    ],
)
def test_the_shortest_suspicion_grows_with_the_logarithm_of_the_mesh(
    multiplier: int, nodes: int, period_s: float, expected_s: float
) -> None:
    assert suspicion_min_s(multiplier, nodes, period_s) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    ("multiplier", "nodes", "wanted"), [(4, 2, 0), (4, 3, 0), (4, 4, 2), (4, 100, 2), (3, 3, 1), (2, 9, 0), (6, 5, 0)]
)
def test_confirmations_are_wanted_only_where_enough_others_exist(multiplier: int, nodes: int, wanted: int) -> None:
    assert confirmations_wanted(multiplier, nodes) == wanted


@pytest.mark.parametrize(
    # the table of memberlist's suspicion_test.go: K = 3, 2 s to 30 s
    ("confirmations", "expected_s"),
    [(0, 30.0), (1, 16.0), (2, 7.810), (3, 2.0), (4, 2.0)],
)
def test_a_suspicion_shrinks_with_each_confirmation_to_its_minimum(confirmations: int, expected_s: float) -> None:
    assert suspicion_timeout_s(2.0, 30.0, confirmations, 3) == pytest.approx(expected_s, abs=0.001)


def test_where_nobody_can_confirm_the_minimum_holds() -> None:
    assert suspicion_timeout_s(2.0, 30.0, 0, 0) == 2.0


@pytest.mark.parametrize(("nodes", "limit"), [(0, 4), (1, 4), (9, 4), (10, 8), (99, 8), (100, 12)])
def test_news_is_repeated_so_often(nodes: int, limit: int) -> None:
    assert retransmit_limit(4, nodes) == limit


def test_a_node_that_doubts_itself_is_slow_within_bounds() -> None:
    assert scaled_s(0.5, 0) == 0.5
    assert scaled_s(0.5, 3) == 2.0
    assert moved_health(0, -1) == 0
    assert moved_health(MAX_LOCAL_HEALTH, 3) == MAX_LOCAL_HEALTH
    assert moved_health(2, 1) == 3


@pytest.mark.parametrize(
    ("nodes", "expected_s"), [(2, 30.0), (32, 30.0), (33, 60.0), (64, 60.0), (65, 90.0), (100, 90.0)]
)
def test_tables_are_compared_less_often_in_a_large_mesh(nodes: int, expected_s: float) -> None:
    assert push_pull_s(30.0, nodes) == expected_s
