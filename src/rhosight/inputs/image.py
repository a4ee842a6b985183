"""Images of slices of charge densities, and their settings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ..density.charge_density import KINDS, ChargeDensity, Kind
from ..density.colours import SIGNED_KINDS
from ..density.crystals import SYMPREC
from ..density.elements import covalent_radius
from ..density.free_atoms import difference_from_total
from ..density.plane import LatticePlane, lattice_plane
from ..density.sampling import Interpolation, sample_window
from ..density.vasp import from_pymatgen
from ..errors import RhosightError

if TYPE_CHECKING:
    from PIL.Image import Image
    from pymatgen.io.vasp.outputs import Chgcar

Normalisation = Literal["physical", "paper", "zero"]
Colour = Literal["channels", "grey", "viridis"]

DERIVED = {"difference", "promolecule"}
"""Kinds of density that are relative to free atoms."""

# The physical map arcsinh(ρ/ρ₀) is linear below ρ₀ and logarithmic above it. ρ₀ and the value
# that maps to 1 are fixed for all materials, in e/Å³. Larger values, at cores, are clipped.
PHYSICAL_SCALE = {
    "total": (0.05, 5.0),
    "promolecule": (0.05, 5.0),
    "difference": (0.01, 0.5),
    "spin": (0.01, 5.0),
}


class Channel(BaseModel):
    """One slice: kind of density, plane and window."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = "difference"
    window: float = Field(8.0, gt=0, description="side of the square, in `unit`")
    unit: Literal["angstrom", "lattice"] = Field(
        "angstrom", description="Å, or the lattice scale (4·V_primitive)^⅓"
    )
    hkl: tuple[int, int, int] | None = Field(None, description="plane; None is the densest")
    offset: float = Field(0.0, description="shift along the normal, in interplanar spacings")


