"""How long a run will still take."""

from datetime import timedelta

from deformable_detr.training.clock import RunClock


def test_steps_and_evaluations_are_counted_apart() -> None:
    time = [100.0]
    clock = RunClock(lambda: time[0])

    def passes(seconds: float) -> None:
        time[0] += seconds

    assert clock.left(10, 1) is None
    passes(50)              # on something else
    clock.restart()
    for seconds in (1, 3):
        passes(seconds)
        clock.step_done()
    assert clock.left(10, 2) == timedelta(seconds=20)
    passes(30)
    clock.evaluation_done()
    assert clock.left(10, 2) == timedelta(seconds=80)
    assert clock.left(0, 0) == timedelta(0)
