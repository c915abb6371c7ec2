"""What Triton makes of the kernels for each kind of GPU; none is needed. docs/gpu.md has the table that this prints:

python -m pytest tests/ops/test_gpu_code.py -m "slow or not slow" -s
"""

import re
import subprocess
from dataclasses import dataclass

import pytest

triton = pytest.importorskip("triton", reason="Triton comes with PyTorch's builds for GPUs on Linux")

from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from deformable_detr.ops import gpu

# The published model: 4 levels, 4 points, heads of 32 channels.
L, P, D = 4, 4, 32
ROWS = 4 * L  # reads or additions that stand in the code: four pixels a point, levels unrolled, points in a loop
KERNELS = {"forward": gpu.forward_kernel, "backward": gpu.backward_kernel}
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class Code:
    """The machine code of a kernel and what it takes of a thread's registers; spilled ones lie in local memory."""

    text: str
    num_registers: int
    local_bytes: int

    def count(self, pattern: str) -> int:
        return len(re.findall(rf"\b{pattern}(?![\w.])", self.text))


@pytest.fixture
def compile_kernel(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))

    def compile_kernel(direction, architecture, value_type="fp32", coordinates=2, D=D) -> Code:
        target, properties = targets(architecture)
        constants = gpu.kernel_constants(
            properties,
            is_backward=direction == "backward",
            element_size=BYTES[value_type],
            L=L,
            P=P,
            D=D,
            coordinates=coordinates,
        )
        source = ast_source(KERNELS[direction], constants, value_type, coordinates)
        # As the launch gives them; where positions and softmax are not fused, some tensors are missing.
        compiled = triton.compile(source, target=target, options={"num_warps": 1, "enable_fp_fusion": True})
        if target.backend == "hip":
            code = amd_code(compiled.asm["amdgcn"])
        else:
            path = tmp_path / "kernel.cubin"
            path.write_bytes(compiled.asm["cubin"])
            code = nvidia_code(path)
        print(f"\n{architecture} {direction} {value_type} {coordinates=} {D=}: {code.num_registers} registers")
        return code

    return compile_kernel


def targets(architecture):
    """An architecture as Triton and as our launch know it."""
    if architecture.startswith("gfx"):
        return GPUTarget("hip", architecture, 64), gpu.Target(64, adds_vectors=False)
    capability = int(architecture.removeprefix("sm_"))
    return GPUTarget("cuda", capability, 32), gpu.Target(32, adds_vectors=capability >= 90)


def ast_source(kernel, constants, value_type, coordinates):
    """The kernel with the types and constants of a launch, its tensors aligned as PyTorch's are."""
    tensors = {
        "value": value_type,
        "reference": "fp32",
        "offsets": "fp32",
        "logits": "fp32",
        "output": value_type,
        "log_sums": "fp32",
        "grad_output": value_type,
        "grad_value": "fp32",
        "grad_offsets": "fp32",
        "grad_logits": "fp32",
    }
    missing = set()
    if coordinates == 0:
        missing = {"reference", "log_sums"} | ({"output"} if kernel is gpu.backward_kernel else set())
    constants = constants | dict.fromkeys(missing & set(kernel.arg_names))
    signature, attributes = {}, {}
    for index, name in enumerate(kernel.arg_names):
        if name in constants:
            signature[name] = "constexpr"
        elif name in tensors:
            signature[name] = f"*{tensors[name]}"
            attributes[(index,)] = [["tt.divisibility", 16]]
        else:
            signature[name] = ("fp32",) * (2 * L) if name == "level_sizes" else "i32"
    return ASTSource(kernel, signature, constants, attributes)


def nvidia_code(path) -> Code:
    def run(tool, *options):
        return subprocess.run([tool.path, *options, path], capture_output=True, text=True, check=True).stdout

    usage = run(triton.knobs.nvidia.cuobjdump, "-res-usage")
    registers, stack, local = (int(re.search(rf"{name}:(\d+)", usage)[1]) for name in ("REG", "STACK", "LOCAL"))
    return Code(run(triton.knobs.nvidia.nvdisasm, "-c"), registers, stack + local)


def amd_code(text) -> Code:
    def number(name):
        return int(re.search(rf"\.{name}: +(\d+)", text)[1])

    return Code(text, number("vgpr_count"), number("private_segment_fixed_size"))


def slow(architecture):
    return pytest.param(architecture, marks=pytest.mark.slow)


every_nvidia = pytest.mark.parametrize(
    "architecture", [slow("sm_75"), "sm_80", slow("sm_86"), slow("sm_89"), "sm_90", slow("sm_100"), "sm_120"]
)
each_type = pytest.mark.parametrize("value_type", ["fp32", "bf16"])


@every_nvidia
@each_type
def test_forward_on_nvidia(compile_kernel, architecture, value_type):
    code = compile_kernel("forward", architecture, value_type)
    assert code.local_bytes == 0
    assert code.count(r"LDG\.E\.128(\.SYS)?") >= ROWS
    assert code.count(r"BAR\.\S+") == 0


@every_nvidia
@each_type
def test_backward_on_nvidia(compile_kernel, architecture, value_type):
    code = compile_kernel("backward", architecture, value_type)
    assert code.local_bytes == 0
    # RED adds in memory and returns nothing; what begins with ATOM returns, and CAS tries until it succeeds.
    assert "ATOM" not in code.text
    assert "CAS" not in code.text
    if int(architecture.removeprefix("sm_")) >= 90:
        assert code.count(r"REDG\.E\.ADD\.F32x4\.\S+") == ROWS
        assert code.count(r"LDG\.E\.128" if value_type == "fp32" else r"LDG\.E\.64") >= ROWS
    else:
        assert code.count(r"RED\.E\.ADD\.F32\.\S+") == ROWS
    # Shared memory would mean that Triton moves tiles from thread to thread before it adds or stores them.
    assert code.count(r"(LDS|STS|BAR)\S*") == 0


@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(
    ("coordinates", "D"), [(0, 32), pytest.param(4, 32, marks=pytest.mark.slow), (2, 24)]
)
def test_other_references_and_channels(compile_kernel, direction, coordinates, D):
    """Without a reference, around boxes, and with a number of channels that is no power of two."""
    code = compile_kernel(direction, "sm_90", coordinates=coordinates, D=D)
    assert code.local_bytes == 0
    assert code.count(r"LDG\.E\.128") >= ROWS
    if direction == "backward":
        assert code.count(r"REDG\.E\.ADD\.F32x4\.\S+") == ROWS


@pytest.mark.parametrize("value_type", ["fp32", slow("bf16")])
def test_forward_on_amd(compile_kernel, value_type):
    code = compile_kernel("forward", "gfx942", value_type)
    assert code.local_bytes == 0
    assert code.count("global_load_dwordx4") >= ROWS


@pytest.mark.parametrize("value_type", ["fp32", slow("bf16")])
def test_backward_on_amd(compile_kernel, value_type):
    code = compile_kernel("backward", "gfx942", value_type)
    assert code.local_bytes == 0
    assert code.count("global_atomic_add_f32") == ROWS
    assert "cmpswap" not in code.text
    assert " sc0" not in "".join(re.findall(r"global_atomic_add_f32.*", code.text))  # sc0 would return the sum
