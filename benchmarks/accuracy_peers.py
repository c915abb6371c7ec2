"""Detectors of other libraries, trained for a given time on batches of our loader and counted by our evaluator."""

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from torchvision.models.detection import FCOS
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.detections import Detections
from deformable_detr.evaluation import CocoEvaluator, CocoMetrics, detect_all
from deformable_detr.loading.augmentation import train_transform
from deformable_detr.loading.dataset import DetectionDataset
from deformable_detr.loading.loader import Batch, TrainingBatches, build_loader
from deformable_detr.loading.transforms import eval_transform
from deformable_detr.papers import Config, build_model
from deformable_detr.preprocessing import Preprocessing, usual_max_size
from deformable_detr.structures import ImageBatch, ImageSize, Predictions, Target
from deformable_detr.training.backbones import backbone_preprocessing, load_backbone

TRIALS = (2, 8)     # steps; what the second takes longer is the time of a step
Learner = Callable[[nn.Module, Iterator[Batch], int], None]     # a model, its batches, how many steps


@dataclass(frozen=True)
class Setting:
    """What all peers share; `seconds` of wall clock for the trial and the training."""

    data: Path
    backbone: str
    backbone_weights: Path
    size: int
    seed: int
    seconds: float

    @property
    def preprocessing(self) -> Preprocessing:
        """As of our own detectors with this backbone."""
        usual = backbone_preprocessing(self.backbone)
        return Preprocessing(self.size, usual_max_size(self.size), usual.mean, usual.deviation, usual.divisor)

    def pretrained_backbone(self) -> Any:
        """That of our own detectors: maps at strides 8, 16 and 32, batch norms frozen."""
        model = build_model(Config.preset("two-stage", backbone=self.backbone))
        load_backbone(model, self.backbone_weights)
        return model.backbone


class Maps(nn.Module):
    """The last three maps of a backbone for a tensor of images."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        self.net, self.channels = backbone.net, backbone.channels

    def forward(self, images: Tensor) -> list[Tensor]:
        return self.net(images)[-3:]


def race_transformers(setting: Setting) -> dict[str, Any]:
    """As its config and its example have it."""
    return _race(setting, 8, lambda count: _transformers_model(setting, count),
                 lambda model, batches, steps: _learn_with_trainer(model, batches, steps, setting.seed, 5e-5),
                 _count_transformers)


def race_transformers_small(setting: Setting) -> dict[str, Any]:
    """Our sizes, and what its authors' paper trained with."""
    sizes = {"d_model": 128, "encoder_layers": 2, "decoder_layers": 3, "encoder_ffn_dim": 512, "decoder_ffn_dim": 512,
             "num_queries": 100, "dropout": 0.0, "with_box_refine": True, "two_stage": True,
             "two_stage_num_proposals": 100, "auxiliary_loss": True}
    return _race(setting, 2, lambda count: _transformers_model(setting, count, **sizes),
                 lambda model, batches, steps: _learn_with_trainer(model, batches, steps, setting.seed, 2e-4),
                 _count_transformers)


def race_fcos(setting: Setting) -> dict[str, Any]:
    """A detector without attention."""
    return _race(setting, 2, lambda count: _fcos_model(setting, count), _learn_fcos, _count_fcos)


def _race(setting: Setting, batch_size: int, build: Callable[[int], nn.Module], learn: Learner,
          count: Callable[[nn.Module, DetectionDataset], CocoMetrics]) -> dict[str, Any]:
    """Train for the time, and count; the result's row."""
    learned = DetectionDataset(setting.data, "train", train_transform("small", setting.preprocessing))
    held_out = DetectionDataset(setting.data, "val", eval_transform(setting.preprocessing))

    def take(steps: int) -> tuple[nn.Module, float]:
        torch.manual_seed(setting.seed)
        model = build(len(learned.names)).train()
        start = time.monotonic()
        learn(model, _endless(learned, batch_size, setting.seed), steps)
        return model, time.monotonic() - start

    trials = [take(steps)[1] for steps in TRIALS]
    step = max(trials[1] - trials[0], 0.1) / (TRIALS[1] - TRIALS[0])
    steps = max(1, int((setting.seconds - sum(trials)) / step))
    model, seconds = take(steps)
    metrics = count(model.eval(), held_out)
    return {"minutes": (sum(trials) + seconds) / 60, "looks": f"{steps} steps of {batch_size}", "AP": metrics.AP,
            "AP50": metrics.AP50}


def _endless(data: DetectionDataset, batch_size: int, seed: int) -> Iterator[Batch]:
    """Epoch after epoch, each in another order."""
    loader = build_loader(data, batch_size, training=True, seed=seed, num_workers=1)
    batches = loader.batch_sampler
    assert isinstance(batches, TrainingBatches)
    epoch = 0
    while True:
        batches.set_epoch(epoch)
        yield from loader
        epoch += 1


