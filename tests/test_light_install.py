"""Without the extra `networks`: predictions, datasets and images work, other commands name it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rhosight.dataset import Dataset

COMMANDS = (
    "--help",
    "predict best CHGCAR",
    "predict no-dft Si.cif",
    "data info mp-fcc",
    "image CHGCAR --out slices",
    "explain CHGCAR --out why",
    "predict best Si.cif",
)

PROGRAM = """
import sys
from rhosight.cli import main

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {libraries} or name in {slow} and sys.argv[1] == "predict":
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for command in {commands}:
    sys.argv = ["rhosight", *command.split()]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    print(f"\\n{{code}}{end}", end="", flush=True)
    print("{end}", end="", file=sys.stderr, flush=True)
"""

SLOW = ("matminer", "robocrys", "sklearn", "scipy.signal", "scipy.stats", "pymatgen.io.vasp")
"""What a prediction does not need either: each takes half a second or more to import."""

END = "=== end of a command ==="
LIBRARIES = ("captum", "lightning", "peft", "timm", "torch", "torchvision", "transformers")


@pytest.fixture(scope="module")
def answers(dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """Command → exit code, output and messages, of one process in which PyTorch is absent."""
    folder: Path = tmp_path_factory.mktemp("light")
    silicon = dataset["mp-149"]
    silicon.density.to_chgcar(folder / "CHGCAR")
    silicon.structure.to(filename=str(folder / "Si.cif"))
    program = PROGRAM.format(libraries=LIBRARIES, slow=SLOW, commands=COMMANDS, end=END)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    outputs = done.stdout.split(END)[:-1]
    messages = done.stderr.split(END)[:-1]
    return {
        command: [*output.rpartition("\n")[::-2], message]
        for command, output, message in zip(COMMANDS, outputs, messages, strict=True)
    }


@pytest.mark.parametrize("command", COMMANDS[:5])
def test_works_without_networks(answers, command):
    code, output, messages = answers[command]
    assert code == "0", messages
    if command.startswith("predict"):
        assert "Si" in output and " ± " in output


@pytest.mark.parametrize("command", COMMANDS[5:])
def test_the_message_names_the_extra(answers, command):
    code, _, messages = answers[command]
    assert code == "2"
    assert "pip install 'rhosight[networks]'" in messages
    assert "Traceback" not in messages and len(messages.strip().splitlines()) == 1
