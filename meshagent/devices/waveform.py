"""A stretch of a vibration signal, and its files.

Files are RIFF WAVE with one channel of 32-bit floats in units of g, so that any audio or signal tool opens them; the
comment (INFO/ICMT) says what it is, for instance that it is synthetic. 16-bit PCM is read too.
"""

from __future__ import annotations

import math
import os
import struct
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from typing import BinaryIO, Final

from meshagent.devices.bearing import PUMP_BEARING, PUMP_SHAFT_HZ, Bearing, Part
from meshagent.errors import ConfigurationError

RATE_HZ: Final = 12_000.0
"""What accelerometers on pumps are commonly sampled with."""
MAX_SAMPLES: Final = 16_000_000
"""64 MiB: over 20 minutes at 12 kHz, far more than one window."""
MAX_RATE_HZ: Final = 10_000_000.0

_FLOAT: Final = 3
_PCM: Final = 1
_EXTENSIBLE: Final = 0xFFFE
_MAX_COMMENT_BYTES: Final = 4096
_MAX_CHUNKS: Final = 64
"""A file with more chunks before its data is no recording."""


class WaveformFileError(ConfigurationError):
    """The file is no waveform that we can read."""


class Waveform:
    """Samples of acceleration in g at `rate_hz`. Immutable by agreement: windows share memory."""

    __slots__ = ("label", "rate_hz", "samples")

    def __init__(self, samples: Iterable[float], rate_hz: float = RATE_HZ, *, label: str = "") -> None:
        if not 0 < rate_hz <= MAX_RATE_HZ:
            raise ValueError(f"a rate of {rate_hz!r} Hz")
        self.samples = samples if isinstance(samples, array) and samples.typecode == "f" else array("f", samples)
        """`array('f')`; `numpy.frombuffer(w.samples, "f4")` sees it without a copy."""
        self.rate_hz = float(rate_hz)
        self.label = label
        """Where it comes from; everything synthetic says so here."""

    def __len__(self) -> int:
        return len(self.samples)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Waveform):
            return NotImplemented
        return self.rate_hz == other.rate_hz and self.samples == other.samples

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        label = f", {self.label}" if self.label else ""
        return f"<Waveform {self.duration_s:.2f} s at {self.rate_hz:g} Hz, rms {self.rms():.2f} g{label}>"

    @property
    def duration_s(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate_hz

    def rms(self) -> float:
        """Root mean square in g, the mean taken out (an accelerometer also feels gravity)."""
        count = len(self.samples)
        if not count:
            return 0.0
        mean = sum(self.samples) / count
        return math.sqrt(sum((sample - mean) ** 2 for sample in self.samples) / count)

    def peak(self) -> float:
        """Largest distance from the mean, in g."""
        if not self.samples:
            return 0.0
        mean = sum(self.samples) / len(self.samples)
        return max(max(self.samples) - mean, mean - min(self.samples))

    def window(self, start_s: float, duration_s: float) -> Waveform:
        """The part from `start_s` on; shorter where the signal ends."""
        first = max(0, round(start_s * self.rate_hz))
        return Waveform(self.samples[first : first + round(duration_s * self.rate_hz)], self.rate_hz, label=self.label)

    @classmethod
    def synthetic(
        cls,
        part: Part | str | None = None,
        *,
        bearing: Bearing = PUMP_BEARING,
        shaft_hz: float = PUMP_SHAFT_HZ,
        rate_hz: float = RATE_HZ,
        duration_s: float = 2.0,
        impact_g: float = 4.5,
        noise_g: float = 0.1,
        seed: int = 0,
    ) -> Waveform:
        """A pump as the kinematic model has it, labelled synthetic: `part` damaged, or None for a healthy one.

        See `meshagent.devices.synthetic` for the model and its source.
        """
        from meshagent.devices import synthetic  # it needs this module

        return synthetic.vibration(
            None if part is None else Part(part),
            bearing=bearing,
            shaft_hz=shaft_hz,
            rate_hz=rate_hz,
            duration_s=duration_s,
            impact_g=impact_g,
            noise_g=noise_g,
            seed=seed,
        )

    def to_file(self, path: str | os.PathLike[str]) -> None:
        """Write it as WAVE, 32-bit float, with the label as comment."""
        data = _little(self.samples).tobytes()
        rate = round(self.rate_hz)
        comment = self.label.encode("utf-8")[:_MAX_COMMENT_BYTES] + b"\0"
        comment += b"\0" * (len(comment) % 2)
        info = b"INFO" + b"ICMT" + struct.pack("<I", len(comment)) + comment
        chunks = (
            _chunk(b"fmt ", struct.pack("<HHIIHHH", _FLOAT, 1, rate, rate * 4, 4, 32, 0))
            + _chunk(b"fact", struct.pack("<I", len(self.samples)))
            + _chunk(b"LIST", info)
            + _chunk(b"data", data)
        )
        with open(path, "wb") as file:
            file.write(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> Waveform:
        """Read a whole file.

        Raises:
            WaveformFileError: not there, no WAVE, more than one channel, an encoding that is not read, or too long.
        """
        with WaveformFile(path) as file:
            return file.read(0, len(file))


@dataclass(frozen=True, slots=True)
class _Format:
    encoding: int
    channels: int
    rate_hz: int
    bits: int


class WaveformFile:
    """An open file, read in windows without holding it in memory."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self.label = ""
        try:
            self._file: BinaryIO = open(path, "rb")  # noqa: SIM115 - closed by close()
        except OSError as error:
            raise WaveformFileError(
                f"{self._path} cannot be read: {error.strerror}", next_step="give the path of a WAVE file"
            ) from error
        try:
            self._read_header()
        except BaseException:
            self._file.close()
            raise

    def __len__(self) -> int:
        """Samples in the file."""
        return self._count

    def __enter__(self) -> WaveformFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @property
    def rate_hz(self) -> float:
        """Samples a second."""
        return float(self._format.rate_hz)

    def read(self, first: int, count: int) -> Waveform:
        """`count` samples from `first` on; fewer where the file ends."""
        count = max(0, min(count, self._count - first))
        if count > MAX_SAMPLES:
            raise WaveformFileError(f"{self._path}: {count} samples at once, at most {MAX_SAMPLES} are read")
        width = self._format.bits // 8
        self._file.seek(self._start + first * width)
        raw = self._file.read(count * width)
        raw = raw[: len(raw) // width * width]
        if self._format.encoding == _FLOAT:
            samples = array("f")
            samples.frombytes(raw)
            return Waveform(_little(samples), self.rate_hz, label=self.label)
        whole = array("h")
        whole.frombytes(raw)
        return Waveform(array("f", (value / 32768.0 for value in _little(whole))), self.rate_hz, label=self.label)

    def _read_header(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        head = self._file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise self._bad("is no WAVE file")
        form: _Format | None = None
        for _ in range(_MAX_CHUNKS):
            header = self._file.read(8)
            if len(header) < 8:
                break
            name, length = header[:4], int.from_bytes(header[4:], "little")
            here = self._file.tell()
            if name == b"data":
                if form is None:
                    raise self._bad("has its data before its format")
                self._format, self._start = form, here
                self._count = min(length, size - here) // (form.bits // 8)
                if not self._count:
                    raise self._bad("holds no samples")
                return
            body = self._file.read(min(length, _MAX_COMMENT_BYTES + 64))
            if name == b"fmt ":
                form = self._parsed(body)
            elif name == b"LIST" and body[:8] == b"INFOICMT":
                self.label = body[12:].split(b"\0", 1)[0].decode("utf-8", "replace")
            self._file.seek(here + length + length % 2)
        raise self._bad("holds no samples")

    def _parsed(self, body: bytes) -> _Format:
        if len(body) < 16:
            raise self._bad("has a format that is cut short")
        encoding, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", body)
        if encoding == _EXTENSIBLE and len(body) >= 26:
            encoding = int.from_bytes(body[24:26], "little")
        if (encoding, bits) not in ((_FLOAT, 32), (_PCM, 16)):
            raise self._bad(f"holds {bits}-bit samples of encoding {encoding}; 32-bit float and 16-bit PCM are read")
        if channels != 1:
            raise self._bad(f"has {channels} channels; one is read")
        if not 0 < rate_hz <= MAX_RATE_HZ:
            raise self._bad(f"claims {rate_hz} samples a second")
        return _Format(encoding, channels, rate_hz, bits)

    def _bad(self, what: str) -> WaveformFileError:
        return WaveformFileError(f"{self._path} {what}", next_step="write one with Waveform(...).to_file(path)")


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _little(values: array[float] | array[int]) -> array[float]:
    """The same values in the byte order of the file (little-endian), which is this machine's almost always."""
    if sys.byteorder == "big":
        values = values[:]
        values.byteswap()
    return values  # type: ignore[return-value]
