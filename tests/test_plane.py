"""Lattice planes and sampling: which plane, how it lies, and that the cell does not matter."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from pymatgen.core import Lattice, Structure
from scipy.interpolate import RegularGridInterpolator

from rhosight import ChargeDensity, ImageSettings, RhosightError, density_image, lattice_plane
from rhosight.density.plane import LatticePlane
from rhosight.density.sampling import sample, sample_window
from rhosight.density.vasp import read_chgcar
from rhosight.inputs.image import Channel

TRICLINIC = Lattice.from_parameters(4.1, 5.3, 6.2, 82, 97, 105)
F_CUBIC = np.array([[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]])
F_CONVENTIONAL = [[-1, 1, 1], [1, -1, 1], [1, 1, -1]]
I_CUBIC = np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])


def f_cubic(a: float, species: list[str]) -> Structure:
    """Primitive cell with atoms on the diagonal, a quarter or a half of it apart."""
    places = {1: [0], 2: [0, 0.25], 3: [0, 0.25, 0.5]}[len(species)]
    return Structure(Lattice(a * F_CUBIC), species, [[x, x, x] for x in places])


def with_operations(lattice: Lattice, species: list[str], sites, operations) -> Structure:
    """All images of the sites under a list of functions."""
    kinds = [kind for kind in species for _ in operations]
    return Structure(
        lattice, kinds, [operation(*site) for site in sites for operation in operations]
    )


CRYSTALS = {
    "rock salt": Structure(Lattice(5.64 * F_CUBIC), ["Na", "Cl"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
    "silicon": f_cubic(5.43, ["Si", "Si"]),
    "zincblende": f_cubic(5.65, ["Ga", "As"]),
    "half-Heusler": f_cubic(5.8, ["Ti", "Ni", "Sn"]),
    "body-centred": Structure(Lattice(2.87 * I_CUBIC), ["Fe"], [[0, 0, 0]]),
    "hcp": Structure(
        Lattice.hexagonal(3.2, 5.2), ["Mg", "Mg"], [[1 / 3, 2 / 3, 0.25], [2 / 3, 1 / 3, 0.75]]
    ),
    "wurtzite": Structure(
        Lattice.hexagonal(3.82, 6.26),
        ["Zn", "Zn", "S", "S"],
        [[1 / 3, 2 / 3, 0], [2 / 3, 1 / 3, 0.5], [1 / 3, 2 / 3, 0.375], [2 / 3, 1 / 3, 0.875]],
    ),
    "P-1": with_operations(
        TRICLINIC,
        ["Cs", "O", "N"],
        [(0.2, 0.11, 0.31), (0.4, 0.7, 0.2), (0.8, 0.3, 0.05)],
        [lambda x, y, z: (x, y, z), lambda x, y, z: (-x, -y, -z)],
    ),
    "P2_1/c": with_operations(
        Lattice.monoclinic(5.1, 5.2, 5.3, 99),
        ["Zr", "O"],
        [(0.2754, 0.0395, 0.2083), (0.07, 0.3317, 0.3447)],
        [
            lambda x, y, z: (x, y, z),
            lambda x, y, z: (-x, -y, -z),
            lambda x, y, z: (-x, y + 0.5, 0.5 - z),
            lambda x, y, z: (x, 0.5 - y, z + 0.5),
        ],
    ),
    "P1": Structure(
        TRICLINIC, ["Cs", "O", "N"], [[0.2, 0.11, 0.31], [0.4, 0.7, 0.2], [0.8, 0.3, 0.05]]
    ),
}


def gaussians(structure: Structure, spacing: float = 0.3, width: float = 0.6) -> np.ndarray:
    """Gaussians on all atoms and their periodic images, summed in reciprocal space.

    What a grid this fine cuts off is below exp(-(π width / spacing)² / 2) = 3e-9 of the whole.
    """
    shape = [int(np.ceil(length / spacing)) for length in structure.lattice.abc]
    waves = np.stack(np.meshgrid(*[np.fft.fftfreq(n, 1 / n) for n in shape], indexing="ij"), -1)
    squared = np.sum((waves @ structure.lattice.reciprocal_lattice.matrix) ** 2, axis=-1)
    amplitudes = np.zeros(shape, dtype=complex)
    for site in structure:
        amplitudes += np.sqrt(site.specie.Z) * np.exp(-2j * np.pi * (waves @ site.frac_coords))
    amplitudes *= np.exp(-squared * width**2 / 2) / structure.volume
    return np.fft.ifftn(amplitudes).real * np.prod(shape)


def other_cell(
    structure: Structure,
    matrix=((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    shift=(0.0, 0.0, 0.0),
    rotate: bool = False,
    reorder: bool = False,
) -> Structure:
    """The same crystal in the cell ``matrix`` · lattice, translated, rotated, re-ordered."""
    cell = structure.copy()
    cell.make_supercell(matrix, to_unit_cell=True)
    matrix = cell.lattice.matrix
    if rotate:
        axis = np.array([0.36, 0.48, -0.8])
        cross = np.cross(np.eye(3), axis)
        matrix = matrix @ (np.eye(3) + np.sin(1.1) * cross + (1 - np.cos(1.1)) * cross @ cross)
    order = np.random.default_rng(3).permutation(len(cell)) if reorder else range(len(cell))
    return Structure(
        matrix,
        [cell[int(i)].species for i in order],
        [(cell[int(i)].frac_coords + shift) % 1 for i in order],
    )


def image_of(structure: Structure, hkl=None, offset: float = 0.3) -> np.ndarray:
    plane = lattice_plane(structure, hkl)
    return sample_window(gaussians(structure), plane, 7.0, 25, offset, "fourier")


def relative(one: np.ndarray, other: np.ndarray) -> float:
    """Largest difference over the range of values."""
    return float(np.abs(one - other).max() / np.ptp(one))


# sampling


@pytest.fixture(params=[(17, 21, 25), (18, 20, 24)], ids=["odd grid", "even grid"])
def waves(request):
    """A band-limited density of 40 random waves: its grid, and itself as a function."""
    rng = np.random.default_rng(1)
    shape = np.array(request.param)
    longest = 0.9 * min(shape / 2 / np.array(TRICLINIC.abc))
    span = [range(-n // 2, n // 2 + 1) for n in shape]
    allowed = np.array(list(itertools.product(*span)))
    reciprocal = TRICLINIC.reciprocal_lattice_crystallographic.matrix
    allowed = allowed[np.linalg.norm(allowed @ reciprocal, axis=1) < longest]
    chosen = allowed[rng.choice(len(allowed), 40, replace=False)]
    amplitudes = rng.normal(size=40) + 1j * rng.normal(size=40)

    def density(frac_coords: np.ndarray) -> np.ndarray:
        return (np.exp(2j * np.pi * (frac_coords @ chosen.T)) @ amplitudes).real

    grid = np.stack(np.meshgrid(*[np.arange(n) / n for n in shape], indexing="ij"), axis=-1)
    return density(grid), density


@pytest.mark.parametrize("hkl", [None, (1, 1, 0), (2, -1, 3), (1, 10, 100)])
def test_fourier_is_exact(waves, hkl):
    """To 1e-8 on any plane, by points and by window, with or without a lattice."""
    grid, density = waves
    plane = lattice_plane(Structure(TRICLINIC, ["Si"], [[0.1, 0.2, 0.3]]), hkl)
    axis = ((np.arange(31) + 0.5) / 31 - 0.5) * 9.0
    points = plane.points(axis[None, :], -axis[:, None], 0.37)
    exact = density(points)
    assert np.abs(sample_window(grid, plane, 9.0, 31, 0.37, "fourier") - exact).max() < 1e-8
    assert np.abs(sample(grid, points, "fourier") - exact).max() < 1e-8
    assert np.abs(sample(grid, points, "fourier", TRICLINIC.matrix) - exact).max() < 1e-8


@pytest.mark.parametrize(("shape", "index"), [((16, 15, 24), (2, 0, 0)), ((20, 24, 18), (0, 0, 3))])
def test_spline_is_as_close_as_it_says(shape, index):
    """The error of a wave of G h radians per grid step is (G h)⁴/384, to a factor of 1.3."""
    wave = np.array(index) / np.array(shape)
    steps = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    points = np.random.default_rng(4).uniform(-3, 3, size=(2000, 3))
    exact = np.cos(2 * np.pi * (points @ index))
    error = np.abs(sample(np.cos(2 * np.pi * (steps @ wave)), points) - exact).max()
    stated = (2 * np.pi * wave.sum()) ** 4 / 384
    assert stated / 1.3 < error < stated * 1.3


def test_both_interpolations_pass_through_the_grid(waves):
    grid, _ = waves
    index = np.random.default_rng(2).integers(-40, 40, size=(50, 3))
    values = grid[tuple((index % grid.shape).T)]
    for interpolation in ("spline", "fourier"):
        got = sample(grid, index / np.array(grid.shape), interpolation)
        assert np.abs(got - values).max() < 1e-10


def test_fourier_keeps_the_symmetry_of_what_the_grid_cuts_off():
    """Sharp Gaussians on a coarse grid, whose waves end beyond it: 6mm remains in rock salt."""
    crystal = CRYSTALS["rock salt"]
    grid = gaussians(crystal, spacing=0.4, width=0.2)
    assert set(grid.shape) == {10}
    plane = lattice_plane(crystal)
    radius, angle = np.linspace(0.3, 4, 9)[:, None], np.linspace(0, 2 * np.pi, 12)[None, :]
    images = [
        sample(
            grid,
            plane.points(
                radius * np.cos(sign * angle + turn), radius * np.sin(sign * angle + turn)
            ),
            "fourier",
            crystal.lattice.matrix,
        )
        for sign, turn in [(1, 0), (1, np.pi / 3), (-1, 0)]
    ]
    assert relative(images[0], images[1]) < 1e-8
    assert relative(images[0], images[2]) < 1e-8


def test_unknown_interpolation():
    with pytest.raises(RhosightError, match="choose one of spline, fourier"):
        sample(np.zeros((4, 4, 4)), np.zeros(3), "nearest")


@pytest.mark.parametrize("interpolation", ["spline", "fourier"])
def test_window_layout(interpolation):
    """Row 0 is the largest y, column 0 the smallest x; pixels are read at their centres."""
    crystal = Structure(Lattice.cubic(4.0), ["Po"], [[0, 0, 0]])
    plane = lattice_plane(crystal)
    grid = gaussians(crystal)
    image = sample_window(grid, plane, 6.0, 3, 0.25, interpolation)
    corner = sample(grid, plane.points(-2.0, 2.0, 0.25), interpolation, crystal.lattice.matrix)
    right = sample(grid, plane.points(2.0, 0.0, 0.25), interpolation, crystal.lattice.matrix)
    assert image.shape == (3, 3)
    assert image[0, 0] == pytest.approx(float(corner), abs=1e-10)
    assert image[1, 2] == pytest.approx(float(right), abs=1e-10)
    pixel = sample_window(grid, plane, 6.0, 1, 0.25, interpolation)
    assert pixel == pytest.approx(image[1:2, 1:2], abs=1e-10)


# which plane


def spacing_by_brute_force(primitive: Lattice) -> float:
    reciprocal = primitive.reciprocal_lattice_crystallographic.matrix
    span = np.array(list(itertools.product(range(-6, 7), repeat=3)))
    return 1 / np.linalg.norm(span[span.any(axis=1)] @ reciprocal, axis=1).min()


@pytest.mark.parametrize(
    ("crystal", "family", "direction", "spacing"),
    [
        (CRYSTALS["rock salt"], (1, 1, 1), (0, 1, 1), 5.64 / 3**0.5),
        (CRYSTALS["silicon"], (1, 1, 1), (0, 1, 1), 5.43 / 3**0.5),
        (CRYSTALS["half-Heusler"], (1, 1, 1), (0, 1, 1), 5.8 / 3**0.5),
        (CRYSTALS["body-centred"], (0, 1, 1), (1, 1, 1), 2.87 / 2**0.5),
        (Structure(Lattice.cubic(3.3), ["Po"], [[0, 0, 0]]), (0, 0, 1), (0, 0, 1), 3.3),
        (
            Structure(Lattice.cubic(3.0), ["Ni", "Al"], [[0, 0, 0], [0.5, 0.5, 0.5]]),
            (0, 0, 1),
            (0, 0, 1),
            3.0,
        ),
        (CRYSTALS["hcp"], (0, 0, 1), (0, 0, 1), 5.2),
        (CRYSTALS["wurtzite"], (0, 0, 1), (0, 0, 1), 6.26),
    ],
    ids=lambda value: value.composition.reduced_formula if isinstance(value, Structure) else None,
)
def test_densest_plane(crystal, family, direction, spacing):
    plane = lattice_plane(crystal)
    assert tuple(sorted(map(abs, plane.hkl))) == family
    if crystal.lattice.is_hexagonal():
        assert plane.hkl[:2] == (0, 0)
    assert tuple(sorted(map(abs, plane.direction))) == direction
    assert plane.spacing == pytest.approx(spacing, rel=1e-4)
    assert np.dot(plane.hkl, plane.direction) == 0


def test_flat_hexagonal_cell_prefers_the_prism():
    """With c below a·√3/2 the prism planes are further apart than the basal ones."""
    crystal = Structure(Lattice.hexagonal(5.0, 3.0), ["Se"], [[0, 0, 0]])
    plane = lattice_plane(crystal)
    assert plane.hkl[2] == 0
    assert plane.spacing == pytest.approx(5.0 * 3**0.5 / 2)


@pytest.mark.parametrize(
    "lattice",
    [
        Lattice.orthorhombic(4.1, 5.2, 6.3),
        Lattice.monoclinic(7.2, 3.1, 5.3, 119),
        TRICLINIC,
        Lattice.from_parameters(3.0, 3.4, 11.0, 71, 95, 118),
        Lattice(np.diag([4.0, 5.0, 7.5]) @ (2 * F_CUBIC)),
        Lattice(np.diag([4.0, 5.0, 7.5]) @ (2 * I_CUBIC)),
    ],
    ids=["orthorhombic", "monoclinic", "triclinic", "oblique", "face-centred", "body-centred"],
)
def test_spacing_against_brute_force(lattice):
    """The largest 1/|g| over the reciprocal vectors of the primitive lattice, from any cell."""
    crystal = Structure(lattice, ["U"], [[0.1, 0.2, 0.3]])
    expected = spacing_by_brute_force(lattice.get_niggli_reduced_lattice())
    for cell in (crystal, other_cell(crystal, [[1, 1, 0], [0, 1, 1], [1, 0, 2]])):
        assert lattice_plane(cell).spacing == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("hkl", "spacing", "layer_atoms"),
    [
        ((1, 1, 1), 5.64 / 3**0.5, 1),
        ((2, 2, 2), 5.64 / 3**0.5, 1),
        ((1, 0, 0), 5.64 / 2, 2),
        ((2, 0, 0), 5.64 / 2, 2),
        ((2, 2, 0), 5.64 / 8**0.5, 2),
        ((9, 7, 5), 5.64 / 155**0.5, 1),
        ((1, 10, 100), 5.64 / 2 / 10101**0.5, 2),
    ],
)
def test_a_plane_by_name(hkl, spacing, layer_atoms):
    """The order is kept, (200) stays (200); d is that of the lattice's own planes."""
    plane = lattice_plane(CRYSTALS["rock salt"], hkl)
    assert sorted(map(abs, plane.hkl)) == sorted(hkl)
    assert plane.spacing == pytest.approx(spacing, rel=1e-4)
    assert plane.layer_atoms == layer_atoms
    assert abs(np.dot(plane.hkl, plane.direction)) < 1e-3


