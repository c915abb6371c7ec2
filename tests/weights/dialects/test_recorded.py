"""Key lists that the other code bases' own models have, and what these models computed with known weights."""

import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from deformable_detr import ImageBatch, ModelConfig, build_model
from deformable_detr.papers import Config
from deformable_detr.weights import from_official, to_official
from deformable_detr.weights.dialects import convert, detect
from deformable_detr.weights.dialects.reading import translated
from reference.dialects import known_dialects

FOLDER = Path(__file__).parents[2] / "reference" / "dialects"
LISTS = sorted(path.name.removesuffix(".json.gz") for path in FOLDER.glob("*.json.gz"))
REFUSED = {"hf4-conditional-detr-resnet-50": "Conditional DETR", "hf5-conditional-detr-resnet-50": "Conditional DETR",
           "detrex-dino-r50-4scale": "detrex's DINO"}
READ = [name for name in LISTS if name not in REFUSED]
WITH_SOURCE = [name for name in LISTS if "source" in known_dialects.names(FOLDER / f"{name}.json.gz")]
OUTPUTS = sorted(path.stem for path in FOLDER.glob("*.npz"))
NAMES = {"hf4": "huggingface", "hf5": "huggingface", "mmdet2": "mmdetection", "mmdet3": "mmdetection",
         "detrex": "detrex", "dino": "published"}
WRITTEN = {"hf4": "huggingface", "mmdet2": "mmdetection2", "mmdet3": "mmdetection", "detrex": "detrex",
           "dino": "published"}


def recorded(name: str) -> dict[str, Any]:
    return known_dialects.names(FOLDER / f"{name}.json.gz")


def small_values(meta: dict[str, Any]) -> dict[str, Tensor]:
    """A small tensor for each key, with as many axes as the real one; keys of one tensor share it."""
    def value(key: str, shape: list[int]) -> Tensor:
        if key.endswith("num_batches_tracked"):
            return torch.zeros((), dtype=torch.int64)
        generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
        return torch.randn([min(extent, 3) for extent in shape], generator=generator)

    state = {key: value(key, shape) for key, shape in meta["state_dict"].items()}
    for first, *others in meta.get("aliases") or []:
        state |= dict.fromkeys(others, state[first])
    if isinstance(meta.get("tied"), dict | list):    # DAB-DETR of transformers
        state |= {key: state[key.replace("model.decoder.bbox_embed", "bbox_predictor")]
                  for key in state if key.startswith("model.decoder.bbox_embed")}
    return state


@pytest.mark.parametrize("name", READ)
def test_every_key_has_its_place_and_returns_to_it(name: str) -> None:
    meta = recorded(name)
    state = small_values(meta)
    dialect = name.split("-")[0]
    assert detect(state) == NAMES[dialect]
    source = translated(state)
    config = Config.preset(meta["preset"]) if "preset" in meta else None
    if config is not None:
        assert source.described.refine == config.refine
        assert source.described.two_stage == config.two_stage
    if dialect == "hf5":
        return      # its names are read; those of release 4 are written
    returned = convert(source.state_dict, WRITTEN[dialect], config)
    expected = {key: value for key, value in state.items() if key != "criterion.empty_weight"}
    assert returned.keys() == expected.keys()
    assert all(torch.equal(returned[key], value) for key, value in expected.items())


@pytest.mark.parametrize("name", [name for name in LISTS if name.startswith("hf5") and name not in REFUSED])
def test_both_releases_of_transformers_name_the_same_tensors(name: str) -> None:
    newer, older = ({key: value.shape for key, value in convert(small_values(recorded(each)), "native").items()}
                    for each in (name, name.replace("hf5", "hf4")))
    assert newer == older


@pytest.mark.parametrize(("name", "detector"), REFUSED.items())
def test_other_detectors_are_named_and_refused(name: str, detector: str) -> None:
    with pytest.raises(ValueError, match=detector):
        convert(small_values(recorded(name)), "native")


@pytest.mark.parametrize("name", [name for name in READ if recorded(name).get("aliases")])
@pytest.mark.parametrize("kept", [0, -1])
def test_one_name_of_each_tensor_is_enough(name: str, kept: int) -> None:
    """As files of safetensors have it, which store a tensor once."""
    meta = recorded(name)
    state = small_values(meta)
    cut = dict(state)
    for group in meta["aliases"]:
        for key in group:
            if key != group[kept]:
                cut.pop(key, None)
    assert len(cut) < len(state)
    refine = Config.preset(meta["preset"]).refine if "preset" in meta else None
    whole, part = translated(state, refine=refine).state_dict, translated(cut, refine=refine).state_dict
    assert part.keys() == whole.keys()
    assert all(torch.equal(part[key], whole[key]) for key in whole)


SAVED = [name for name in LISTS if isinstance(recorded(name).get("saved", {}).get("model.safetensors"), list)]


@pytest.mark.parametrize("name", SAVED)
def test_the_keys_that_transformers_saves_are_enough(name: str) -> None:
    """Both releases save the names of release 4, and each tensor once."""
    meta = recorded(name)
    state = small_values(recorded(name.replace("hf5", "hf4")))
    saved = {key: state[key] for key in meta["saved"]["model.safetensors"]}
    assert len(saved) < len(state)
    source = translated(saved, refine=Config.preset(meta["preset"]).refine)
    assert source.state_dict.keys() == translated(state).state_dict.keys()


@pytest.mark.parametrize("how", known_dialects.WRAPPERS)
@pytest.mark.parametrize("name", ["hf4-two-stage", "mmdet3-refine", "detrex-multi-scale", "dino-dino-4scale"])
def test_wrappers_are_taken_off(name: str, how: str) -> None:
    from deformable_detr.weights.wrappers import unwrapped

    state = {key: value.half().float() if value.is_floating_point() else value
             for key, value in small_values(recorded(name)).items()}
    found = unwrapped(known_dialects.wrap(state, how))
    assert found.keys() == state.keys()
    assert all(torch.equal(found[key].float(), state[key].float()) for key in state)


@pytest.mark.parametrize("name", OUTPUTS)
def test_outputs_of_the_other_code_base(name: str) -> None:
    meta, arrays = known_dialects.load(FOLDER / f"{name}.npz")
    theirs = {key: torch.from_numpy(value) for key, value in known_dialects.dialect_state(meta).items()}
    official = {key: torch.from_numpy(value) for key, value in known_dialects.official_state(meta).items()}
    config = ModelConfig.preset(meta["preset"], num_classes=len(official["class_embed.0.bias"]), num_queries=60)
    ours = convert(theirs, "native", config)
    expected = from_official(official, config)
    assert ours.keys() == expected.keys()
    assert all(torch.equal(ours[key], expected[key]) for key in expected)
    back = to_official(ours, config)
    assert all(torch.equal(back[key], official[key]) for key in back)
    model = build_model(config).eval()
    model.load_state_dict(ours)
    with torch.no_grad():
        for index, image in enumerate(known_dialects.images(meta)):
            if name.startswith("detrex"):       # it knows no padding
                found = model(ImageBatch.from_images([torch.from_numpy(image)]))
                rows = slice(index, index + 1)
            elif index == 0:
                found = model(ImageBatch.from_images([*map(torch.from_numpy, known_dialects.images(meta))]))
                rows = slice(None)
            else:
                break
            for actual, wanted, tolerance in ((found.logits[-1], arrays["pred_logits"][rows], 1e-4),
                                              (found.boxes[-1], arrays["pred_boxes"][rows], 1e-5)):
                assert (actual - torch.from_numpy(wanted)).abs().max() < tolerance
