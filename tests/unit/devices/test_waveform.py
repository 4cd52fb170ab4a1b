"""Waveforms, their files, and the kinematic model behind the synthetic ones."""

from __future__ import annotations

import math
import struct
import subprocess
import sys
import wave
from array import array
from pathlib import Path
from random import Random

import pytest

from meshagent.devices import BEARINGS, Bearing, Part, Waveform
from meshagent.devices.waveform import WaveformFile, WaveformFileError

BEARING = BEARINGS["6205-2RS"]


def test_bearing_frequencies_are_those_of_the_published_table() -> None:
    # Case Western Reserve University gives multiples of shaft speed for the 6205-2RS; its ball figure is of two knocks
    assert BEARING.bpfi_hz(1) == pytest.approx(5.4152, abs=2e-4)
    assert BEARING.bpfo_hz(1) == pytest.approx(3.5848, abs=2e-4)
    assert BEARING.ftf_hz(1) == pytest.approx(0.39828, abs=1e-4)
    assert BEARING.fault_hz(Part.BALL, 1) == pytest.approx(4.7135, abs=2e-4)


def test_races_share_the_balls() -> None:
    assert BEARING.bpfo_hz(30) + BEARING.bpfi_hz(30) == pytest.approx(9 * 30)
    assert BEARING.bpfo_hz(30) == pytest.approx(9 * BEARING.ftf_hz(30))


@pytest.mark.parametrize("numbers", [(0, 1.0, 2.0), (9, 3.0, 2.0), (9, 0.0, 2.0), (9, math.nan, 2.0)])
def test_a_bearing_that_cannot_be_is_refused(numbers: tuple[int, float, float]) -> None:
    with pytest.raises(ValueError, match="balls are smaller"):
        Bearing("odd", *numbers)


def test_rms_and_peak_leave_gravity_out() -> None:
    waveform = Waveform([1.0 + (-1.0) ** n for n in range(1000)])
    assert waveform.rms() == pytest.approx(1.0)
    assert waveform.peak() == pytest.approx(1.0)
    assert (Waveform([]).rms(), Waveform([]).peak()) == (0.0, 0.0)


def test_a_window_is_a_part() -> None:
    waveform = Waveform(range(100), 10.0, label="x")
    part = waveform.window(2.0, 3.0)
    assert (list(part.samples), part.rate_hz, part.label) == (list(range(20, 50)), 10.0, "x")
    assert len(waveform.window(9.0, 5.0)) == 10


@pytest.mark.parametrize("part", [None, *Part])
def test_what_is_made_up_says_so_and_is_the_same_on_every_machine(part: Part | None) -> None:
    one, two = Waveform.synthetic(part, seed=3, duration_s=0.5), Waveform.synthetic(part, seed=3, duration_s=0.5)
    assert one == two
    assert one != Waveform.synthetic(part, seed=4, duration_s=0.5)
    assert one.label == f"synthetic: {part or 'healthy'}, 6205-2RS at 29.95 Hz, seed 3"
    assert one.duration_s == 0.5


def test_a_damaged_bearing_is_louder_than_a_healthy_one() -> None:
    assert Waveform.synthetic().rms() < 0.2
    assert Waveform.synthetic("outer race").rms() > 0.5
    with pytest.raises(ValueError, match="outer rage"):
        Waveform.synthetic("outer rage")


def test_a_file_comes_back_bit_by_bit_with_its_label(tmp_path: Path) -> None:
    made = Waveform.synthetic("ball", duration_s=0.1)
    made.to_file(tmp_path / "a.wav")
    back = Waveform.from_file(tmp_path / "a.wav")
    assert back == made
    assert back.label == made.label
    assert back.rate_hz == 12_000.0


def test_pcm_as_the_standard_library_writes_it_is_read(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(struct.pack("<3h", 0, 16384, -32768))
    assert Waveform.from_file(tmp_path / "a.wav") == Waveform([0.0, 0.5, -1.0], 8000)


def test_a_part_of_a_file_is_read_without_the_rest(tmp_path: Path) -> None:
    Waveform(range(1000), 100.0).to_file(tmp_path / "a.wav")
    with WaveformFile(tmp_path / "a.wav") as file:
        assert list(file.read(500, 3).samples) == [500.0, 501.0, 502.0]
        assert list(file.read(998, 50).samples) == [998.0, 999.0]
        assert len(file.read(5000, 50)) == 0


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def form(encoding: int = 3, channels: int = 1, rate: int = 12_000, bits: int = 32) -> tuple[bytes, bytes]:
    return b"fmt ", struct.pack("<HHIIHH", encoding, channels, rate, 0, 0, bits)


DATA = (b"data", bytes(16))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "is no WAVE file"),
        (b"RIFF\0\0\0\0AVI ", "is no WAVE file"),
        (riff(), "holds no samples"),
        (riff(form()), "holds no samples"),
        (riff(form(), (b"data", b"")), "holds no samples"),
        (riff(DATA), "has its data before its format"),
        (riff((b"fmt ", b"\3\0"), DATA), "has a format that is cut short"),
        (riff(form(channels=2), DATA), "has 2 channels; one is read"),
        (riff(form(encoding=1, bits=24), DATA), "holds 24-bit samples of encoding 1"),
        (riff(form(rate=0), DATA), "claims 0 samples a second"),
        (riff(*[(b"junk", b"")] * 100, form(), DATA), "holds no samples"),
    ],
)
def test_what_is_no_recording_is_told(tmp_path: Path, raw: bytes, message: str) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(raw)
    with pytest.raises(WaveformFileError, match=message) as caught:
        Waveform.from_file(path)
    assert caught.value.next_step


def test_a_header_that_lies_about_its_length_gives_what_is_there(tmp_path: Path) -> None:
    raw = riff(form(), DATA).replace(b"data\x10\0\0\0", b"data\xff\xff\xff\xff")
    (tmp_path / "a.wav").write_bytes(raw)
    assert len(Waveform.from_file(tmp_path / "a.wav")) == 4


def test_any_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    path, rng = tmp_path / "a.wav", Random(5)
    Waveform([0.5] * 8, label="synthetic").to_file(path)
    whole = path.read_bytes()
    for _ in range(300):
        raw = bytearray(whole[: rng.randrange(len(whole) + 1)] if rng.random() < 0.3 else whole)
        for _ in range(rng.randrange(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            assert isinstance(Waveform.from_file(path).samples, array)
        except WaveformFileError:
            continue


def test_importing_the_devices_and_the_sdk_imports_nothing_heavy() -> None:
    heavy = ("numpy", "grpc", "zeroconf", "google.protobuf", "nacl", "cryptography", "typer")
    use = "import sys, meshagent, meshagent.devices; meshagent.Role, meshagent.Context"
    code = f"{use}; print([m for m in {heavy!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_the_package_alone_imports_none_of_it() -> None:
    code = "import sys, meshagent; print([m for m in sys.modules if m.startswith('meshagent.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
