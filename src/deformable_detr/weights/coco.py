"""The classes of COCO: 80 names with their category ids, which leave gaps up to 90 (cocodataset.org, 2014 to 2017)."""

from typing import NamedTuple

NUM_IDS = 91        # heads trained on the ids themselves have a row for each of 0..90
NO_CLASS = "N/A"    # the name of an id that no class has

CLASSES: dict[int, str] = {
    1: "person", 2: "bicycle", 3: "car", 4: "motorcycle", 5: "airplane", 6: "bus", 7: "train", 8: "truck", 9: "boat",
    10: "traffic light", 11: "fire hydrant", 13: "stop sign", 14: "parking meter", 15: "bench", 16: "bird", 17: "cat",
    18: "dog", 19: "horse", 20: "sheep", 21: "cow", 22: "elephant", 23: "bear", 24: "zebra", 25: "giraffe",
    27: "backpack", 28: "umbrella", 31: "handbag", 32: "tie", 33: "suitcase", 34: "frisbee", 35: "skis",
    36: "snowboard", 37: "sports ball", 38: "kite", 39: "baseball bat", 40: "baseball glove", 41: "skateboard",
    42: "surfboard", 43: "tennis racket", 44: "bottle", 46: "wine glass", 47: "cup", 48: "fork", 49: "knife",
    50: "spoon", 51: "bowl", 52: "banana", 53: "apple", 54: "sandwich", 55: "orange", 56: "broccoli", 57: "carrot",
    58: "hot dog", 59: "pizza", 60: "donut", 61: "cake", 62: "chair", 63: "couch", 64: "potted plant", 65: "bed",
    67: "dining table", 70: "toilet", 72: "tv", 73: "laptop", 74: "mouse", 75: "remote", 76: "keyboard",
    77: "cell phone", 78: "microwave", 79: "oven", 80: "toaster", 81: "sink", 82: "refrigerator", 84: "book",
    85: "clock", 86: "vase", 87: "scissors", 88: "teddy bear", 89: "hair drier", 90: "toothbrush"}


class Classes(NamedTuple):
    """Names and category ids by class index."""

    names: tuple[str, ...]
    category_ids: tuple[int, ...]


def named_classes(names: tuple[str, ...]) -> Classes:
    """Classes of these names; their ids are COCO's if the names are, else the numbers."""
    usual = usual_classes(len(names))
    return usual if names == usual.names else Classes(names, tuple(range(len(names))))


def usual_classes(num_classes: int) -> Classes:
    """The classes of a foreign detector that has no names: COCO's if their number fits, else the numbers."""
    if num_classes == NUM_IDS:
        return Classes(tuple(CLASSES.get(number, NO_CLASS) for number in range(NUM_IDS)), tuple(range(NUM_IDS)))
    if num_classes == len(CLASSES):
        return Classes(tuple(CLASSES.values()), tuple(CLASSES))
    return Classes(tuple(map(str, range(num_classes))), tuple(range(num_classes)))
