"""Lines that repeat themselves."""

from __future__ import annotations

from meshagent.core.seldom import BURST, MAX_KEYS, WINDOW_S, Seldom


def test_a_line_is_said_a_few_times_then_counted_then_said_with_the_count() -> None:
    seldom = Seldom()
    said = [seldom.may("peer lost", 0.1 * number) for number in range(BURST + 7)]
    assert said == [""] * BURST + [None] * 7
    assert seldom.may("peer lost", WINDOW_S) == " (7 more like it were left out)"
    assert seldom.may("peer lost", WINDOW_S) == ""


def test_one_line_does_not_silence_another() -> None:
    seldom = Seldom()
    for _ in range(100):
        seldom.may("a", 0.0)
    assert seldom.may("a", 0.0) is None
    assert seldom.may("b", 0.0) == ""


def test_what_is_remembered_is_bounded() -> None:
    seldom = Seldom()
    for number in range(10 * MAX_KEYS):
        assert seldom.may(str(number), 0.0) == ""
    assert len(seldom._said) == MAX_KEYS
