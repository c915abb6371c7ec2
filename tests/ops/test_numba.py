"""The CPU kernels: threads, forked processes, the cache on disk, and running them without the compiler."""

import os
import platform
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from deformable_detr import ops


def run_alone(script, **environment):
    """Run a script in a process of its own and return what it printed."""
    run = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def forward_and_backward(inputs):
    output = ops.ms_deform_attn(*inputs.arguments())
    return output, *torch.autograd.grad(output.square().sum(), inputs.leaves())


@pytest.fixture
def restore_threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_same_bits_at_any_number_of_threads(make_inputs, restore_threads):
    inputs = make_inputs(((13, 21), (6, 10)), Q=300, M=3, D=16, P=3, dtype=torch.float32)
    results = []
    for threads in (1, 2, 1000):  # more than there are is no error
        torch.set_num_threads(threads)
        results.append(forward_and_backward(inputs))
    torch.testing.assert_close(results[1], results[0], rtol=0, atol=0)
    torch.testing.assert_close(results[2], results[0], rtol=0, atol=0)


def test_eight_threads_at_once(make_inputs):
    inputs = [make_inputs(Q=50, seed=seed) for seed in range(8)]
    expected = [forward_and_backward(each) for each in inputs]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            actual = list(pool.map(forward_and_backward, inputs))
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)


EIGHT_THREADS = """
from concurrent.futures import ThreadPoolExecutor
import torch
from deformable_detr import ops

sizes = (2, 24, 2, 8), (2, 50, 2, 1, 4, 2), (2, 50, 2, 1, 4)
value, locations, weights = leaves = [torch.rand(size, requires_grad=True) for size in sizes]

def call(_):
    output = ops.ms_deform_attn(value, ((4, 6),), locations, weights)
    return output, *torch.autograd.grad(output.square().sum(), leaves)

with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(call, range(80)))
torch.testing.assert_close(results, [results[0]] * 80, rtol=0, atol=0)
"""


@pytest.mark.parametrize("layer", ["default", "workqueue"])   # the second is what Numba has without OpenMP
def test_first_call_comes_from_eight_threads(layer):
    run_alone(EIGHT_THREADS, NUMBA_THREADING_LAYER=layer)


FORK = """
import os, sys
import torch
from deformable_detr import ops

torch.set_num_threads(2)
linear = torch.nn.Linear(64, 64)
value, offsets, logits = leaves = [
    torch.randn(size, requires_grad=True) for size in ((1, 1750, 2, 32), (1, 1750, 2, 2, 4, 2), (1, 1750, 2, 8))]
reference = torch.rand(1, 1750, 2, 4)

def call():
    with torch.no_grad():
        linear(value.flatten(2))  # torch has threads of its own, which a forked process lacks
    output = ops.fused_ms_deform_attn(value, ((40, 40), (15, 10)), reference, offsets, logits)
    return output, *torch.autograd.grad(output.square().sum(), leaves)

expected = call()
for _ in range(2):
    child = os.fork()
    if child == 0:
        torch.testing.assert_close(call(), expected, rtol=1e-4, atol=1e-4)
        sys.stdout.write("computed\\n")
        sys.stdout.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
torch.testing.assert_close(call(), expected, rtol=0, atol=0)
assert torch.get_num_threads() == 2
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_forked_processes_compute_forward_and_backward():
    assert run_alone(FORK) == "computed\n" * 2


PLAIN_PYTHON = """
import sys, types
import torch
from deformable_detr import ops
assert "numba" not in sys.modules  # a second of import, and only for those who run a kernel
from deformable_detr.ops import cpu_kernels

kernels = cpu_kernels.forward_kernel(3, 2, torch.float32), cpu_kernels.backward_kernel(3, 2, torch.float32)
assert all(isinstance(kernel, types.FunctionType) for kernel in kernels)
torch.manual_seed(0)
value = torch.randn(1, 7, 2, 3, requires_grad=True)
locations = (torch.rand(1, 3, 2, 2, 2, 2) * 1.4 - 0.2).requires_grad_()
weights = torch.rand(1, 3, 2, 2, 2, requires_grad=True)
results = []
for backend in "numba", "reference":
    with ops.use_backend(backend):
        output = ops.ms_deform_attn(value, ((2, 3), (1, 1)), locations, weights)
    results.append((output, *torch.autograd.grad(output.square().sum(), (value, locations, weights))))
torch.testing.assert_close(*results)
"""


def test_kernels_run_as_plain_python():
    run_alone(PLAIN_PYTHON, NUMBA_DISABLE_JIT="1")


ONE_CALL = """
import logging, sys, tempfile
logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stdout)

