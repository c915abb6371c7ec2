"""Every kind of fault that a data set can have: how bad it is, what it is called, and what to do about it."""

from enum import Enum
from typing import Literal

Severity = Literal["error", "warning"]


class Kind(Enum):
    """An error would stop a training or make it learn, or measure, something wrong; a warning would not."""

    ANNOTATION_FILE = ("error", "annotation files that cannot be used", "mend the file where the message says")
    ENTRY = ("error", "entries with a field that is missing or impossible", "mend the field, or remove the entry")
    ID_TWICE = ("error", "ids given twice", "give every image and every class an id and a name of its own")
    CLASS_UNKNOWN = ("error", "objects of a class that is not listed", "list the class, or mend the object's")
    PICTURE_UNKNOWN = ("error", "objects of an image that is not listed", "list the image, or remove its objects")
    NAME_REFUSED = ("error", "names that lead out of the folder or hold control characters",
                    "rename the file, and put it into the data set's folder itself rather than a link")
    NAMES_MISSING = ("error", "classes without names",
                     "list the names: in data.yaml (names: [cat, dog]), beside shards in classes.json")
    NO_IMAGES = ("error", "splits without images", "remove the split, or look where its images went")
    NO_OBJECTS = ("error", "splits without a single object",
                  "look where the annotations went; for YOLO, labels/train/a.txt belongs to images/train/a.jpg")
    PICTURE_MISSING = ("error", "listed images that are not there", "copy the images, or remove their entries")
    PICTURE_UNREADABLE = ("error", "images that cannot be read", "replace the image, or remove its entry")
    PICTURE_TRUNCATED = ("error", "images whose end is missing", "copy or download the image again")
    PICTURE_SIZE = ("error", "images of another size than the annotations say",
                    "the boxes belong to another size: export again, or annotate this image")
    PICTURE_LEAK = ("error", "images that two splits share, so that the evaluation is no test",
                    "keep each in one split; --fix takes them out of train")
    BOX_FRACTIONS = ("error", "boxes in fractions of the image where pixels are expected",
                     "multiply by the image's width and height; --fix does")
    BOX_PIXELS = ("error", "boxes in pixels where fractions of the image are expected",
                  "divide by the image's width and height; --fix does")
    BOX_CORNERS = ("error", "boxes that look like two corners where a corner and a size are expected",
                   "write x, y, width, height; --fix does")

    PICTURE_ROTATED = ("warning", "images that EXIF turns",
                       "look whether the boxes lie right in the contact sheet; turn the pixels and drop the EXIF")
    PICTURE_MISLABELLED = ("warning", "images whose name says another format than they have",
                           "rename them, since other tools may refuse them; --fix does")
    PICTURE_DUPLICATE = ("warning", "images that come twice in a split", "keep one of them; --fix does")
    PICTURE_SIMILAR = ("warning", "images that look like another of their split",
                       "harmless if few; frames of a film teach less than their number says")
    PICTURE_SIMILAR_LEAK = ("warning", "images that look like one of another split",
                            "split by scene, film or session, not by image")
    PICTURE_TWICE = ("warning", "images listed twice", "list each image once, with all of its objects")
    PICTURE_UNLISTED = ("warning", "images without annotations, which are not used",
                        "annotate them, or list them as empty")
    PICTURES_EMPTY = ("warning", "splits most of whose images have no objects",
                    "look whether objects were lost; empty images are fine where they are meant")
    LABEL_MISSING = ("warning", "images without a label file, taken for empty",
                     "an empty file says that an image is meant to be empty")
    LABEL_ORPHAN = ("warning", "label files without an image", "copy the image, or remove the file")
    OTHER_ANNOTATIONS = ("warning", "further annotations, which are not read", "keep one kind in the folder")
    ANNOTATION_ID_TWICE = ("warning", "annotation ids given twice", "give every annotation an id of its own")
    IDS_SPARSE = ("warning", "class ids with gaps", "harmless here: ids are mapped to 0, 1, 2, ...")
    CLASS_COUNT = ("warning", "a number of classes that is not the number of names", "mend nc, or the names")
    CLASS_ALIKE = ("warning", "class names that differ in case or spaces alone", "make them one class")
    CLASSES_DIFFER = ("warning", "splits that list other classes than train", "list the same classes everywhere")
    CLASS_ABSENT = ("warning", "classes without objects in a split",
                    "put images of them there; without any in train they cannot be learnt")
    CLASS_RARE = ("warning", "classes with few objects", "some dozens a class are needed to learn it")
    CLASS_IMBALANCE = ("warning", "classes far rarer than the most frequent one", "add images that show them")
    BOX_EMPTY = ("warning", "boxes without area, which are left out of training", "remove them, or draw them again")
    BOX_SWAPPED = ("warning", "boxes whose corners are swapped, which are left out of training",
                   "swap them; --fix does")
    BOX_OUTSIDE = ("warning", "boxes outside their image, which are left out of training",
                   "look whether they belong to another image; --fix removes them")
    BOX_FIRST_PIXEL = ("warning", "boxes smaller than the first pixel of their image",
                       "if they are fractions of the image, multiply by its width and height; else remove them")
    BOX_OVER = ("warning", "boxes that reach outside their image, which are clipped for training",
                "harmless if it is little; --fix clips them")
    BOX_DUPLICATE = ("warning", "boxes given twice", "remove one of them; --fix does")
    BOX_TWO_CLASSES = ("warning", "boxes given for two classes", "decide on one of them")
    BOX_TINY = ("warning", "objects smaller than a pixel of the finest feature map",
                "train at a larger --size, or cut the images into tiles")
    OBJECTS_MANY = ("warning", "images with more objects than queries", "raise --num-queries")

    def __init__(self, severity: Severity, title: str, advice: str) -> None:
        self.severity: Severity = severity
        self.title = title
        self.advice = advice

    @property
    def code(self) -> str:
        """The name by which documents and JSON call it."""
        return self.name.lower().replace("_", "-")