class ImageSettings(BaseModel):
    """Settings of the image of a charge density.

    They define the image completely and are stored with a model. :meth:`paper` marks as *assumed*
    what the paper does not specify.

    Attributes
    ----------
    size
        Pixels along each side.
    channels
        The slices. ``colour="channels"`` takes three of them; ``grey`` and ``viridis`` one.
    normalisation
        ``"physical"``: one fixed monotone map for all materials, which keeps magnitudes.
        ``"paper"``: z-score of the slice divided by its largest |z|.
        ``"zero"``: ρ / max|ρ|, which keeps the zero level at zero.
        All give values in [-1, 1].
    colour
        ``"channels"``: each slice is a channel. ``"grey"``: one slice three times.
        ``"viridis"``: one slice through matplotlib's viridis.
    fourier
        Replace each slice by the logarithm of the modulus of its two-dimensional Fourier
        transform, origin in the centre (paper Figure 8, d to f). Padding continues it
        periodically.
    reference
        Free atoms of ``difference`` and ``promolecule``. ``"code"``: those of the code itself, so
        a file (or a pair) must contain both densities. ``"free-atoms"``: those of the table that
        comes with the package, so `total` alone is enough; see
        :mod:`rhosight.density.free_atoms` for its limits.
    core
        ``"keep"``, or ``"mask"``: pixels within ``core_radius`` of a nucleus, in the plane or not,
        are set to 0 e/Å³. There a density depends on the code and its pseudo-potentials.
    core_radius
        In covalent radii of the element (Cordero et al., Dalton Trans. 2832 (2008),
        doi:10.1039/b801115j). Beyond 0.9 the smooth cores of the bundled densities are below 2 %
        of the free atom's valence density for three of four elements (at worst beyond 1.3: Ga). The
        mask covers a third of the image of an open crystal such as silicon, and most of that of a
        close-packed metal: three quarters for copper.
    interpolation
        ``"spline"`` or ``"fourier"``, see :func:`rhosight.density.sampling.sample`.
    symprec
        Tolerance of the symmetry search, Å.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int = Field(160, ge=8, le=4096)
    channels: tuple[Channel, ...] = (
        Channel(kind="total", window=8.0),
        Channel(kind="total", window=8.0, offset=0.5),
        Channel(kind="total", window=16.0),
    )
    normalisation: Normalisation = "physical"
    colour: Colour = "channels"
    fourier: bool = False
    reference: Literal["code", "free-atoms"] = "code"
    core: Literal["keep", "mask"] = "keep"
    core_radius: float = Field(0.9, gt=0, le=2)
    interpolation: Interpolation = "fourier"
    symprec: float = Field(SYMPREC, gt=0)

    @model_validator(mode="after")
    def _check_channel_count(self) -> ImageSettings:
        needed = 3 if self.colour == "channels" else 1
        if len(self.channels) != needed:
            raise ValueError(
                f"colour {self.colour!r} takes {needed} channel(s), not {len(self.channels)}"
            )
        return self

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of density that a file must contain for this image."""
        wanted = {channel.kind for channel in self.channels}
        if self.reference == "free-atoms" and wanted & DERIVED:
            wanted = wanted - DERIVED | {"total"}
        elif "promolecule" in wanted:
            wanted = wanted - {"promolecule"} | {"total", "difference"}
        return tuple(kind for kind in KINDS if kind in wanted)

    @property
    def steps(self) -> tuple[float, float, float]:
        """Length of one pixel of the narrowest window, in pixels of each channel.

        The windows must have one unit.
        """
        sides = [channel.window for channel in self.channels]
        first, second, third = (min(sides) / side for side in sides * (3 // len(sides)))
        return first, second, third

    def shift_planes(self, offset: float) -> ImageSettings:
        """Return the settings for planes shifted by ``offset`` interplanar spacings."""
        channels = [
            channel.model_copy(update={"offset": channel.offset + offset})
            for channel in self.channels
        ]
        return self.model_copy(update={"channels": tuple(channels)})

    @classmethod
    def paper(cls, colour: Colour = "grey", fourier: bool = False, size: int = 299) -> Self:
        """Return the paper's settings: one slice of `difference`, z-scored (section 2.1).

        Assumed, because the paper does not specify it: a window of two lattice scales, centred on
        the site of highest atomic number, with x along the shortest in-plane lattice vector.
        """
        channel = Channel(kind="difference", window=2.0, unit="lattice")
        return cls(
            size=size, channels=(channel,), normalisation="paper", colour=colour, fourier=fourier
        )


def density_slice(
    density: ChargeDensity,
    channel: Channel,
    size: int,
    interpolation: Interpolation = "fourier",
    symprec: float = SYMPREC,
    plane: LatticePlane | None = None,
    pad: int = 0,
) -> np.ndarray:
    """Return the density on a window of a lattice plane, e/Å³.

    Parameters
    ----------
    density
        Has the kind of ``channel``.
    channel
        Kind, plane and window.
    size
        Pixels along each side.
    interpolation
        As in :func:`rhosight.density.sampling.sample`.
    symprec
        Tolerance of the symmetry search, Å.
    plane
        The plane of ``channel``, if it is already known.
    pad
        Pixels to add on every side, at the same resolution; augmentation crops from this canvas.

    Returns
    -------
    numpy.ndarray
        Shape (size + 2 pad, size + 2 pad); row 0 is the top (largest y).
    """
    plane = plane or lattice_plane(density.structure, channel.hkl, symprec)
    return sample_window(
        density.grid(channel.kind),
        plane,
        window_side(channel, plane) * (size + 2 * pad) / size,
        size + 2 * pad,
        channel.offset,
        interpolation,
    )


def find_core_pixels(
    density: ChargeDensity,
    channel: Channel,
    size: int,
    radius: float,
    plane: LatticePlane,
    pad: int = 0,
) -> np.ndarray:
    """Find the pixels of a slice within ``radius`` covalent radii of a nucleus.

    A site with several occupants has the radius of the largest.

    Returns
    -------
    numpy.ndarray
        Shape (size + 2 pad, size + 2 pad), bool.
    """
    structure, pixels = density.structure, size + 2 * pad
    side = window_side(channel, plane) * pixels / size
    radii = np.array(
        [radius * max(covalent_radius(e.symbol) for e in s.species.elements) for s in structure]
    )
    centre = plane.points(0.0, 0.0, channel.offset)
    around: Any = structure.lattice.get_points_in_sphere(
        structure.frac_coords,
        structure.lattice.get_cartesian_coords(centre),
        side / math.sqrt(2) + radii.max(),
        zip_results=False,
    )
    frac_coords, _, sites, _ = around
    atoms = plane.coordinates(frac_coords)
    height = atoms[:, 2] - channel.offset * plane.spacing
    squares = radii[sites] ** 2 - height**2  # squared radii of the circles on the plane
    axis = ((np.arange(pixels) + 0.5) / pixels - 0.5) * side
    inside = np.zeros((pixels, pixels), dtype=bool)
    for (x, y, _), square in zip(atoms[squares > 0], squares[squares > 0], strict=True):
        inside |= (axis[None, :] - x) ** 2 + (-axis[:, None] - y) ** 2 < square
    return inside


def window_side(channel: Channel, plane: LatticePlane) -> float:
    """Return the side of the channel's window, Å."""
    return channel.window * (plane.lattice_scale if channel.unit == "lattice" else 1.0)


def normalise(
    values: np.ndarray, normalisation: Normalisation, kind: str, pad: int = 0
) -> np.ndarray:
    """Map densities (e/Å³) to [-1, 1] in one of the ways of :class:`ImageSettings`.

    Mean and largest value are those of the image without ``pad`` pixels on every side, so that the
    middle of a padded image is the image. Values beyond [-1, 1] in the margin are clipped.
    """
    if normalisation == "physical":
        scale, top = PHYSICAL_SCALE[kind]
        mapped = np.arcsinh(values / scale) / np.arcsinh(top / scale)
        if kind not in SIGNED_KINDS:  # use the whole range
            mapped = 2.0 * mapped - 1.0
        return np.clip(mapped, -1.0, 1.0)
    proper = values[pad : values.shape[0] - pad, pad : values.shape[1] - pad]
    noise = 1e-12 * np.abs(proper).max()  # remainder of a constant minus its mean
    if normalisation == "paper":
        values, proper = values - proper.mean(), proper - proper.mean()
    largest = np.abs(proper).max()
    return np.clip(values / largest, -1.0, 1.0) if largest > noise else np.zeros_like(values)


def fourier_image(values: np.ndarray) -> np.ndarray:
    """Return log(1 + |F|) of a square image, rescaled to [-1, 1].

    F is its Fourier transform, with the origin in the centre.
    """
    spectrum = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(values))))
    span = spectrum.max() - spectrum.min()
    return 2.0 * (spectrum - spectrum.min()) / span - 1.0 if span > 0 else spectrum * 0.0


