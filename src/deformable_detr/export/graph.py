"""A detector as a graph of tensors, which is what other runtimes load: pixels and sizes in, detections out."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped
from torch import Tensor, nn

from deformable_detr.boxes import cxcywh_to_xyxy
from deformable_detr.model.network import Network
from deformable_detr.preprocessing import Preprocessing
from deformable_detr.structures import ImageBatch, Predictions

INPUTS = ("images", "sizes")
RAW_OUTPUTS = ("logits", "pred_boxes")          # of the last decoder layer
CHOSEN = ("chosen",)                            # two-stage only: the tokens that became queries
DETECTIONS = ("boxes", "scores", "labels")
UNKNOWN_SIZE = (0, 0)                           # no size of any tensor, so the graph always counts with padding


class Normalised(nn.Module):
    """Colours in 0..255 with the mean and the deviation that the backbone expects."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean)[:, None, None])
        self.register_buffer("deviation", torch.tensor(preprocessing.deviation)[:, None, None])

    def forward(self, images: Shaped[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 H W"]:
        return (images.float() / 255 - self.get_buffer("mean")) / self.get_buffer("deviation")


class BestDetections(nn.Module):
    """The `top_k` highest scores, best first, as `Predictions.detections` finds them, without NMS."""

    def __init__(self, top_k: int) -> None:
        super().__init__()
        self.top_k = top_k

    def forward(self, predictions: Predictions) -> tuple[Float[Tensor, "B T 4"], Float[Tensor, "B T"],
                                                         Int64[Tensor, "B T"]]:
        """Boxes xyxy in [0, 1] of the unpadded image, scores in [0, 1], and class indices."""
        scores = predictions.scores()
        num_classes = scores.shape[-1]
        if predictions.no_object:       # a query of DETR stands for its best class alone
            best, classes = scores.max(-1)
            scores, queries = best.topk(min(self.top_k, best.shape[1]))
            labels = classes.gather(1, queries)
        else:
            each = scores.flatten(1)
            scores, places = each.topk(min(self.top_k, each.shape[1]))
            queries, labels = places // num_classes, places % num_classes
        boxes = predictions.boxes[-1].gather(1, queries[..., None].expand(-1, -1, 4))
        return cxcywh_to_xyxy(boxes).clamp(0, 1), scores, labels


class DetectorGraph(nn.Module):
    """`model` with what stands around it: the padding made from sizes, and unless `raw` normalising and the best boxes.

    Images are stacked in one tensor, each in the upper left corner; what lies outside its size is not looked at. Sides
    are padded to multiples of the preprocessing's divisor.
    """

    def __init__(self, model: Network, preprocessing: Preprocessing, top_k: int, raw: bool) -> None:
        super().__init__()
        self.model = model
        self.normalised = nn.Identity() if raw else Normalised(preprocessing)
        self.divisor = preprocessing.divisor
        self.best = None if raw else BestDetections(top_k)

    def forward(self, images: Shaped[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"]) -> tuple[Tensor, ...]:
        """Raw outputs, the chosen tokens of a two-stage detector, and unless raw the best detections.

        `images` are RGB in 0..255, or if raw already normalised; `sizes` are (height, width) before padding.
        """
        predictions = self.model(self.batch(self.normalised(images), sizes))
        chosen = () if predictions.proposals is None else (predictions.proposals.chosen,)
        found = () if self.best is None else self.best(predictions)
        return predictions.logits[-1], predictions.boxes[-1], *chosen, *found

    def batch(self, images: Float[Tensor, "B 3 H W"], sizes: Int64[Tensor, "B 2"]) -> ImageBatch:
        """Normalised images as the model takes them."""
        missing = [((side - 1) // self.divisor + 1) * self.divisor - side for side in images.shape[2:]]
        pixels = F.pad(images, (0, missing[1], 0, missing[0])) if self.divisor > 1 else images
        padding = padding_outside(sizes, pixels.shape[2], pixels.shape[3])
        return ImageBatch(pixels.masked_fill(padding[:, None], 0), padding, (UNKNOWN_SIZE,))


def padding_outside(sizes: Int64[Tensor, "B 2"], height: int, width: int) -> Tensor:
    """(B, height, width), True outside each image."""
    rows = torch.arange(height, device=sizes.device)[None] >= sizes[:, :1]
    columns = torch.arange(width, device=sizes.device)[None] >= sizes[:, 1:]
    return rows[:, :, None] | columns[:, None]
