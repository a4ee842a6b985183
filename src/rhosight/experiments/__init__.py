"""Run the paper's experiments and compare them with its printed scores.

>>> plan = Plan.of(rhosight.load_dataset("mp-fcc"), get_preset("offline"), repeats=5)
>>> exhibits = reproduce(["figure2", "table1"], plan, "runs/reproduce")
"""

from .exhibit import Exhibit
from .exhibits.catalogue import EXPERIMENTS
from .jobs import Job, JobFolder, Split
from .plan import Entry, Frames, Plan
from .presets import Preset, get_preset
from .reproduction import Reproduction, reproduce

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
    "get_preset",
    "reproduce",
]
