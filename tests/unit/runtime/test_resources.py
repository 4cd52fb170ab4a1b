"""Reservations never exceed what the device promises; what cannot be read is unknown, not zero."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meshagent.runtime.resources import Capacity, Demand, Ledger, SystemBattery, detect
from meshagent.types import TaskId

demands = st.builds(Demand, st.integers(0, 60), st.sampled_from([0.0, 0.5, 1.0]))


@given(st.lists(st.tuples(st.integers(0, 5), st.one_of(st.none(), demands)), max_size=40))
def test_reservations_never_exceed_the_capacity(steps: list[tuple[int, Demand | None]]) -> None:
    ledger = Ledger(Capacity(cores=2, memory_mib=100))
    held: dict[int, Demand] = {}
    for number, demand in steps:
        task = TaskId(str(number))
        if demand is None:
            ledger.free(task)
            held.pop(number, None)
        elif ledger.shortage(demand, task) is None:
            ledger.hold(task, demand)
            held[number] = demand
        else:
            others = [d for n, d in held.items() if n != number]
            too_much = sum(d.memory_mib for d in others) + demand.memory_mib > 100
            assert too_much or sum(d.cores for d in others) + demand.cores > 2, "refused although it fits"
        assert ledger.memory_mib == sum(d.memory_mib for d in held.values()) <= 100
        assert ledger.cores == sum(d.cores for d in held.values()) <= 2


def test_a_device_keeps_a_quarter_for_itself() -> None:
    found = detect()
    assert found.cores >= 1
    assert found.memory_mib > 16
    assert detect(memory_mib=64).memory_mib == 64


def test_free_disk_is_found_where_the_folder_is(tmp_path: Path) -> None:
    assert (detect(tmp_path).disk_free_mib or 0) > 0
    assert detect(tmp_path / "gone").disk_free_mib is None


@pytest.mark.parametrize(
    ("kind", "capacity", "soc"),
    [("Battery", "64", 0.64), ("Battery", "full", None), ("Battery", "400", None), ("Mains", "64", None)],
)
def test_the_system_battery_is_read_or_unknown(tmp_path: Path, kind: str, capacity: str, soc: float | None) -> None:
    supply = tmp_path / "BAT0"
    supply.mkdir()
    (supply / "type").write_text(kind + "\n")
    (supply / "capacity").write_text(capacity + "\n")
    assert SystemBattery(tmp_path).soc() == soc


def test_no_battery_is_none(tmp_path: Path) -> None:
    assert SystemBattery(tmp_path / "none").soc() is None
