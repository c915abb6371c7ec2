"""`python -m deformable_detr` is `ddetr`: the name that `torchrun -m` and `accelerate launch -m` want."""

import sys

from deformable_detr.cli import main

if __name__ == "__main__":
    sys.exit(main())
