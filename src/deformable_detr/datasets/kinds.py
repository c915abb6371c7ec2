"""Every kind of fault that a data set can have: how bad it is, what it is called, and what to do about it."""

from enum import Enum
from typing import Literal

Severity = Literal["error", "warning"]


class Fault(Enum):
    """An error would stop a training, or make it learn or measure something wrong; a warning would not.

    Each has a severity, a title and advice; `fix` is what `write_fixed` does about it, which follows its name.
    """

    ANNOTATION_FILE = ("error", "annotation files that cannot be used", "correct the file at the place given")
    ENTRY = ("error", "entries with a missing or impossible field", "correct the field, or remove the entry")
    ID_TWICE = ("error", "ids or names used twice", "give every image and every class its own id and name")
    CLASS_UNKNOWN = ("error", "objects of a class that is not listed", "list the class, or correct the object's class")
    CLASSES_UNLEARNED = ("error", "splits with objects of classes that train does not list",
                         "list the same classes in every split: only those of train can be learned")
    PICTURE_UNKNOWN = ("error", "objects of an image that is not listed", "list the image, or remove its objects")
    NAME_REFUSED = ("error", "names that lead outside the data set or contain control characters",
                    "rename the file; replace a link by the file it points to")
    NAMES_MISSING = ("error", "classes without names",
                     "list the names: in data.yaml (names: [cat, dog]), for shards in classes.json")
    SPLIT_UNKNOWN = ("error", "files whose names do not tell their split",
                     "name them, or their folders, after their split: train-0.tar, val-0.tar")
    NO_IMAGES = ("error", "splits without images", "find out where the images went, or remove the split")
    NO_OBJECTS = ("error", "splits without objects",
                  "find out where the annotations went; YOLO expects labels/train/a.txt for images/train/a.jpg")
    PICTURE_MISSING = ("error", "listed images that do not exist", "add the images, or remove their entries")
    PICTURE_UNREADABLE = ("error", "images that cannot be read", "replace the image, or remove its entry")
    PICTURE_TRUNCATED = ("error", "truncated images", "copy or download the image again")
    PICTURE_SIZE = ("error", "images whose size is not the annotated one",
                    "the boxes were drawn at another size: export again, or annotate this image")
    PICTURE_LEAK = ("error", "images that are in two splits, which makes the evaluation meaningless",
                    "keep each image in one split", "removes them from train")
    BOX_FRACTIONS = ("error", "boxes in fractions of the image instead of pixels",
                     "multiply by the image's width and height", "does so")
    BOX_PIXELS = ("error", "boxes in pixels instead of fractions of the image",
                  "divide by the image's width and height", "does so")
    BOX_CORNERS = ("error", "boxes that look like two corners instead of a corner and a size",
                   "write x, y, width, height", "does so")

    PICTURE_ROTATED = ("warning", "images rotated by EXIF",
                       "see in the contact sheet whether the boxes fit; better, rotate the pixels and drop the tag")
    PICTURE_MISLABELLED = ("warning", "images in another format than their suffix says",
                           "rename them, as other tools may refuse them", "does so")
    PICTURE_DUPLICATE = ("warning", "identical images within a split", "keep one of them", "does so")
    PICTURE_SIMILAR = ("warning", "images that look like another one of their split",
                       "harmless if few; neighbouring video frames teach less than their number suggests")
    PICTURE_SIMILAR_LEAK = ("warning", "images that look like one of another split",
                            "split by scene, video or session, not by image")
    PICTURE_FRAMES = ("warning", "images with further pages or frames, which are not read",
                      "save each page or frame that is annotated as an image of its own")
    PICTURE_DARK = ("warning", "images of more than 8 bits that turn out nearly black",
                    "save them with 8 bits, scaled so that white is 255")
    PICTURE_TWICE = ("warning", "images listed more than once", "list each image once, with all of its objects",
                     "does so")
    PICTURE_UNLISTED = ("warning", "images without annotations, which are not used",
                        "annotate them, or list them without objects")
    PICTURE_UNREAD = ("warning", "images in formats that are not read", "convert them, for example to JPEG")
    PICTURES_EMPTY = ("warning", "splits in which most images have no objects",
                      "make sure that no objects were lost; images that are meant to be empty are fine")
    LABEL_MISSING = ("warning", "images without a label file, taken as empty",
                     "give images that are meant to be empty an empty label file")
    LABEL_ORPHAN = ("warning", "label files without an image", "add the image, or remove the label file")
    OTHER_ANNOTATIONS = ("warning", "further annotations, which are not read",
                         "name folders and files after their split: train, val, test; keep one format in a folder")
    PATH_ELSEWHERE = ("warning", "paths of another machine, of which only the end is in the data set",
                      "see that these are the right folders; better, write paths from the folder of data.yaml")
    FOLDER_LINKED = ("warning", "folders outside of the data set, to which links lead",
                     "see that these are the right ones: their files are read, and copied")
    ANNOTATION_ID_TWICE = ("warning", "annotation ids used twice", "give every annotation its own id")
    IDS_SPARSE = ("warning", "class ids with gaps", "harmless here: ids are mapped to 0, 1, 2, ...")
    CLASS_COUNT = ("warning", "a class count that is not the number of names", "correct the count, or the names")
    CLASS_ALIKE = ("warning", "class names that differ only in case or spacing", "make them one class")
    CLASSES_DIFFER = ("warning", "splits that list other classes than train", "list the same classes in every split")
    CLASSES_ORDER = ("warning", "splits that list the classes of train in another order",
                     "harmless here: classes are matched by name")
    CLASS_SIDES = ("warning", "class names that speak of sides, which mirrored images confuse",
                   "train without mirroring images")
    CLASS_ABSENT = ("warning", "classes without objects in a split",
                    "add images that show them; without any in train they cannot be learned")
    CLASS_RARE = ("warning", "classes with few objects", "add images: a class takes dozens of objects to learn")
    CLASS_IMBALANCE = ("warning", "classes far rarer than the most frequent one", "add images that show them")
    OBJECT_IGNORED = ("warning", "objects marked to be ignored, taken as crowds",
                      "harmless: training leaves them out, the evaluation neither expects nor punishes them")
    OBJECT_AREA = ("warning", "impossible areas, for which the box's is taken",
                   "correct the area, by which the evaluation tells small from large, or remove the field", "does so")
    BOX_EMPTY = ("warning", "boxes without area: left out of training, missed in evaluation",
                 "remove them, or draw them again", "removes them")
    BOX_SWAPPED = ("warning", "boxes with swapped corners: left out of training, missed in evaluation",
                   "swap the corners", "does so")
    BOX_OUTSIDE = ("warning", "boxes outside their image: left out of training, missed in evaluation",
                   "see whether they belong to another image", "removes them")
    BOX_FIRST_PIXEL = ("warning", "boxes within the first pixel of their image",
                       "if they are fractions of the image, multiply by its width and height; otherwise remove them")
    BOX_OVER = ("warning", "boxes that extend beyond their image, which are clipped for training",
                "harmless if only slightly", "clips them")
    BOX_DUPLICATE = ("warning", "boxes given twice", "remove one of them", "does so")
    BOX_TWO_CLASSES = ("warning", "boxes given for two classes", "decide on one of them")
    BOX_TINY = ("warning", "objects smaller than a pixel of the finest feature map",
                "train at a larger image size, or cut the images into tiles")
    OBJECTS_MANY = ("warning", "images with more objects than the model has queries", "train with more queries")
    OBJECTS_UNCOUNTED = ("warning", "images with more objects than the evaluation counts detections",
                         "harmless for training; when detecting, keep more detections an image")

    def __init__(self, severity: Severity, title: str, advice: str, fix: str = "") -> None:
        self.severity: Severity = severity
        self.title = title
        self.advice = advice
        self.fix = fix

    @property
    def code(self) -> str:
        """Its name in documents and JSON."""
        return self.name.lower().replace("_", "-")