def test_orders_of_one_plane_are_one_plane():
    one, two = (lattice_plane(CRYSTALS["zincblende"], (n, 0, 0)) for n in (1, 2))
    assert np.allclose([one.x, one.y, one.normal], [two.x, two.y, two.normal])


def test_axis_is_the_shortest_vector_of_a_steep_plane():
    """The shortest vector in (1 10 100) of a simple cubic lattice is found, however long."""
    plane = lattice_plane(Structure(Lattice.cubic(3.0), ["Po"], [[0, 0, 0]]), (1, 10, 100))
    span = np.array(list(itertools.product(range(-12, 13), repeat=3)))
    inside = span[span.any(axis=1) & (span @ plane.hkl == 0)]
    shortest = np.linalg.norm(inside, axis=1).min()
    assert np.linalg.norm(plane.direction) == pytest.approx(shortest)


@pytest.mark.parametrize("hkl", [(0, 0, 0), (1, 1), (0.5, 0, 0), (1, 0, -1, 0)])
def test_not_a_plane(hkl):
    with pytest.raises(RhosightError, match="is not a plane; give Miller indices"):
        lattice_plane(CRYSTALS["silicon"], hkl)


def test_atoms_on_one_place():
    crystal = Structure(Lattice.cubic(4), ["Na", "Na"], [[0, 0, 0], [0, 0, 1e-4]])
    with pytest.raises(RhosightError, match="Na: spglib finds no symmetry within"):
        lattice_plane(crystal)