def density_image(
    density: ChargeDensity | Chgcar, settings: ImageSettings | None = None, pad: int = 0
) -> np.ndarray:
    """Return the image of a charge density.

    Parameters
    ----------
    density
        Must contain the kinds that ``settings.kinds`` names. A pymatgen ``Chgcar`` is converted by
        :func:`rhosight.from_pymatgen`.
    settings
        By default ``ImageSettings()``.
    pad
        Pixels to add on every side, at the same resolution; augmentation crops from this canvas.

    Returns
    -------
    numpy.ndarray
        Shape (3, size + 2 pad, size + 2 pad), float32, values in [-1, 1].

    Raises
    ------
    RhosightError
        If a kind is missing, no symmetry is found, or the object is not a density.
    """
    if not isinstance(density, ChargeDensity):
        density = from_pymatgen(density)
    settings = settings or ImageSettings()
    missing = [kind for kind in settings.kinds if kind not in density.kinds]
    if missing:
        raise RhosightError(
            f"{density.name or 'density'}: the image needs {', '.join(settings.kinds)}, but only "
            f"{', '.join(density.kinds)} is available; add {', '.join(missing)}, or use image "
            "settings (or a model) for this file, such as reference='free-atoms' for a total alone"
        )
    density = apply_reference(density, settings)
    planes = {
        hkl: lattice_plane(density.structure, hkl, settings.symprec)
        for hkl in {channel.hkl for channel in settings.channels}
    }
    layers = [
        _draw_channel(density, channel, settings, planes[channel.hkl], pad)
        for channel in settings.channels
    ]
    if settings.colour == "viridis":
        return _colour_viridis(layers[0])
    if settings.colour == "grey":
        layers = layers * 3
    return np.stack(layers).astype(np.float32)


def _draw_channel(
    density: ChargeDensity,
    channel: Channel,
    settings: ImageSettings,
    plane: LatticePlane,
    pad: int,
) -> np.ndarray:
    """Return one channel of the image, shape (size + 2 pad, size + 2 pad)."""
    size = settings.size
    margin = 0 if settings.fourier else pad  # a wider window has another spectrum
    values = density_slice(density, channel, size, settings.interpolation, plane=plane, pad=margin)
    if settings.core == "mask":
        inside = find_core_pixels(density, channel, size, settings.core_radius, plane, margin)
        values = np.where(inside, 0.0, values)
    values = normalise(values, settings.normalisation, channel.kind, margin)
    if settings.fourier:
        values = np.pad(fourier_image(values), pad, mode="wrap")
    return values


def apply_reference(density: ChargeDensity, settings: ImageSettings) -> ChargeDensity:
    """Return the density with `difference` relative to ``settings.reference``.

    `promolecule` changes with it.
    """
    if settings.reference == "code" or not DERIVED & {c.kind for c in settings.channels}:
        return density
    bare = {kind: grid for kind, grid in density.grids.items() if kind not in DERIVED}
    return difference_from_total(replace(density, grids=bare))


def turn_margin(size: int, shift: float = 0.0) -> int:
    """Return the margin, in pixels, for an image that is turned and shifted.

    The turn may have any angle, the shift at most ``shift`` of its side along each axis.
    """
    return math.ceil(size * (math.sqrt(2) - 1) / 2) + math.ceil(size * shift)


def to_pil(image: np.ndarray) -> Image:
    """Convert an image array (3, height, width) in [-1, 1] to an RGB picture."""
    from PIL import Image

    pixels = np.rint((np.moveaxis(image, 0, -1) + 1.0) * 127.5)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _colour_viridis(values: np.ndarray) -> np.ndarray:
    from matplotlib import colormaps

    rgb = colormaps["viridis"]((values + 1.0) / 2.0)[..., :3]
    return np.moveaxis(2.0 * rgb - 1.0, -1, 0).astype(np.float32)
