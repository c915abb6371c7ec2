"""Annotations to batches and targets."""

from typing import TYPE_CHECKING

from deformable_detr.lazy import lazy_names

if TYPE_CHECKING:
    from deformable_detr.loading.augmentation import train_transform
    from deformable_detr.loading.dataset import DetectionDataset, Sample, SampleKey
    from deformable_detr.loading.loader import BatchLoader, build_loader
    from deformable_detr.loading.transforms import ImageTransform, eval_transform

__all__ = ["BatchLoader", "DetectionDataset", "ImageTransform", "Sample", "SampleKey", "build_loader", "eval_transform",
           "train_transform"]

__getattr__, __dir__ = lazy_names({
    "deformable_detr.loading.augmentation": "train_transform",
    "deformable_detr.loading.dataset": "DetectionDataset Sample SampleKey",
    "deformable_detr.loading.loader": "BatchLoader build_loader",
    "deformable_detr.loading.transforms": "ImageTransform eval_transform",
})
