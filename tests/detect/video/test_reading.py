"""Frames of videos: in order, at their times, upright; what is broken, missing or no video is named."""

import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deformable_detr.detect.video import BrokenFrame, Frame, Video, VideoError
from deformable_detr.detect.video.streams import is_stream, without_password
from helpers.videos import RATE, number_of, numbered, save_video

COUNT = 60
KINDS = [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.mov", "mpeg4"),
         ("a.ts", "libx264")]


def frames_of(source: Any, **options: Any) -> list[Frame]:
    with Video(source, **options) as video:
        found = list(video)
    assert all(isinstance(frame, Frame) for frame in found), found
    return [frame for frame in found if isinstance(frame, Frame)]


def noise(count: int) -> Iterator[np.ndarray]:
    """Frames of which each is many bytes."""
    generator = np.random.default_rng(0)
    return (generator.integers(0, 256, (48, 64, 3), dtype=np.uint8) for _ in range(count))


def damaged(path: Path, first: float, number: int) -> Path:
    """The file with some bytes changed, from this share of its length on."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * first)
    content[start:start + number] = bytes(byte ^ 0x5A for byte in content[start:start + number])
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("name", "codec"), KINDS)
def test_all_frames_in_order_at_their_times(tmp_path: Path, name: str, codec: str) -> None:
    found = frames_of(save_video(tmp_path / name, numbered(COUNT), codec=codec))
    assert [frame.number for frame in found] == list(range(COUNT))
    assert [frame.seconds for frame in found] == pytest.approx([index / RATE for index in range(COUNT)], abs=2e-3)
    assert [number_of(frame.read()) for frame in found] == pytest.approx(list(range(COUNT)), abs=3)
    assert found[0].read().shape == (48, 64, 3)
    assert found[0].read().dtype == np.uint8


def test_every_nth_frame(tmp_path: Path) -> None:
    path = save_video(tmp_path / "a.mp4", numbered(COUNT))
    with Video(path, every=25) as video:
        assert video.num_frames == 3
        assert video.rate == RATE
    found = frames_of(path, every=25)
    assert [frame.number for frame in found] == [0, 25, 50]
    assert [number_of(frame.read()) for frame in found] == pytest.approx([0, 25, 50], abs=2)
    with pytest.raises(ValueError, match="every: expected at least 1, got 0"):
        Video(path, every=0)


def test_uneven_times(tmp_path: Path) -> None:
    """As phones write them."""
    path = save_video(tmp_path / "a.mp4", numbered(10), times=lambda index: index ** 2 / 100, ticks=100)
    assert [frame.seconds for frame in frames_of(path)] == pytest.approx([index ** 2 / 100 for index in range(10)],
                                                                         abs=2e-3)


def test_videos_of_phones_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.full((48, 64, 3), 40, dtype=np.uint8)
    pixels[:24, :32] = 220      # stored at the top left
    for rotation, corner in ((90, (-8, 8)), (-90, (8, -8)), (180, (-8, -8))):
        path = save_video(tmp_path / f"{rotation}.mp4", [pixels] * 3, rotation=rotation)
        upright = frames_of(path)[0].read()
        assert upright.shape == ((48, 64, 3) if rotation == 180 else (64, 48, 3))
        assert upright[corner].min() > 180
        assert upright[corner[0] * -1, corner[1] * -1].max() < 80


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4"])
def test_open_files(tmp_path: Path, name: str) -> None:
    content = save_video(tmp_path / name, numbered(COUNT)).read_bytes()
    assert len(frames_of(io.BytesIO(content), name="clip")) == COUNT


def test_broken_frames_are_passed_and_have_their_number(tmp_path: Path) -> None:
    path = damaged(save_video(tmp_path / "a.avi", noise(COUNT), codec="mjpeg"), 0.5, 300)
    with Video(path) as video:
        found = list(video)
    broken = [frame for frame in found if isinstance(frame, BrokenFrame)]
    assert 1 <= len(broken) <= 2
    assert [frame.number for frame in found] == list(range(COUNT))
    assert COUNT // 4 < broken[0].number < COUNT * 3 // 4
    assert broken[0].seconds == pytest.approx(broken[0].number / RATE)
    assert broken[0].reason


def test_broken_frames_of_a_codec_that_looks_ahead(tmp_path: Path) -> None:
    path = damaged(save_video(tmp_path / "a.mp4", noise(COUNT)), 0.5, 400)
    with Video(path) as video:
        found = list(video)
    broken = [frame for frame in found if isinstance(frame, BrokenFrame)]
    assert broken
    assert [frame.number for frame in found] == list(range(len(found)))
    times = [frame.seconds for frame in found if frame.seconds is not None]
    assert times == sorted(times)
    assert len(found) <= COUNT


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.avi", "mjpeg"), ("a.webm", "libvpx-vp9")])
def test_a_truncated_video_is_named_after_its_frames(tmp_path: Path, name: str, codec: str) -> None:
    path = save_video(tmp_path / name, noise(COUNT), codec=codec)
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    found = []
    with Video(path) as video, pytest.raises(VideoError) as raised:
        found += video
    assert COUNT // 4 < len(found) < COUNT * 3 // 4
    assert str(raised.value).startswith(f"{path}: truncated: it ends after ")


def test_a_truncated_mp4_has_no_index(tmp_path: Path) -> None:
    path = save_video(tmp_path / "a.mp4", noise(COUNT))
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    with pytest.raises(VideoError, match=r"a\.mp4: not a video, truncated, or its format is not supported"):
        Video(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.avi", "a.mkv"])
def test_a_video_without_frames(tmp_path: Path, name: str) -> None:
    path = save_video(tmp_path / name, [], codec="mpeg4")
    with pytest.raises(VideoError) as raised, Video(path) as video:
        list(video)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_what_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video " * 1000)
    (tmp_path / "folder.mp4").mkdir()
    for name, message in (("empty", "empty file"), ("text", "not a video"), ("absent", "No such file"),
                          ("folder", "s a directory")):
        with pytest.raises(VideoError, match=rf"{name}\.mp4: .*{message}"):
            Video(tmp_path / f"{name}.mp4")
    with pytest.raises(VideoError, match=r"rtsp://me:\*\*\*@127\.0\.0\.1:1/x: Connection refused"):
        Video("rtsp://me:secret@127.0.0.1:1/x")


def test_a_playlist_opens_no_other_file(tmp_path: Path) -> None:
    segment = save_video(tmp_path / "secret.ts", numbered(COUNT))
    (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:4,\n{segment}\n#EXT-X-ENDLIST\n")
    (tmp_path / "a.ffconcat").write_text(f"ffconcat version 1.0\nfile '{segment}'\n")
    for name in ("a.m3u8", "a.ffconcat"):
        with pytest.raises(VideoError, match="format is not supported"):
            Video(tmp_path / name)
        with (tmp_path / name).open("rb") as file, pytest.raises(VideoError, match="format is not supported"):
            Video(file)


def test_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_video(tmp_path / "a.mp4", numbered(3))
    monkeypatch.setattr("deformable_detr.detect.video.reading.MAX_PIXELS", 48 * 64 - 1)
    with pytest.raises(VideoError, match="too many pixels"):
        Video(path)


def test_a_stream_that_breaks(tmp_path: Path) -> None:
    content = save_video(tmp_path / "a.ts", noise(COUNT)).read_bytes()

    class Breaking(io.RawIOBase):
        place = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.place > len(content) // 2:
                raise ConnectionError("the camera is gone")
            piece = content[self.place:self.place + min(len(buffer), 4096)]
            buffer[:len(piece)] = piece
            self.place += len(piece)
            return len(piece)

    found = []
    with pytest.raises(VideoError, match=r"camera: .*the camera is gone"), \
            Video(io.BufferedReader(Breaking()), "camera") as video:
        found += video


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(VideoError, match=r"a\.mp4: videos need PyAV .*pip install 'deformable-detr\[video\]'"):
        Video(tmp_path / "a.mp4")


def test_addresses_of_streams() -> None:
    assert is_stream("rtsp://camera/1")
    assert is_stream("RTSP://camera/1")
    assert not any(map(is_stream, ("rtsp:/camera", "http://host", "clip.mp4", Path("rtsp://a"), 3)))
    assert without_password("rtsp://me:secret@camera:554/a@b") == "rtsp://me:***@camera:554/a@b"
    assert without_password("rtsp://camera/a@b") == "rtsp://camera/a@b"


def test_streams_that_begin_in_the_middle(tmp_path: Path) -> None:
    """As of a channel whose program changes: the first one is read to its end."""
    first = save_video(tmp_path / "first.ts", noise(COUNT * 4))
    others = [save_video(tmp_path / f"{index}.ts", numbered(5),
                         options={"mpegts_start_pid": str(600 + 20 * index), "mpegts_pmt_start_pid": str(2000 + index)})
              for index in range(40)]
    content = b"".join(path.read_bytes() for path in (first, *others))
    with Video(io.BytesIO(content), "clip") as video:
        found = list(video)
    assert [frame.number for frame in found if isinstance(frame, Frame)] == list(range(COUNT * 4))
    assert len(found) <= COUNT * 4 + 1      # where the first ends, there may be a rest


def test_times_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deformable_detr.detect.video.reading.LONGEST_SECONDS", 0.1)
    path = save_video(tmp_path / "a.mp4", numbered(5))
    assert [frame.seconds for frame in frames_of(path)] == [0, 0.04, 0.08, None, None]