def _transformers_model(setting: Setting, num_classes: int, **sizes: Any) -> nn.Module:
    """Its backbone is ours: when it freezes batch norms itself, the activations that timm keeps in them are lost."""
    import transformers

    timm_backbone = {"model_type": "timm_backbone", "backbone": setting.backbone, "use_pretrained_backbone": False,
                     "features_only": True, "out_indices": [2, 3, 4]}
    values: dict[str, Any] = {"backbone_config": timm_backbone, "num_labels": num_classes, **sizes}
    config = transformers.DeformableDetrConfig(**values)
    model = transformers.DeformableDetrForObjectDetection(config)
    model.model.backbone.model = Maps(setting.pretrained_backbone())  # type: ignore[assignment]
    return model


class _Inputs(IterableDataset[dict[str, Any]]):
    """Batches as `transformers` takes them."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for images, targets in self.batches:
            labels = [{"class_labels": target.labels, "boxes": target.boxes} for target in targets]
            yield {"pixel_values": images.images, "pixel_mask": (~images.padding).long(), "labels": labels}


def _learn_with_trainer(model: Any, batches: Iterator[Batch], steps: int, seed: int, rate: float) -> None:
    from transformers import Trainer, TrainingArguments

    with TemporaryDirectory() as folder:
        arguments = TrainingArguments(folder, max_steps=steps, learning_rate=rate, weight_decay=1e-4, seed=seed,
                                      per_device_train_batch_size=1,    # item of `_Inputs`, which is a whole batch
                                      remove_unused_columns=False, save_strategy="no", report_to="none", use_cpu=True,
                                      disable_tqdm=True, logging_steps=50)
        Trainer(model, arguments, data_collator=lambda batch: batch[0], train_dataset=_Inputs(batches)).train()


def _count_transformers(model: Any, data: DetectionDataset) -> CocoMetrics:
    def predict(batch: ImageBatch) -> Predictions:
        found = model(pixel_values=batch.images, pixel_mask=(~batch.padding).long())
        return Predictions(found.logits[None], found.pred_boxes[None])

    return detect_all(predict, build_loader(data, 2, training=False), data.annotations).summarize()


class FpnBackbone(nn.Module):
    """Five maps of 128 channels, as torchvision's FCOS takes them."""

    out_channels = 128

    def __init__(self, maps: Maps) -> None:
        super().__init__()
        self.maps = maps
        self.fpn = FeaturePyramidNetwork(maps.channels, self.out_channels,
                                         LastLevelP6P7(self.out_channels, self.out_channels))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.fpn(OrderedDict((str(level), values) for level, values in enumerate(self.maps(images))))


def _fcos_model(setting: Setting, num_classes: int) -> nn.Module:
    """It neither resizes nor normalises; scores from 0 on count, as for the others."""
    backbone = FpnBackbone(Maps(setting.pretrained_backbone()))
    return FCOS(backbone, num_classes, image_mean=[0.0] * 3, image_std=[1.0] * 3, score_thresh=0.0, _skip_resize=True)


def _learn_fcos(model: nn.Module, batches: Iterator[Batch], steps: int) -> None:
    """SGD with a rate of 0.01 for 16 images; a warm-up, then drops after 16 and 22 of 26 parts."""
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(learned, lr=0.01 * 2 / 16, momentum=0.9, weight_decay=1e-4)
    warm = min(1000, steps // 10 + 1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(
        (step + 1) / warm, 0.1 ** ((step >= steps * 16 // 26) + (step >= steps * 22 // 26))))
    for step, (images, targets) in enumerate(islice(batches, steps)):
        losses: dict[str, Tensor] = model(_alone(images), [_in_pixels(target, size) for target, size
                                                           in zip(targets, images.sizes, strict=True)])
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            print(f"step {step}/{steps}: loss {total:.3f}", flush=True)


def _alone(images: ImageBatch) -> list[Tensor]:
    """Each image without its padding."""
    return [image[:, :height, :width] for image, (height, width) in zip(images.images, images.sizes, strict=True)]


def _in_pixels(target: Target, size: ImageSize) -> dict[str, Tensor]:
    height, width = size
    return {"boxes": cxcywh_to_xyxy(target.boxes) * torch.tensor([width, height, width, height]),
            "labels": target.labels}


def _count_fcos(model: nn.Module, data: DetectionDataset) -> CocoMetrics:
    evaluator = CocoEvaluator(data.annotations)
    of_image: dict[Any, ImageSize] = {image.id: image.size for image in data.annotations.images}
    with torch.inference_mode():
        for images, targets in build_loader(data, 2, training=False):
            for target, resized, found in zip(targets, images.sizes, model(_alone(images)), strict=True):
                size = of_image[target.image_id]
                scale = torch.tensor([size[1] / resized[1], size[0] / resized[0]] * 2)
                evaluator.add(target.image_id, Detections(
                    (found["boxes"] * scale).numpy(), found["scores"].numpy(), found["labels"].numpy(),
                    [data.names[label] for label in found["labels"]], size))
    return evaluator.summarize()
