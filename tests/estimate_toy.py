"""A machine of round numbers, so that estimates depend on shapes alone."""

from pegbox.comparison._calibration import Calibration
from pegbox.comparison._speed import Line, Machine

MACHINE = Machine(begin=0.3, step=1e-3, update=2e-9, checkpoint=1e-3, store=1e-9, solve=1e-10)
MEASURED = Calibration(
    machine=MACHINE,
    forward=Line(1e-3, 1e-11),
    backward=Line(1e-3, 1e-11),
    answer=Line(1e-3, 2e-11),
    calls=100.0,
    kept=1e6,
    step_memory=3_000_000,
    answer_memory=500_000,
    trunk_memory=1_000_000,
    precision="float32",
)
