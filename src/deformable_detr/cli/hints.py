"""What users of other detectors type, and what ddetr calls it."""

from collections.abc import Sequence

COMMANDS = {
    "predict": "detect", "infer": "detect", "inference": "detect", "run": "detect",
    "val": "eval", "validate": "eval", "evaluate": "eval", "test": "eval",
    "fit": "train", "finetune": "train", "fine-tune": "train",
    "lint": "check", "verify": "check", "info": "doctor", "env": "doctor",
}

IMAGES = "images, folders and globs are given without a flag: ddetr detect photo.jpg"
DATA = "the data set's folder is given without a flag: ddetr train mydata"
YOLO, CROP = "--save yolo", "--crop"
THRESHOLD, SIZE, WEIGHTS, OUT = "--threshold, of detect and explain", "--size, of train and check", "--weights", "--out"
FLAGS = {
    "--conf": THRESHOLD, "--conf-thres": THRESHOLD, "--confidence": THRESHOLD, "--score-threshold": THRESHOLD,
    "--imgsz": SIZE, "--img": SIZE, "--img-size": SIZE, "--image-size": SIZE, "--resolution": SIZE,
    "--model": WEIGHTS, "--checkpoint": WEIGHTS, "--ckpt": WEIGHTS, "--pretrained": WEIGHTS,
    "--source": IMAGES, "--input": IMAGES, "--image": IMAGES, "--images": IMAGES,
    "--data": DATA, "--dataset": DATA, "--data-path": DATA, "--coco-path": DATA,
    "--output": OUT, "--output-dir": OUT, "--save-dir": OUT, "--project": OUT,
    "--max-det": "--top-k", "--max-detections": "--top-k", "--topk": "--top-k",
    "--iou": "--nms-threshold, of train", "--iou-thres": "--nms-threshold, of train",
    "--lr": "--learning-rate", "--lr0": "--learning-rate", "--lr-backbone": "--backbone-learning-rate",
    "--wd": "--weight-decay", "--name": OUT, "--run-name": OUT,
    "--vid-stride": "--every", "--stride": "--every", "--skip-frames": "--every", "--tracker": "--track",
    "--batch": "--batch-size", "--bs": "--batch-size", "--workers": "--num-workers",
    "--gpu": "--device cuda", "--cuda": "--device cuda", "--cpu": "--device cpu", "--gpus": "--device cuda",
    "--save-txt": YOLO, "--save-conf": YOLO, "--save-json": "--save json, or --save coco", "--save-csv": "--save csv",
    "--save-crop": CROP, "--save-crops": CROP, "--class": "--classes, by their names",
    "--silent": "--quiet",
}

TAKEN = {"serve": {"--data"}, "export": {"--batch", "--data"}}      # flags that a command does have


def hint(tokens: Sequence[str]) -> str | None:
    """What to type instead, as the message about a wrong call; None if nothing is known."""
    if tokens and tokens[0] in COMMANDS:
        return f"unknown command {tokens[0]}; ddetr calls it {COMMANDS[tokens[0]]}"
    for token in tokens[1:]:
        flag = token.partition("=")[0].replace("_", "-")
        if flag in FLAGS and flag not in TAKEN.get(tokens[0], ()):
            ours = FLAGS[flag]
            return f"unknown option {flag}; " + (f"ddetr calls it {ours}" if ours.startswith("--") else ours)
    return None
