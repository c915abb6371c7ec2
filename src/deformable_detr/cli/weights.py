"""`ddetr weights`: the published weights that have a short name."""

import json

from deformable_detr.cli.app import USUAL, JsonFlag, MessageFlags, app, output_console, print_line
from deformable_detr.weights.names import ALIASES, NAMED


@app.command(name="weights")
def list_weights(*, as_json: JsonFlag = False, messages: MessageFlags = USUAL) -> int:
    """List the published weights that have a short name: with any command, `--weights NAME` fetches them.

    Parameters
    ----------
    as_json
        Print one list of JSON, and nothing else.
    """
    messages.start()

    from deformable_detr.weights.hub import cached

    rows = [{"name": name, "aliases": [alias for alias, target in ALIASES.items() if target == name],
             **entry._asdict(), "cached": cached(entry.repository)} for name, entry in NAMED.items()]
    if as_json:
        print_line(json.dumps(rows))
        return 0

    from rich.table import Table

    table = Table("name", "preset", "AP", "trained on", "licence", "MB", "in the cache", "from the Hugging Face Hub")
    for row in rows:
        table.add_row(", ".join([row["name"], *row["aliases"]]), row["preset"], f"{row['ap']:.1f}", row["data"],
                      row["licence"], f"{row['megabytes']}", "yes" if row["cached"] else "no", row["repository"])
    output_console().print(table)
    print_line("AP on COCO val2017 as its authors publish it. Any other repository: --weights hf:owner/name[@revision]")
    return 0
