"""Drawn videos: their frames come back at their times; only our own files are replaced, and nothing half is left."""

import io
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from deformable_detr.detect.video import Frame, Video, VideoError, VideoWriter
from deformable_detr.detect.video.writing import ENCODERS, writing_video
from deformable_detr.marks import is_marked

SECONDS = [0.0, 0.1, 0.5, 0.52, 2.0]


def write(path: Path, size: tuple[int, int] = (64, 48), seconds: Iterable[float | None] = SECONDS) -> Path:
    with writing_video(path, Fraction(25)) as writer:
        for index, when in enumerate(seconds):
            writer.write(PIL.Image.new("RGB", size, (40 * index, 40 * index, 40 * index)), when)
    return path


def frames_of(path: Path) -> list[Frame]:
    with Video(path) as video:
        return [frame for frame in video if isinstance(frame, Frame)]


def test_frames_and_times_come_back(tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "new" / "a.mp4"))
    assert [frame.seconds for frame in found] == pytest.approx(SECONDS, abs=1e-3)
    greys = [float(frame.read().mean()) for frame in found]
    assert greys == pytest.approx([0, 40, 80, 120, 160], abs=4)


def test_without_times_frames_are_even(tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "a.mp4", seconds=[None] * 4))
    assert [frame.seconds for frame in found] == pytest.approx([0, 0.04, 0.08, 0.12], abs=1e-3)


def test_times_that_stand_still_or_go_back(tmp_path: Path) -> None:
    found = frames_of(write(tmp_path / "a.mp4", seconds=[1.0, 1.0, 0.5, 2.0]))
    assert len(found) == 4
    times = [frame.seconds for frame in found if frame.seconds is not None]
    assert sorted(set(times)) == times


@pytest.mark.parametrize("encoder", ENCODERS)
def test_any_size(tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.detect.video.writing.ENCODERS", {encoder: ENCODERS[encoder]})
    assert frames_of(write(tmp_path / "odd.mp4", (63, 47)))[0].read().shape == (48, 64, 3)
    with writing_video(tmp_path / "changing.mp4", Fraction(25)) as writer:
        for size in ((64, 48), (31, 33), (128, 96)):
            writer.write(PIL.Image.new("RGB", size), None)
    assert [frame.read().shape for frame in frames_of(tmp_path / "changing.mp4")] == [(48, 64, 3)] * 3


def test_the_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4")
    assert is_marked(path)
    write(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1     # somebody has worked on it
    path.write_bytes(content)
    assert not is_marked(path)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be written .*ddetr has not written"):
        write(path)
    assert path.read_bytes() == content


def test_nothing_half_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def frames() -> Iterator[float]:
        yield from (0.0, 0.1)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        write(tmp_path / "a.mp4", seconds=frames())
    assert list(tmp_path.iterdir()) == []
    before = write(tmp_path / "a.mp4").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(VideoError, match=r"a\.mp4: cannot be written \(No space left on device\)"):
        write(tmp_path / "a.mp4", seconds=[0.0])
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [before]


def test_a_disk_that_is_full_while_frames_are_written() -> None:
    class Full(io.BytesIO):
        def write(self, piece: Any, /) -> int:
            if self.tell() > 100_000:
                raise OSError(28, "No space left on device")
            return super().write(piece)

    generator = np.random.default_rng(0)
    writer = VideoWriter(Full(), Fraction(25), "a.mp4")

    def fill() -> None:
        for _ in range(100):
            writer.write(PIL.Image.fromarray(generator.integers(0, 256, (480, 640, 3), dtype=np.uint8)), None)
        writer.finish()

    with pytest.raises((VideoError, OSError), match="No space left on device"):
        fill()
    writer.close()