# where the window lies


@pytest.fixture(params=["rock salt", "wurtzite", "P2_1/c", "P1"])
def placed(request) -> tuple[Structure, LatticePlane]:
    crystal = CRYSTALS[request.param]
    return crystal, lattice_plane(crystal)


def test_axes_are_a_right_handed_ångström_frame(placed):
    crystal, plane = placed
    axes = np.array([plane.x, plane.y, plane.normal]) @ crystal.lattice.matrix
    assert np.allclose(axes @ axes.T, np.eye(3), atol=1e-5)
    assert np.linalg.det(axes) == pytest.approx(1, abs=1e-5)


def test_coordinates_invert_points(placed):
    _, plane = placed
    rng = np.random.default_rng(5)
    u, v = rng.uniform(-9, 9, size=(2, 4, 6))
    back = plane.coordinates(plane.points(u, v, 0.4))
    assert back.shape == (4, 6, 3)
    assert np.allclose(back[..., 0], u) and np.allclose(back[..., 1], v)
    assert np.allclose(back[..., 2], 0.4 * plane.spacing)


def test_offset_moves_along_the_normal_by_d(placed):
    crystal, plane = placed
    step = (plane.points(0, 0, 1.0) - plane.points(0, 0, 0.0)) @ crystal.lattice.matrix
    assert np.linalg.norm(step) == pytest.approx(plane.spacing, rel=1e-5)


