"""The `ddetr` command: help, messages, hints, outputs that take nothing; and `ddetr doctor`."""

import logging
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from deformable_detr import cli, doctor
from deformable_detr.cli.hints import COMMANDS, FLAGS, TAKEN
from deformable_detr.model.network import Network

Captured = pytest.CaptureFixture[str]
BLOOD_CELLS = Path(__file__).parents[1] / "fixtures" / "bccd"


def save_image(name: str) -> None:
    Image.new("RGB", (40, 30), "grey").save(name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's full device")
@pytest.mark.parametrize("closed", ["> /dev/full", "| true", ">&-", "2>&-"])
def test_an_output_that_takes_nothing_ends_without_a_traceback(folder: Path, tiny_weights: str, closed: str) -> None:
    save_image("a.jpg")
    call = f"{shlex.quote(sys.executable)} -m deformable_detr detect a.jpg --weights {shlex.quote(tiny_weights)} --json"
    ended = subprocess.run(["sh", "-c", f"{call} {closed}"], capture_output=True, text=True, check=False)
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


def test_doctor(capsys: Captured) -> None:
    assert cli.main(["doctor"]) == 0
    output = capsys.readouterr().out
    for word in ("deformable-detr", "python", "torch", "numba", "devices", "threads", "op backend",
                 "demo weights", "numba on cpu", "onnxruntime", "openvino"):
        assert word in output
    assert "agrees with the definition" in output


@pytest.mark.parametrize("fault", ["wrong", "nan", "raises"])
def test_doctor_finds_a_sick_op(monkeypatch: pytest.MonkeyPatch, capsys: Captured,
                                fault: str) -> None:
    healthy = doctor._outputs

    def sick(backend: str, device: str) -> list[torch.Tensor]:
        results = healthy("reference", device)
        if backend != "reference" and fault == "raises":
            raise RuntimeError("no compiler\nanywhere")
        if backend != "reference":
            results[2][0, 0] += 0.1 if fault == "wrong" else torch.nan
        return results

    monkeypatch.setattr(doctor, "_outputs", sick)
    assert cli.main(["doctor"]) == 1
    found = "RuntimeError: no compiler anywhere" if fault == "raises" else "gradient of locations differs by"
    assert found in capsys.readouterr().out


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment,
                          timeout=60, check=False)


def test_help_and_wrong_calls_do_not_wait_for_torch(folder: Path) -> None:
    save_image("a.jpg")
    Path("empty").mkdir()
    calls = {"--help": 0, "detect --help": 0, "detect --nope": 2, "predict a.jpg": 2,
             "detect a.jpg --weights absent": 2, "detect a.jpg --out a.jpg": 2, "demo --out a.jpg": 2,
             "eval absent": 2, "eval empty": 2,
             f"eval {BLOOD_CELLS} --split holiday": 2, f"eval {BLOOD_CELLS} --weights absent": 2,
             "check empty --sheet a.jpg": 2, "check absent": 2, "check empty": 2, "train absent": 2, "train empty": 2,
             "trace a.jpg --weights absent": 2}
    code = ("import sys; from deformable_detr.cli import main\n"
            f"for call, expected in {calls}.items():\n"
            "    code = main(call.split())\n"
            "    heavy = {'torch', 'numba', 'timm'} & set(sys.modules)\n"
            "    assert code == expected and not heavy, (call, code, heavy)")
    result = run_python(code)
    assert (result.returncode, "Traceback" in result.stderr) == (0, False), result.stderr
    assert "Find objects in images" in result.stdout


@pytest.mark.parametrize("command", ["demo", "detect a.jpg", "eval data", "trace a.jpg", "doctor", "check data",
                                     "train data"])
def test_every_command_takes_quiet_and_verbose(command: str, capsys: Captured) -> None:
    name = command.split()[0]
    assert cli.main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert "--quiet" in shown
    assert "--verbose" in shown
    assert cli.main([*command.split(), "--quiet", "--verbose"]) == 2
    assert "--quiet and --verbose: expected one of them, got both" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["detect", "trace"])
def test_the_log_is_shown_and_quiet_leaves_warnings_only(folder: Path, tiny_weights: str, command: str,
                                                         capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line about compiling kernels, for example."""
    log, forward = logging.getLogger("deformable_detr.ops"), Network.forward

    def noisy(*arguments: object, **keywords: object) -> object:
        log.info("compiling kernels")
        log.warning("dark image \x1b[2J")
        return forward(*arguments, **keywords)  # type: ignore[arg-type]

    save_image("a.jpg")
    monkeypatch.setattr(Network, "forward", noisy)
    for flags, expected in (([], True), (["--quiet"], False), (["--verbose"], True)):
        assert cli.main([command, "a.jpg", "--weights", tiny_weights, "--json", *flags]) == 0
        error = capsys.readouterr().err
        assert ("compiling kernels\n" in error) == expected
        assert "dark image \\x1b[2J\n" in error
        assert ("Detector(" in error) == (flags == ["--verbose"] and command == "detect")


def test_hints_name_what_there_is() -> None:
    commands = set(cli.app) - {"--help", "-h", "--version"}
    assert {ours.split()[0] for ours in COMMANDS.values()} <= commands
    assert not set(COMMANDS) & commands
    known = {command: {flag for argument in cli.app[command].assemble_argument_collection() for flag in argument.names}
             for command in commands}
    hinted = {hint.split()[0].rstrip(",") for hint in FLAGS.values() if hint.startswith("--")}
    assert hinted <= set().union(*known.values())
    assert {name: taken for name, flags in known.items() if (taken := set(FLAGS) & flags)} == TAKEN


def test_a_value_is_no_option(capsys: Captured) -> None:
    assert cli.main(["detect", "a.jpg", "--treshold", "0.5"]) == 2
    assert "--threshold" in capsys.readouterr().err     # as cyclopts suggests


def test_an_interrupted_command_ends_with_130(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("deformable_detr.cli.detect.find_inputs", interrupt)
    assert cli.main(["detect", "a.jpg"]) == 130
    assert capsys.readouterr().err == "ddetr: interrupted\n"


def test_an_interrupted_process_ends_without_destroying_everything_first() -> None:
    code = ("import sys, atexit; from deformable_detr import cli; atexit.register(lambda: print('slow'))\n"
            "def interrupt(*_): print('found', end=''); raise KeyboardInterrupt\n"
            "cli.detect.find_inputs = interrupt; sys.argv = ['ddetr', 'detect', 'a.jpg']; sys.exit(cli.main())")
    ended = run_python(code)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "found", "ddetr: interrupted\n")


@pytest.mark.parametrize("call", ["check https://host/data", "eval https://host/data", "train https://host/data",
                                  "train data --out s3://bucket/run", "demo --out https://host/found"])
def test_an_address_is_no_path(call: str, capsys: Captured) -> None:
    assert cli.main(call.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert call.split()[-1] in error
    assert "expected a path on this machine" in error
