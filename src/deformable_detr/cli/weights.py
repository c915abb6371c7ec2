"""`ddetr weights`: the published weights that have a short name."""

import json

from deformable_detr.cli.app import USUAL, JsonFlag, MessageFlags, app, print_line
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

    for row in rows:
        names = ", ".join([row["name"], *row["aliases"]])
        print_line(f"{names:34} AP {row['ap']:.1f}  {row['megabytes']} MB{'  in the cache' if row['cached'] else ''}")
        print_line(f"    hf:{row['repository']}")
        print_line(f"    preset {row['preset']}; {row['data']}; {row['licence']}")
    print_line("AP on COCO val2017 as the authors publish it. Any other repository: hf:owner/name[@revision]")
    return 0