def refuse(*arguments, **options):
    raise PermissionError("read-only")

if "read-only" in sys.argv:
    tempfile.TemporaryFile = refuse  # by which Numba finds out whether a folder can be written
import torch
from deformable_detr import ops

value = torch.arange(6.0).view(1, 6, 1, 1).repeat(1, 1, 1, 32)
centre = torch.full((1, 1, 1, 1, 4, 2), 0.5)
print(ops.ms_deform_attn(value, ((2, 3),), centre, torch.full((1, 1, 1, 1, 4), 0.25)).unique().item())
"""


@pytest.fixture(scope="module")
def first_call():
    """What a process prints that finds nothing compiled, with the assembly that it compiles."""
    return run_alone("import sys; sys.argv.append('read-only')" + ONE_CALL, NUMBA_DUMP_ASSEMBLY="1")


def test_works_where_no_folder_can_be_written(first_call):
    lines = first_call.splitlines()
    assert lines[-1] == "2.5"
    (message,) = [line for line in lines if line.startswith("deformable_detr.ops: ")]
    assert "Compiling the forward kernel of deformable attention" in message
    assert "in every process, as no folder for the result can be written (see NUMBA_CACHE_DIR)" in message


SAVED_ALONE = """
from filelock import FileLock, Timeout
from numba.core.caching import IndexDataCacheFile
import torch

torch.set_num_threads(2)
save, saved = IndexDataCacheFile.save, []

def save_while_others_wait(file, key, data):
    try:
        with FileLock(f"{file._cache_path}/compiling.lock", timeout=0):
            raise AssertionError("another process could have saved at the same time")
    except Timeout:
        saved.append(file._index_name)
    save(file, key, data)

IndexDataCacheFile.save = save_while_others_wait
""" + ONE_CALL + """
ops.ms_deform_attn(torch.rand(1, 4, 2, 32), ((2, 2),), torch.rand(1, 5, 2, 1, 4, 2), torch.rand(1, 5, 2, 1, 4))
print(*saved)
"""


def test_compiles_once_says_so_before_and_saves_while_other_processes_wait(tmp_path):
    first, later = (run_alone(SAVED_ALONE, NUMBA_CACHE_DIR=str(tmp_path)).splitlines() for _ in range(2))
    message, result, saved = first
    assert "Compiling the forward kernel of deformable attention (float32, 32 channels per head" in message
    assert "once per machine" in message
    assert ".forward_float32_32_4" in saved
    assert "._build_loop" in saved     # over the tasks of two heads
    assert later == [result, ""] == ["2.5", ""]


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="reads the assembly of x86")
def test_channels_are_multiplied_in_vectors(first_call):
    """What an innocent change of an index can undo: multiply-adds of eight or sixteen channels with a row in memory."""
    assert len(re.findall(r"vfmadd\d+ps\s.*\(%r.*%[yz]mm", first_call)) >= 16  # 8 where an index may be negative


ONE_THREAD = """
import torch
from deformable_detr import ops

torch.set_num_threads(1)
torch.ones(1000, 1000) @ torch.ones(1000, 1000)  # OpenMP has started before the first kernel
ops.ms_deform_attn(torch.rand(1, 4, 2, 2), ((2, 2),), torch.rand(1, 5, 2, 1, 1, 2), torch.rand(1, 5, 2, 1, 1))
print(torch.get_num_threads())
"""


def test_torch_keeps_its_number_of_threads():
    assert run_alone(ONE_THREAD).strip() == "1"


CHANNELS_IN_TURN = """

import torch
from deformable_detr import ops

torch.set_num_threads(2)
torch.manual_seed(0)
for channels in channels_in_turn:
    inputs = (torch.rand(1, 47, 4, channels), ((5, 7), (3, 4)), torch.rand(1, 9, 4, 2, 4, 2), torch.rand(1, 9, 4, 2, 4))
    results = []
    for backend in "numba", "reference":
        with ops.use_backend(backend):
            results.append(ops.ms_deform_attn(*inputs))
    torch.testing.assert_close(*results)
"""


def test_kernels_compiled_by_different_processes_are_not_mistaken_for_each_other(tmp_path):
    """Numba numbers the functions of a process, so that each process called its first kernel the same."""
    for channels in [16], [32], [16, 32, 16], [32, 16, 32]:
        run_alone(f"channels_in_turn = {channels}" + CHANNELS_IN_TURN,
                  NUMBA_CACHE_DIR=str(tmp_path), PYTHONHASHSEED="0")
