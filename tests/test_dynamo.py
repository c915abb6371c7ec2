"""Imports without torch's compiler, which still comes when it is asked for; each in a process of its own."""

import subprocess
import sys

import pytest

from deformable_detr.weights.sources import packaged_images


def output(program: str, *arguments: str) -> str:
    result = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True)
    return result.stdout.strip()


def test_a_first_detection_imports_no_compiler() -> None:
    found = output("import sys; from deformable_detr import Detector; Detector('demo')(sys.argv[1]); "
                   "print({'torch._dynamo', 'torch._dynamo.utils', 'triton', 'sympy'} & {*sys.modules})",
                   str(packaged_images()[0]))
    assert found == "set()"


def test_what_waits_is_the_compiler_s() -> None:
    """torchvision's function answers as torch's, and nothing of torch stays changed."""
    found = output("import torch; disable = torch.compiler.disable\n"
                   "import deformable_detr.preprocessing\n"
                   "assert torch.compiler.disable is disable\n"
                   "from torchvision.ops import roi_align\n"
                   "waiting = sys.modules['torchvision.ops.roi_align'].is_compile_supported\n"
                   "import torch._dynamo.utils as utilities\n"
                   "print(waiting('cpu') == utilities.is_compile_supported('cpu'), waiting('meta'))".replace(
                       "import torch;", "import sys, torch;"))
    assert found == "True False"


@pytest.mark.parametrize("use", ["from torch._dynamo.utils import counters", "import torch._dynamo",
                                 "torch.compile(abs)(1)"])
def test_whoever_uses_it_inside_has_it(use: str) -> None:
    found = output("import torch; from deformable_detr.dynamo import dynamo_when_used\n"
                   f"with dynamo_when_used():\n    {use}\n"
                   "from torch._dynamo.utils import counters; print(type(counters).__name__, "
                   "torch.compiler.disable(abs)(-1), torch._dynamo.config.disable)")
    assert found == "defaultdict 1 False"


def test_a_function_decorated_inside_is_not_compiled() -> None:
    found = output("import torch; from deformable_detr.dynamo import dynamo_when_used\n"
                   "with dynamo_when_used():\n"
                   "    @torch.compiler.disable\n"
                   "    def plain(x): return torch.compiler.is_compiling()\n"
                   "print(plain(1), torch.compile(lambda x: plain(x), backend='eager')(1))")
    assert found == "False False"