def test_origin_is_a_heaviest_site(placed):
    crystal, plane = placed
    heaviest = max(site.specie.Z for site in crystal)
    assert heaviest == crystal[plane.site].specie.Z
    assert np.allclose(plane.origin, crystal[plane.site].frac_coords, atol=1e-4)
    assert np.allclose(plane.coordinates(plane.origin), 0)


def test_lattice_scale():
    """The lattice constant of an F-cubic crystal, whatever the cell."""
    crystal = CRYSTALS["zincblende"]
    for matrix in (np.eye(3, dtype=int), F_CONVENTIONAL, 2 * np.eye(3, dtype=int)):
        scale = lattice_plane(other_cell(crystal, matrix)).lattice_scale
        assert scale == pytest.approx(5.65, abs=1e-4)


# one crystal, one image

EQUIVALENT = {
    "translated": {"shift": (0.37, 0.21, 0.83)},
    "re-ordered": {"reorder": True, "shift": (0.5, 0.5, 0.5)},
    "rotated": {"rotate": True},
    "another basis": {"matrix": [[1, 1, 0], [0, 1, 0], [-1, 0, 1]], "reorder": True},
    "left-handed basis": {"matrix": [[0, 1, 0], [1, 0, 0], [0, 0, 1]], "rotate": True},
    "conventional": {"matrix": F_CONVENTIONAL, "rotate": True, "reorder": True},
    "2×2×2": {"matrix": 2 * np.eye(3, dtype=int), "shift": (0.11, 0.4, 0.03), "reorder": True},
}


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("hkl", [None, (1, 1, 0)], ids=["densest", "110"])
def test_equivalent_cells_give_one_image(name, hkl):
    """To 1e-7 of its range, which is what the grids cut off of the Gaussians."""
    crystal = CRYSTALS[name]
    expected = image_of(crystal, hkl)
    worst = {
        change: relative(expected, image_of(other_cell(crystal, **how), hkl))
        for change, how in EQUIVALENT.items()
    }
    assert max(worst.values()) < 1e-7, worst


