"""A server of an exported file."""

from pathlib import Path

import pytest

from deformable_detr import Detector
from helpers.serving import serving


def test_an_exported_file_is_served_but_explains_nothing(exported_files: Path, images: list[bytes]) -> None:
    detector = Detector(exported_files / "free.onnx", "cpu")
    with serving(detector) as server:
        found = server.ask("/detect?threshold=0", images[0]).json()["detections"]
        scores = detector(images[0], threshold=0).scores
        assert [each["score"] for each in found] == pytest.approx(scores.tolist(), abs=1e-4)
        refused = server.ask("/explain", images[0])
        assert refused.status == 422
        assert "an exported file shows only its results" in refused.error
