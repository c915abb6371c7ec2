"""What happens at each stage of a trace, and why: one line each, with the section of the paper.

A section without a name is Deformable DETR's (arXiv 2010.04159). The others are DETR's (2005.12872), DAB-DETR's
(2201.12329) and DINO's (2203.03605).
"""

import re
from typing import Any

ANCHORS = "a learned box says better where to look than a learned vector (DAB-DETR, section 4.2)"
DENSE = "every token attends to every other, so the cost grows with their number squared (DETR, section 3.2)"
LEARNED = "the same for every image, learned in training (section 4.1; DETR, section 3.2)"
MOVED = "each layer's head moves the box that the layer started from, in inverse-sigmoid space (appendix A.3)"
NEXT_POSITION = "made anew from the box in each layer, so that the query knows where it is now (DAB-DETR, section 4.2)"

# By class or function, then by the name of the stage with # for numbers.
REASONS: dict[str, dict[str, str]] = {
    "read_image": {"image #": "decoded to RGB and turned upright, as its EXIF entry says"},
    "prepare_image": {"image #": "resized and normalised as for the training of the backbone (appendix A.4)"},
    "ImageBatch": {
        "images": "images of different sizes in one tensor, padded on the right and at the bottom",
        "padding": "True where padded: no token there may be attended to or sampled"},
    "Backbone": {"C#": "features of the backbone: C3 has stride 8, C4 16, C5 32, or 16 if dilated (appendix A.2)"},
    "PyramidBuilder": {
        "level #": "with C channels like all levels, so that one attention can sample them (appendix A.2, figure 4)",
        "tokens": "all levels in one sequence, the finest first (section 4.1)",
        "position": "a sine encoding of the place, and a learned vector that says which level a token is of "
                    "(section 4.1)",
        "padding": "the padding of the images, resized to each level by nearest neighbour",
        "level shapes": "where each level's rows end; Python integers, so nothing waits for a GPU",
        "level starts": "the first token of each level in the sequence",
        "valid ratios": "the unpadded share of each level: it turns places in the image into places on the map"},
    "SingleMap": {
        "level #": "the last map projected to C channels (DETR, section 3.2)",
        "tokens": "the map as a sequence, row by row (DETR, section 3.2)",
        "position": "a sine encoding of the place: attention alone does not know it (DETR, section 3.2)",
        "padding": "the padding of the images, resized to the map by nearest neighbour",
        "level shapes": "where the map's rows end; Python integers, so nothing waits for a GPU",
        "level starts": "one level, which starts at the first token",
        "valid ratios": "the unpadded share of the map"},
    "Encoder": {
        "reference points": "each token's reference is its own centre, the same place on all levels (section 4.1)",
        "layer # tokens": "attention and a feed-forward network, each with a residual sum and a norm (section 4.1; "
                          "DETR, section 3.2)",
        "memory": "the tokens after the last layer: what the decoder attends to, or samples (section 4.1)"},
    "ScaledPosition": {"position": "the content decides how much each channel of the position counts, as in the "
                                   "published code"},
    "DeformableAttention": {
        "value": "what is sampled: the tokens through W', M heads side by side, zero at padding (section 4.1, "
                 "equation 3)",
        "sampling offsets": "where each query samples, from its reference: a linear layer of the query (section 4.1, "
                            "equation 3)",
        "attention weights": "how much each sample counts: a softmax over the levels and points of a head "
                             "(section 4.1, equation 3)",
        "output": "the heads' sums mixed by W, the output projection (section 4.1, equation 3)"},
    "fused_ms_deform_attn": {
        "samples": "the op: bilinear samples at M x L x P places of each query, weighted and summed (section 4.1, "
                   "equation 3)"},
    "TokenSelfAttention": {"output": DENSE},
    "MemoryAttention": {"output": "every query attends to the whole memory: a weight for each token and head (DETR, "
                                  "section 3.2)"},
    "ConditionalAttention": {"output": "content is compared with content, place with place; both products are added "
                                       "(DAB-DETR, section 4.2)"},
    "FirstConditionalAttention": {"output": "as later layers', but the queries have no content yet, so the position "
                                            "is added (DAB-DETR, section 4.2)"},
    "FeedForward": {"hidden": "each token or query by itself, wider and back again (DETR, section 3.2)"},
    "LearnedQueries": {
        "query embedding": LEARNED,
        "position": "the first half of the embedding: where a query tends to look, added in every layer (section 4.1)",
        "content": "the second half of the embedding: what the first layer starts from (section 4.1)",
        "reference": "a linear layer and a sigmoid make a point of the position: the first guess of a centre "
                     "(section 4.1)"},
    "SlotQueries": {
        "query embedding": LEARNED,
        "position": "the embedding itself, added in every layer (DETR, section 3.2)",
        "content": "zero: all that distinguishes queries at first is their position (DETR, section 3.2)"},
    "AnchorQueries": {
        "query anchors": ANCHORS,
        "content": "zero, or learned in DAB-Deformable-DETR (DAB-DETR, section 4.2)",
        "query contents": "learned: what each query looks for at first",
        "reference": "the learned boxes, by a sigmoid in [0, 1] (DAB-DETR, section 4.2)"},
    "ProposalQueries": {
        "proposal logits": "a score for every token: is there an object? (section 4.2; of which class, for DINO, "
                           "section 3.4)",
        "proposal boxes": "a box for every token, moved from one of the level's size; 1 where none is possible "
                          "(section 4.2, appendix A.4)",
        "query embedding.content": "a learned content for each rank (DINO, section 3.4)",
        "query embedding.labels": "what a noisy box claims to be; used in training only (DINO, section 3.3)",
        "position": "made of the proposed box (section 4.2, appendix A.4)",
        "content": "made of the proposed box (section 4.2, appendix A.4), or learned (DINO, section 3.4)",
        "reference": "the best proposals, without gradient: here the decoder starts (section 4.2)"},
    "BoxPlace": {"position": NEXT_POSITION},
    "ModulatedPlace": {
        "position": NEXT_POSITION,
        "sine": "stretched by the box's width and height, so that attention fits the object (DAB-DETR, section 4.4)"},
    "DecoderLayer": {
        "reference": "around which the layer samples, scaled to the padded map of each level (section 4.1; after the "
                     "first layer the refined box, section 4.2)",
        "self-attention": "the queries attend to each other, so that they do not all find the same object "
                          "(section 4.1; DETR, section 3.2)",
        "hidden": "what the query knows after this layer (section 4.1)"},
    "Head": {
        "logits": "a linear layer: the score of each class before the sigmoid, or of DETR's softmax (section 4.1)",
        "boxes": MOVED},
    "Decoder": {
        "logits": "of every layer; the last layer's are the result, all are trained (DETR, section 3.2)",
        "boxes": "of every layer, centre, width and height in [0, 1] of the unpadded image (section 4.1)"},
    "Detections": {
        "image # boxes": "corners in pixels of the image as it was given",
        "image # scores": "the best over queries and classes; no suppression is needed unless the weights ask for it "
                          "(DETR, section 3.1)"},
}


def reason_for(source: Any, name: str) -> str:
    """The line for a stage that `source`, a part of a model or a function, has made."""
    classes = [source] if hasattr(source, "__name__") else type(source).__mro__
    stage = re.sub(r"\d+", "#", name)
    return next(REASONS[each.__name__][stage] for each in classes if stage in REASONS.get(each.__name__, {}))