def test_the_mirror_image_of_a_chiral_crystal_is_another_crystal():
    """So the test above would notice a left-handed frame."""
    crystal = CRYSTALS["P1"]
    mirror = Structure(crystal.lattice, crystal.species, -crystal.frac_coords)
    assert relative(image_of(crystal), image_of(mirror)) > 0.1


def transplanted(density: ChargeDensity, kind: str, matrix: np.ndarray, size: int) -> np.ndarray:
    """A density on the cell ``matrix`` · lattice, by moving its Fourier components there."""
    grid = density.grid(kind)
    amplitudes = np.fft.fftn(grid).ravel() / grid.size
    waves = np.array(list(itertools.product(*map(range, grid.shape))))
    aliases = np.array(list(itertools.product(range(-2, 2), repeat=3))) * grid.shape
    waves = waves[:, None] + aliases
    lengths = np.linalg.norm(waves @ density.structure.lattice.reciprocal_lattice.matrix, axis=-1)
    shortest = lengths <= lengths.min(axis=1, keepdims=True) * (1 + 1e-4)
    shares = np.repeat(amplitudes / shortest.sum(axis=1), shortest.sum(axis=1))
    moved = waves[shortest] @ matrix.T
    assert np.abs(moved).max() < size / 2
    spectrum = np.zeros((size,) * 3, dtype=complex)
    np.add.at(spectrum, tuple(moved.T % size), shares)
    return np.fft.ifftn(spectrum).real * size**3


