"""The machine code of the kernels for each kind of GPU; none is needed. docs/gpu.md has the table that this prints:

python -m pytest tests/ops/test_gpu_code.py -m "slow or not slow" -s
"""

import importlib.util
import re
import subprocess
from dataclasses import dataclass

import pytest
import torch

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton comes only with PyTorch's builds for GPUs", allow_module_level=True)

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from deformable_detr.ops import gpu

# The published model has 4 levels, 4 points, and heads of 32 channels.
LEVEL_SHAPES = ((4, 6), (3, 3), (2, 2), (1, 1))
# Rows of channels that the code reads, or adds to: four pixels a point. Levels are unrolled, points are a loop.
NUM_ROWS = 4 * len(LEVEL_SHAPES)


@dataclass(frozen=True)
class Machine:
    """Triton's driver for a GPU that is not there."""

    target: GPUTarget

    def get_current_target(self) -> GPUTarget:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


@dataclass(frozen=True)
class Code:
    """The machine code of a kernel, its registers per thread, and the bytes of registers spilled to memory."""

    text: str
    num_registers: int
    spilled: int

    def count(self, instruction: str) -> int:
        return len(re.findall(rf"\b{instruction}(?![\w.])", self.text))


@pytest.fixture
def compile_for(tmp_path, monkeypatch):
    """A function of an architecture: afterwards each launch only compiles, and adds the result to the list returned."""
    compiled = []
    launch = JITFunction.run

    def compile_only(kernel, *arguments, grid, warmup, **options):
        compiled.append(launch(kernel, *arguments, grid=grid, warmup=True, **options))

    def compile_for(architecture):
        target, ours = targets(architecture)
        monkeypatch.setattr(triton.runtime.driver, "_active", Machine(target))
        monkeypatch.setattr(gpu.GpuTraits, "of", lambda device: ours)
        return compiled

    monkeypatch.setattr(JITFunction, "run", compile_only)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    yield compile_for
    for kernel in (gpu.forward_kernel, gpu.backward_kernel):
        kernel.device_caches.clear()


@pytest.fixture
def code_for(compile_for, tmp_path):
    """The code of the forward and the backward kernel."""

    def code_for(architecture, dtype=torch.float32, coordinates=2, D=32) -> list[Code]:
        compiled = compile_for(architecture)
        launch_both(coordinates, D=D, dtype=dtype)
        codes = []
        for kernel in compiled:
            if "cubin" in kernel.asm:
                cubin = tmp_path / "kernel.cubin"
                cubin.write_bytes(kernel.asm["cubin"])
                codes.append(read_cubin(cubin))
            else:
                codes.append(read_amd(kernel.asm["amdgcn"]))
        forward, backward = codes
        print(
            f"\n{architecture}, {dtype}, {coordinates} coordinates, D {D}: forward {forward.num_registers} registers,"
            f" backward {backward.num_registers}; spilled {forward.spilled + backward.spilled} bytes"
        )
        return codes

    return code_for


def targets(architecture) -> tuple[GPUTarget, gpu.GpuTraits]:
    """An architecture as Triton and as our launch know it."""
    if architecture.startswith("gfx"):
        return GPUTarget("hip", architecture, 64), gpu.GpuTraits(64, adds_vectors=False)
    capability = int(architecture.removeprefix("sm_"))
    return GPUTarget("cuda", capability, 32), gpu.GpuTraits(32, adds_vectors=capability >= 90)


def launch_both(
    coordinates, level_shapes=LEVEL_SHAPES, B=1, Q=1, M=8, D=32, P=4, dtype=torch.float32
) -> None:
    """Forward and backward of the fused op, or of the plain one for 0 coordinates."""
    sizes = [size for shape in level_shapes for size in shape]
    L, N = len(level_shapes), sum(height * width for height, width in level_shapes)
    value = torch.zeros(B, N, M, D, dtype=dtype)
    offsets = torch.zeros(B, Q, M, L, P, 2)
    if coordinates == 0:
        inputs = value, sizes, offsets, torch.zeros(B, Q, M, L, P)
        gpu.backward(gpu.forward(*inputs), *inputs)
    else:
        inputs = value, sizes, torch.zeros(B, Q, L, coordinates), offsets, torch.zeros(B, Q, M, L * P)
        output, log_sums = gpu.fused_forward(*inputs)
        gpu.fused_backward(output, *inputs, output, log_sums)


