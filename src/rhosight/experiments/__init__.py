"""The paper's tables and figures as experiments: run, repeated, compared with what it printed.

>>> plan = Plan.of(rhosight.load_dataset("mp-fcc"), preset_named("offline"), repeats=5)
>>> exhibits = reproduce(["figure2", "table1"], plan, "runs/reproduce")
"""

from .exhibit import Exhibit
from .jobs import Job, JobFolder, Split
from .plan import Entry, Frames, Plan
from .presets import Preset, preset_named
from .reproduction import EXPERIMENTS, Reproduction, reproduce

__all__ = [
    "EXPERIMENTS",
    "Entry",
    "Exhibit",
    "Frames",
    "Job",
    "JobFolder",
    "Plan",
    "Preset",
    "Reproduction",
    "Split",
    "preset_named",
    "reproduce",
]