@pytest.mark.parametrize("material_id", ["mp-1265", "mp-1700"], ids=["MgO", "AlN"])
def test_real_density_on_the_conventional_cell(dataset, material_id):
    """The same image of primitive and conventional cell, to 1e-6 with Fourier interpolation.

    Splines make an error of their own on each grid, of up to 5 % on these, which hold waves up to
    their limit.
    """
    density = dataset[material_id].density
    matrix = np.array(F_CONVENTIONAL)
    size = 2 * density.shape[0] + 2
    conventional = ChargeDensity(
        other_cell(density.structure, matrix, rotate=True),
        {"difference": transplanted(density, "difference", matrix, size)},
    )
    images = {
        (cell, interpolation): sample_window(
            one.grid("difference"), lattice_plane(one.structure), 8.0, 41, 0.0, interpolation
        )
        for cell, one in (("primitive", density), ("conventional", conventional))
        for interpolation in ("fourier", "spline")
    }
    exact = images["primitive", "fourier"]
    assert relative(exact, images["conventional", "fourier"]) < 1e-6
    assert relative(exact, images["conventional", "spline"]) < 2e-2
    assert relative(exact, images["primitive", "spline"]) < 5e-2


def test_explicit_supercell_in_another_library(dataset):
    """Tile a 60³ grid 2 × 2 × 2 and let scipy interpolate linearly: the same image within 1 %."""
    density = dataset["mp-149"].density
    structure = density.structure
    frac = np.stack(np.meshgrid(*[np.arange(60) / 60] * 3, indexing="ij"), axis=-1)
    grid = sample(density.grid("total"), frac)
    tiled = np.pad(np.tile(grid, (2, 2, 2)), ((0, 1),) * 3, mode="wrap")
    supercell = RegularGridInterpolator([np.linspace(0, 1, 121)] * 3, tiled)
    plane = lattice_plane(structure)
    axis = ((np.arange(99) + 0.5) / 99 - 0.5) * 8.0
    points = plane.points(axis[None, :], -axis[:, None])
    explicit = supercell(points / 2 % 1)
    assert relative(explicit, sample_window(grid, plane, 8.0, 99)) < 1e-2