def read_cubin(path) -> Code:
    def run(tool, option):
        return subprocess.run([tool.path, option, path], capture_output=True, text=True, check=True).stdout

    usage = run(triton.knobs.nvidia.cuobjdump, "-res-usage")
    registers, stack, local = (
        int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL")
    )
    return Code(run(triton.knobs.nvidia.nvdisasm, "-c"), registers, stack + local)


def read_amd(text) -> Code:
    def number(name):
        return int(re.search(rf"\.{name}: +(\d+)", text)[1])

    return Code(text, number("vgpr_count"), number("private_segment_fixed_size"))


def slow(*parameters):
    return pytest.param(*parameters, marks=pytest.mark.slow)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "architecture", [slow("sm_75"), "sm_80", slow("sm_86"), slow("sm_89"), "sm_90", slow("sm_100"), "sm_120"]
)
def test_nvidia(code_for, architecture, dtype):
    forward, backward = code_for(architecture, dtype)
    assert forward.spilled == backward.spilled == 0
    # Threads do not wait for each other, and exchange nothing through shared memory.
    assert forward.count(r"(BAR|LDS|STS)\S*") == backward.count(r"(BAR|LDS|STS)\S*") == 0
    assert forward.count(r"LDG\.E\.128(\.SYS)?") >= NUM_ROWS
    # RED adds in memory and returns nothing. ATOM would return the sum, and CAS retry until it succeeds.
    assert "ATOM" not in backward.text
    assert "CAS" not in backward.text
    if int(architecture.removeprefix("sm_")) >= 90:
        assert backward.count(r"REDG\.E\.ADD\.F32x4\.\S+") == NUM_ROWS
        assert backward.count(r"LDG\.E\.128" if dtype == torch.float32 else r"LDG\.E\.64") >= NUM_ROWS
    else:
        assert backward.count(r"RED\.E\.ADD\.F32\.\S+") == NUM_ROWS


@pytest.mark.parametrize("dtype", [torch.float32, slow(torch.bfloat16)])
def test_amd(code_for, dtype):
    forward, backward = code_for("gfx942", dtype)
    assert forward.spilled == backward.spilled == 0
    assert forward.count(r"(global|buffer)_load_dwordx4") >= NUM_ROWS
    additions = re.findall(r"(?:global|buffer)_atomic_add_f32.*", backward.text)
    assert len(additions) == NUM_ROWS
    assert not any("sc0" in addition for addition in additions)  # sc0 returns the sum
    assert "cmpswap" not in backward.text


@pytest.mark.parametrize(("coordinates", "D"), [(0, 32), slow(4, 32), (2, 24), slow(2, 256)])
def test_other_references_and_channels(code_for, coordinates, D):
    """Without a reference, around boxes, a number of channels that is no power of two, and many of them."""
    forward, backward = code_for("sm_90", coordinates=coordinates, D=D)
    assert forward.spilled == backward.spilled == 0
    assert forward.count(r"LDG\.E\.128") >= NUM_ROWS
    assert backward.count(r"REDG\.E\.ADD\.F32x4\.\S+") >= NUM_ROWS


def test_other_sizes_do_not_compile_again(compile_for):
    """Training has batches of many sizes; Triton would compile again for each that is 1 or divisible by 16."""
    compiled = compile_for("sm_90")
    launch_both(2, ((4, 6), (1, 3)), B=1, Q=1, M=1)
    launch_both(2, ((16, 32), (1, 1)), B=2, Q=16, M=8)
    launch_both(2, ((5, 7), (48, 9)), B=3, Q=17, M=4)
    assert len(compiled) == 6
    assert compiled[4:] == compiled[2:4] == compiled[:2]
