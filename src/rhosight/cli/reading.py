"""Read the files or the dataset that a command is given, and collect notes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import RhosightError
from .common import is_dataset, print_remark

if TYPE_CHECKING:
    from pymatgen.core import Structure

    from ..dataset.dataset import Dataset
    from ..density.charge_density import ChargeDensity


class FileKind(StrEnum):
    """Kinds of density that a file can contain."""

    total = "total"
    difference = "difference"
    spin = "spin"


class Unit(StrEnum):
    """Units of the values in a density file."""

    bohr = "e/bohr3"
    angstrom = "e/angstrom3"
    electrons = "e"


class NotesMode(StrEnum):
    """Treatments of what is doubtful about a file."""

    show = "show"
    strict = "strict"


DifferenceOption = Annotated[
    str | None,
    typer.Option(
        help="File with the difference density of each CHGCAR, for models that need both. "
        "{parent}, {name} and {stem} are replaced by parts of the path of the CHGCAR."
    ),
]
KindOption = Annotated[
    FileKind | None,
    typer.Option(
        help="Kind of density in the files (in the first block of each CHGCAR). Default: total; "
        "files that say they hold something else are refused.",
        show_default=False,
    ),
]
UnitOption = Annotated[
    Unit | None,
    typer.Option(
        help="Unit of the values in the files. Default: that of the format, e/bohr3 in cube and "
        "XSF, e (electrons per cell) in CHGCAR.",
        show_default=False,
    ),
]
NotesOption = Annotated[
    NotesMode,
    typer.Option(help="Show what is doubtful about a file as a note, or make it an error."),
]

_STRUCTURE_NAME = re.compile(r"\.m?cif\b|POSCAR|CONTCAR|\.vasp\b", re.IGNORECASE)

# Files that hold no density whatever they contain
_BARE_STRUCTURE = re.compile(r"\.m?cif(\.(gz|bz2|xz))?$|POSCAR|CONTCAR", re.IGNORECASE)


@dataclass
class Reading:
    """Settings by which the files of a command are read, and the notes on them.

    Attributes
    ----------
    kind, unit, difference
        The options of the command.
    mode
        Whether notes are shown or are errors.
    structures
        Command, with {file}, that reads structures alone; for messages.
    predicts
        Whether the density of a structure without one is predicted; a note says so.
    relaxes
        Whether structures are relaxed with CHGNet; a note says so.
    formulas, notes
        File or material → formula, and notes, of all that were read.
    crystals
        File → structure, of all files that were read.
    predicted
        File or material → expected error of its predicted density and the bound of 90 %, shares of
        the electrons; those of densities that are not predicted are left out.
    """

    kind: FileKind | None = None
    unit: Unit | None = None
    difference: str | None = None
    mode: NotesMode = NotesMode.show
    structures: str = ""
    predicts: bool = False
    relaxes: bool = False
    formulas: dict[str, str] = field(default_factory=dict)
    notes: dict[str, list[str]] = field(default_factory=dict)
    crystals: dict[str, Structure] = field(default_factory=dict)
    predicted: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)

    def read_structures(self, files: list[str]) -> Dataset | dict[str, Structure]:
        """Return the structures of CIF, POSCAR or density files by name, or one dataset."""
        if is_dataset(files):
            return self._read_dataset(files[0])
        return {file: self.read_structure(file) for file in files}

    def read_structure(self, file: str) -> Structure:
        """Return the structure of one CIF, POSCAR or density file."""
        from ..density.structures import read_structure

        return self._relax(file, read_structure(file))

    def read_materials(self, files: list[str]) -> Dataset | Sequence[ChargeDensity]:
        """Return density files, or one dataset.

        A file is read when its density is needed, so that a thousand files take no more memory than
        a few. A file that is not a density file is refused here, before any work is done.
        """
        from ..dataset.lazy import Lazy
        from ..density.files import recognise

        if is_dataset(files):
            return self._read_dataset(files[0])
        for file in files:
            if self._lacks_density(file):
                continue
            with self._suggest_command(file):
                recognise(file)
        return Lazy(lambda number: self._read_density(files[number]), len(files))

    def print_notes(self, names: Sequence[str] | None = None) -> None:
        """Print notes to standard error: all, or those on some materials."""
        for name, notes in self.notes.items():
            if names and name not in names:
                continue
            for note in notes:
                print_remark("note", name, note)

    def _relax(self, file: str, structure: Structure) -> Structure:
        """Return a structure, relaxed if that is wanted, and remember it."""
        if not self.relaxes:
            return self._remember(file, structure)
        from ..models.relaxation import relax_structure

        relaxed = self._remember(file, relax_structure(structure, file))
        change = 100 * (relaxed.volume / structure.volume - 1)
        note = f"relaxed with CHGNet, which changed the volume by {change:+.1f} %"
        self.notes[file] = [*self.notes.get(file, []), note]
        return relaxed

    def _read_density(self, file: str) -> ChargeDensity:
        from ..dataset.sources.directory import fill_pattern
        from ..density.difference import add_difference
        from ..density.files import read_density

        if self._lacks_density(file):
            return self._remember(file, self._read_and_predict(file))
        unit: Any = self.unit.value if self.unit else None
        kind: Any = self.kind and self.kind.value
        with self._suggest_command(file):
            density = read_density(file, kind, unit)
        if self.difference:
            other = read_density(fill_pattern(self.difference, Path(file)), "difference", unit)
            density = add_difference(density, other)
        return self._remember(file, density)

    def _lacks_density(self, file: str) -> bool:
        """Return whether a file is a structure whose density is to be predicted."""
        return self.predicts and bool(_BARE_STRUCTURE.search(Path(file).name))

    def _read_and_predict(self, file: str) -> ChargeDensity:
        from ..density.charge_density import add_notes
        from ..density.structures import get_notes, read_structure

        structure = read_structure(file)
        return add_notes(_predict_density(structure, file), get_notes(structure))

    def add_densities(self, materials: Any) -> Any:
        """Return densities of a dataset's materials, predicted where it has none.

        Files and datasets with densities are returned as they are.
        """
        from ..dataset.dataset import Dataset
        from ..dataset.lazy import Lazy

        if not self.predicts or not isinstance(materials, Dataset) or materials.has_density.all():
            return materials
        has_density = materials.has_density

        def get(number: int) -> ChargeDensity:
            if has_density[number]:
                return materials.densities[number]
            crystal = materials.crystals[number]
            return self._remember(crystal.name, _predict_density(crystal.structure, crystal.name))

        return Lazy(get, len(materials))

    def _read_dataset(self, name: str) -> Dataset:
        """Load a dataset."""
        from ..dataset.packing import load_dataset

        options = {"--kind": self.kind, "--unit": self.unit, "--difference": self.difference}
        if given := [option for option, value in options.items() if value]:
            raise RhosightError(
                f"{' and '.join(given)}: for density files, and {name} is a dataset, which records "
                "kinds and units of its densities; omit it (in `rhosight image`, choose a kind "
                "with --show)"
            )
        dataset = load_dataset(name)
        for material_id, formula, about in zip(
            dataset.ids, dataset.table["formula"], dataset.provenances, strict=True
        ):
            self.formulas[material_id] = formula
            if about.get("notes"):
                self._note(material_id, list(about["notes"]))
        return dataset

    def _remember(self, name: str, crystal: Any) -> Any:
        """Keep formula and notes of a crystal, and return it."""
        from ..density.crystals import as_structure
        from ..density.predicted import get_error
        from ..density.structures import get_notes

        self.crystals[name] = as_structure(crystal)
        self.formulas[name] = self.crystals[name].composition.reduced_formula
        if notes := get_notes(crystal):
            self._note(name, notes)
        about = getattr(crystal, "provenance", {})
        if about.get("predicted"):
            self.predicted[name] = get_error(about)
        return crystal

    def _note(self, name: str, notes: list[str]) -> None:
        if self.mode is NotesMode.strict:
            raise RhosightError(f"{name}: {'; '.join(notes)} (an error because of --notes strict)")
        self.notes[name] = notes

    @contextmanager
    def _suggest_command(self, file: str) -> Iterator[None]:
        """Add a command for structures to an error about a file that may be one."""
        try:
            yield
        except RhosightError as error:
            if not self.structures or not has_structure_name(file) or not Path(file).is_file():
                raise
            raise RhosightError(
                f"{error} (for a structure without density: `{self.structures.format(file=file)}`)"
            ) from error


def _predict_density(structure: Structure, name: str) -> ChargeDensity:
    """Predict a density with the bundled model, and name it."""
    from ..ecd.model import load_density_model

    return replace(load_density_model().predict_density(structure), name=name)


def expand_folders(files: list[str], structures: bool = False, predicts: bool = False) -> list[str]:
    """Replace folders that are no datasets by the files in them.

    What is passed over is printed.

    Parameters
    ----------
    files
        The arguments of a command.
    structures
        Search for crystals instead of densities.
    predicts
        Search for crystals in folders without densities: these are predicted.

    Raises
    ------
    RhosightError
        If a folder holds no such files, or a dataset stands among other files.
    """
    if is_dataset(files) or not any(Path(file).is_dir() for file in files):
        return files
    from ..dataset.sources.search import find_materials

    expanded: list[str] = []
    for file in files:
        if not Path(file).is_dir():
            expanded.append(file)
            continue
        if is_dataset([file]):
            raise RhosightError(f"{file}: is a dataset, and must be the only argument")
        try:
            search = find_materials(Path(file), structures)
        except RhosightError as error:
            if not predicts:
                raise
            try:
                search = find_materials(Path(file), structures=True)
            except RhosightError:
                raise error from None
        expanded += map(str, search.files)
        for name, why in search.passed_over.items():
            print_remark("passed over", Path(file, name), why)
    return list(dict.fromkeys(expanded))


def has_structure_name(file: str | Path) -> bool:
    """Return whether the name is usual for a structure file (.vasp is, but not only)."""
    return bool(_STRUCTURE_NAME.search(Path(file).name))


def check_difference(pattern: str | None, files: list[str]) -> None:
    """Check that a pattern names a difference-density file for each of these files.

    Raises
    ------
    RhosightError
        If it does not.
    """
    if pattern:
        from ..dataset.sources.directory import check_pattern  # takes a second

        check_pattern(pattern, several=len(files) > 1)