# symmetry through a site


def turned(density: ChargeDensity, turn: float, mirror: int, interpolation: str) -> np.ndarray:
    """Values on rings around the origin of the densest plane, turned and mirrored."""
    plane = lattice_plane(density.structure)
    radius = np.linspace(0.3, 4.0, 12)[:, None]
    angle = mirror * np.linspace(0.05, 2 * np.pi, 30)[None, :] + turn
    return sample(
        density.grid("difference"),
        plane.points(radius * np.cos(angle), radius * np.sin(angle)),
        interpolation,
        density.structure.lattice.matrix,
    )


# Fourier interpolation keeps the symmetry; a spline keeps what permutes the grid's axes
@pytest.mark.parametrize(("interpolation", "tolerance"), [("fourier", 1e-6), ("spline", 0.03)])
@pytest.mark.parametrize(
    ("material_id", "formula", "sixfold"),
    [
        ("mp-22862", "NaCl", True),
        ("mp-149", "Si", False),
        ("mp-2534", "GaAs", False),
        ("mp-20351", "InP", False),
    ],
)
def test_symmetry_through_a_site(dataset, material_id, formula, sixfold, interpolation, tolerance):
    """6mm in rock salt; 3m but not 6 in silicon and zincblende, whose mirrors hold y."""
    material = dataset[material_id]
    assert material.formula == formula
    expected = turned(material.density, 0.0, 1, interpolation)
    third = turned(material.density, 2 * np.pi / 3, 1, interpolation)
    mirror_y = turned(material.density, np.pi, -1, interpolation)
    sixth = turned(material.density, np.pi / 3, 1, interpolation)
    mirror_x = turned(material.density, 0.0, -1, interpolation)
    assert relative(expected, third) < tolerance
    assert relative(expected, mirror_y) < tolerance
    for broken in (sixth, mirror_x):
        difference = relative(expected, broken)
        assert difference < tolerance if sixfold else difference > 0.2


def test_image_flips_show_the_symmetry(dataset):
    """In pixels: the image of rock salt is its own mirror image twice, that of silicon once."""
    settings = ImageSettings(
        size=63, colour="grey", channels=(Channel(kind="difference"),), interpolation="fourier"
    )
    salt = density_image(dataset["mp-22862"].density, settings)[0]
    silicon = density_image(dataset["mp-149"].density, settings)[0]
    for image in (salt, silicon):
        assert np.abs(image - image[:, ::-1]).max() < 1e-5
    assert np.abs(salt - salt[::-1]).max() < 1e-5
    assert np.abs(silicon - silicon[::-1]).max() > 0.3


# rounding


@pytest.mark.parametrize("material_id", ["mp-22862", "mp-2534", "mp-149"])
def test_rounding_in_a_file_does_not_show(dataset, material_id, tmp_path):
    """A CHGCAR keeps six decimals of cell and positions: the same image to 1e-5."""
    density = dataset[material_id].density
    density.to_chgcar(tmp_path / "CHGCAR")
    again = read_chgcar(tmp_path / "CHGCAR")
    settings = ImageSettings(size=61, channels=(Channel(kind="total"),), colour="grey")
    difference = density_image(again, settings) - density_image(density, settings)
    assert np.abs(difference).max() < 1e-5


def test_rounding_of_a_rotated_cell_does_not_show(tmp_path):
    """Thirds, and a lattice whose every number is rounded: the same image to 1e-4."""
    crystal = other_cell(CRYSTALS["wurtzite"], rotate=True, reorder=True)
    density = ChargeDensity(crystal, {"total": gaussians(crystal)})
    density.to_chgcar(tmp_path / "CHGCAR")
    again = read_chgcar(tmp_path / "CHGCAR")
    images = [
        sample_window(one.grid("total"), lattice_plane(one.structure), 7.0, 25, 0.3)
        for one in (density, again)
    ]
    assert relative(*images) < 1e-4
