"""`ddetr convert`: weights from one code base to another."""

from typing import Literal

from deformable_detr.cli.app import (
    USUAL,
    LocalPath,
    MessageFlags,
    WrongCallError,
    app,
    find_weights_file,
    print_line,
    wrong_call_for,
)


@app.command
def convert(source: str, target: LocalPath, /, *,
            to: Literal["native", "huggingface", "published", "mmdetection", "mmdetection2", "detrex"] = "native",
            messages: MessageFlags = USUAL) -> int:
    """Write weights under the names of another code base.

    Parameters
    ----------
    source
        Weights of any code base: a file, a folder of transformers, "demo", a name that `ddetr weights` lists, or
        "hf:owner/name".
    target
        The file to write; for huggingface the folder. It must not exist.
    to
        native is our own file, published the authors' code of each paper, mmdetection its release 3.
    """
    messages.start()
    if target.exists() and not (to == "huggingface" and target.is_dir() and not any(target.iterdir())):
        raise WrongCallError(f"{target}: exists already, and is not overwritten")
    path = find_weights_file(source)

    from deformable_detr.weights import read_any, save, save_foreign

    with wrong_call_for(ValueError, OSError):
        model, info = read_any(path)
        if to == "native":
            save(target, model, info)
        else:
            save_foreign(target, model, info, to)
    print_line(f"{target}: {model.config.paper} with {model.config.num_classes} classes, from {info.dialect} to {to}")
    if to != "native":
        kept = "" if to == "huggingface" else ", nor for the names of classes and the preprocessing"
        print_line(f"{to} has no place for category ids, NMS, the threshold and the padding to multiples{kept}")
    if info.unused:
        print_line(f"left out, since no model needs them: {len(info.unused)} tensors such as {info.unused[0]}")
    return 0
