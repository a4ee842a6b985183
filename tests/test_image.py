"""Images: normalisation, channels, colours, Fourier transform, padding, windows."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib import colormaps
from pydantic import ValidationError
from pymatgen.core import Lattice, Structure

from rhosight import ChargeDensity, ImageSettings, RhosightError, density_image, lattice_plane
from rhosight.density.vasp import read_chgcar
from rhosight.inputs.image import (
    Channel,
    density_slice,
    fourier_image,
    normalise,
    to_pil,
    window_side,
)

NORMALISATIONS = ("physical", "paper", "zero")


def one_slice(kind: str = "difference", **settings) -> ImageSettings:
    """A grey image of 48 pixels."""
    channel = Channel(kind=kind, window=8.0)
    return ImageSettings(**{"size": 48, "channels": (channel,), "colour": "grey", **settings})


@pytest.fixture(scope="module")
def salt(dataset) -> ChargeDensity:
    """NaCl."""
    return dataset["mp-22862"].density


@pytest.fixture(scope="module")
def gallium_arsenide(dataset) -> ChargeDensity:
    return dataset["mp-2534"].density


def constant(value: float) -> ChargeDensity:
    crystal = Structure(Lattice.cubic(4.0), ["Po"], [[0, 0, 0]])
    return ChargeDensity(crystal, {"total": np.full((12, 12, 12), value)}, name="nothing")


# defaults


def test_default_image(salt):
    """Three channels that need no more than the SCF's density."""
    settings = ImageSettings()
    image = density_image(salt)
    assert image.shape == (3, settings.size, settings.size)
    assert image.dtype == np.float32
    assert -1 <= image.min() < image.max() <= 1
    assert np.ptp(image, axis=(1, 2)).min() > 0.1
    assert np.array_equal(image, density_image(salt, settings))
    alone = ChargeDensity(salt.structure, {"total": salt.grid("total")})
    assert settings.kinds == ("total",)
    assert np.array_equal(image, density_image(alone))


def test_paper_image(salt):
    """299 pixels of `difference`, grey; in lattice units."""
    settings = ImageSettings.paper()
    image = density_image(salt, settings)
    assert (settings.size, settings.kinds) == (299, ("difference",))
    assert image.shape == (3, 299, 299)
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])
    assert abs(image[0].mean()) < 1e-6
    assert np.abs(image).max() == 1
    assert ImageSettings.paper(size=100).size == 100
    assert ImageSettings.paper("viridis", fourier=True).fourier


@pytest.mark.parametrize(
    "wrong",
    [
        {"colour": "grey"},
        {"channels": (Channel(),)},
        {"normalisation": "log"},
        {"size": 4},
        {"sise": 100},
    ],
)
def test_settings_that_cannot_be(wrong):
    with pytest.raises(ValidationError):
        ImageSettings(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"window": 0}, {"unit": "bohr"}, {"kind": "diff"}, {"hkl": (1,)}]
)
def test_channels_that_cannot_be(wrong):
    with pytest.raises(ValidationError):
        Channel(**wrong)


def test_settings_survive_json():
    settings = ImageSettings.paper("viridis", fourier=True)
    assert ImageSettings.model_validate_json(settings.model_dump_json()) == settings


@pytest.mark.parametrize(
    ("kinds", "needed"),
    [
        (("total", "total", "total"), ("total",)),
        (("difference", "promolecule", "spin"), ("total", "difference", "spin")),
        (("promolecule", "promolecule", "promolecule"), ("total", "difference")),
    ],
)
def test_kinds_needed(kinds, needed):
    assert ImageSettings(channels=tuple(Channel(kind=kind) for kind in kinds)).kinds == needed


def test_the_table_of_free_atoms_needs_total_alone(dataset, tmp_path):
    """`difference` of a plain CHGCAR: near the code's own, and the same from file and dataset."""
    channels = tuple(Channel(kind=kind) for kind in ("total", "difference", "promolecule"))
    own = ImageSettings(size=48, channels=channels)
    table = own.model_copy(update={"reference": "free-atoms"})
    assert table.kinds == ("total",)
    for material_id in ("mp-22862", "mp-30"):
        density = dataset[material_id].density
        density.to_chgcar(tmp_path / "CHGCAR")
        plain = read_chgcar(tmp_path / "CHGCAR")
        from_file = density_image(plain, table)
        np.testing.assert_allclose(from_file, density_image(density, table), atol=1e-4)
        np.testing.assert_allclose(from_file, density_image(density, own), atol=0.02)


# what is missing


def test_missing_kind_names_material_and_cure(salt):
    density = ChargeDensity(salt.structure, {"total": salt.grid("total")}, name="my/CHGCAR")
    with pytest.raises(RhosightError) as caught:
        density_image(density, ImageSettings.paper())
    message = str(caught.value)
    assert message.startswith("my/CHGCAR: the image needs difference, but only total is available")
    assert "add difference, or use image settings" in message
    assert "\n" not in message
    with pytest.raises(RhosightError, match="my/CHGCAR: has total but not `spin`"):
        density_slice(density, Channel(kind="spin"), 20)


# windows


def test_window_in_lattice_units(salt):
    plane = lattice_plane(salt.structure)
    lattice, ångström = (
        Channel(window=2.0, unit="lattice"),
        Channel(window=2.0 * plane.lattice_scale),
    )
    assert window_side(lattice, plane) == pytest.approx(2 * 5.69, rel=0.02)
    assert window_side(lattice, plane) == pytest.approx(window_side(ångström, plane))
    assert np.allclose(density_slice(salt, lattice, 30), density_slice(salt, ångström, 30))


def test_half_the_window_is_the_middle(salt):
    """At the same resolution, and centred on the site."""
    whole = density_slice(salt, Channel(window=8.0), 40)
    half = density_slice(salt, Channel(window=4.0), 20)
    assert np.allclose(whole[10:30, 10:30], half, atol=1e-9)


def test_offset(salt):
    """Three layers on, the stacking ABC of (111) repeats; one layer on it does not."""
    here, next_layer, third = (
        density_slice(salt, Channel(offset=offset), 40, "fourier") for offset in (0.0, 1.0, 3.0)
    )
    assert np.abs(here - third).max() < 1e-6 * np.ptp(here)
    assert np.abs(here - next_layer).max() > 0.1 * np.ptp(here)


def test_plane_by_name(gallium_arsenide):
    densest, named, other = (
        density_slice(gallium_arsenide, Channel(hkl=hkl), 24)
        for hkl in (None, (1, 1, 1), (1, 1, 0))
    )
    assert np.allclose(densest, named)
    assert not np.allclose(densest, other)


def test_known_plane_saves_the_search(salt):
    plane = lattice_plane(salt.structure)
    known = density_slice(salt, Channel(), 24, plane=plane)
    assert np.array_equal(known, density_slice(salt, Channel(), 24))


# normalisation


def test_paper_normalisation():
    values = np.random.default_rng(0).normal(3.0, 2.0, size=(20, 20))
    scores = (values - values.mean()) / values.std()
    image = normalise(values, "paper", "total")
    assert np.allclose(image, scores / np.abs(scores).max())
    assert abs(image.mean()) < 1e-12
    assert np.abs(image).max() == pytest.approx(1)
    assert np.allclose(image, normalise(5 * values - 7, "paper", "total"))


def test_zero_normalisation():
    values = np.random.default_rng(0).normal(0.3, 1.0, size=(20, 20))
    values[3, 4] = 0.0
    image = normalise(values, "zero", "difference")
    assert image[3, 4] == 0
    assert np.array_equal(np.sign(image), np.sign(values))
    assert np.abs(image).max() == pytest.approx(1)
    assert np.allclose(image, normalise(5 * values, "zero", "difference"))


@pytest.mark.parametrize("kind", ["total", "difference", "spin", "promolecule"])
def test_physical_normalisation(kind):
    """Monotone, and one map for all materials: what else is in the image does not matter."""
    signed = kind in ("difference", "spin")
    values = np.linspace(-0.4 if signed else 0.0, 0.4, 81).reshape(9, 9)
    image = normalise(values, "physical", kind)
    assert (np.diff(image.ravel()) > 0).all()
    assert np.abs(image).max() <= 1
    assert np.array_equal(image[:2], normalise(values[:2], "physical", kind))
    if signed:
        assert image[4, 4] == 0
        assert np.allclose(image, -normalise(-values, "physical", kind))
    else:
        assert image[0, 0] == -1
    assert np.abs(normalise(1e9 * values, "physical", kind)).max() == 1


def test_only_physical_keeps_magnitudes(salt):
    double = ChargeDensity(salt.structure, {"difference": 2 * salt.grid("difference")})
    for normalisation in NORMALISATIONS:
        settings = one_slice(normalisation=normalisation)
        same = np.allclose(
            density_image(salt, settings), density_image(double, settings), atol=1e-6
        )
        assert same == (normalisation != "physical")


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_a_constant_has_no_pattern(value):
    """Rounding must not be blown up to a pattern of its own."""
    flat = density_image(constant(value), one_slice("total", normalisation="paper"))
    assert np.array_equal(flat, np.zeros_like(flat))
    zero = density_image(constant(value), one_slice("total", normalisation="zero"))
    assert np.allclose(zero, 1.0 if value else 0.0)


# channels and colours


def test_channels_are_slices(salt):
    channels = (
        Channel(kind="total", window=6.0),
        Channel(kind="difference", window=9.0, offset=0.5),
        Channel(kind="promolecule", window=1.5, unit="lattice", hkl=(1, 1, 0)),
    )
    image = density_image(salt, ImageSettings(size=32, channels=channels))
    for layer, channel in zip(image, channels, strict=True):
        values = density_slice(salt, channel, 32, "fourier")
        assert np.allclose(layer, normalise(values, "physical", channel.kind), atol=1e-6)


def test_grey_is_one_slice_three_times(salt):
    image = density_image(salt, one_slice())
    assert np.array_equal(image[0], image[1]) and np.array_equal(image[0], image[2])


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_viridis(salt, normalisation):
    grey = density_image(salt, one_slice(normalisation=normalisation))[0]
    image = density_image(salt, one_slice(normalisation=normalisation, colour="viridis"))
    assert image.shape == (3, 48, 48)
    assert image.dtype == np.float32
    rgb = (np.moveaxis(image, 0, -1) + 1) / 2
    expected = colormaps["viridis"]((grey + 1) / 2)[..., :3]
    # two neighbouring colours of the 256 where a float32 falls on the border
    assert np.abs(rgb - expected).max() < 0.02
    assert np.mean(np.abs(rgb - expected) > 1e-6) < 0.01


def test_picture(salt):
    picture = to_pil(density_image(salt, one_slice()))
    assert (picture.mode, picture.size) == ("RGB", (48, 48))
    pixels = np.asarray(to_pil(np.stack([np.full((2, 3), v) for v in (-1.0, 0.0, 1.0)])))
    assert pixels.shape == (2, 3, 3)
    assert pixels[0, 0].tolist() == [0, 128, 255]


# Fourier transform


@pytest.mark.parametrize("size", [48, 49])
def test_fourier_image_is_symmetric_about_its_centre(salt, gallium_arsenide, size):
    """|F(k)| = |F(-k)| of anything real, the origin at pixel size // 2."""
    for density in (salt, gallium_arsenide):
        image = density_image(density, one_slice("difference", size=size, fourier=True))[0]
        start = 1 - size % 2  # an even size has one row and column more on the negative side
        inner = image[start:, start:]
        assert np.abs(inner - inner[::-1, ::-1]).max() < 1e-6
        assert -1 == image.min() < image.max() == 1


@pytest.mark.parametrize("size", [32, 33])
def test_fourier_image_of_a_cosine(size):
    """Three waves across and two down: two peaks at (±2, ±3) from the centre."""
    pixel = np.arange(size) / size
    values = np.cos(2 * np.pi * (3 * pixel[None, :] + 2 * pixel[:, None]))
    image = fourier_image(values)
    centre = size // 2
    peaks = {tuple(int(i) for i in place) for place in np.argwhere(image > 0)}
    assert peaks == {(centre + 2, centre + 3), (centre - 2, centre - 3)}


def test_fourier_image_of_a_crystal():
    """A simple cubic density of one wave, over four lattice constants: peaks four pixels off."""
    crystal = Structure(Lattice.cubic(4.0), ["Po"], [[0, 0, 0]])
    along = np.cos(2 * np.pi * np.arange(16) / 16)
    grid = along[:, None, None] + along[None, :, None] + along[None, None, :]
    density = ChargeDensity(crystal, {"difference": grid})
    settings = ImageSettings(
        size=64,
        channels=(Channel(window=16.0, offset=0.25),),
        colour="grey",
        normalisation="paper",
        fourier=True,
    )
    image = density_image(density, settings)[0]
    peaks = {tuple(int(i) - 32 for i in place) for place in np.argwhere(image > 0)}
    assert peaks == {(0, 4), (0, -4), (4, 0), (-4, 0)}


# padding


@pytest.mark.parametrize("fourier", [False, True], ids=["real", "Fourier"])
@pytest.mark.parametrize("colour", ["grey", "viridis"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_the_middle_of_a_padded_image_is_the_image(
    gallium_arsenide, normalisation, colour, fourier
):
    """Whatever the margin holds: augmentation and evaluation see one scale."""
    settings = one_slice(normalisation=normalisation, colour=colour, fourier=fourier)
    image = density_image(gallium_arsenide, settings)
    padded = density_image(gallium_arsenide, settings, pad=11)
    assert padded.shape == (3, 70, 70)
    middle = padded[:, 11:-11, 11:-11]
    # viridis has 256 colours: a rounding error may choose the next one
    tolerance = 1e-6 if colour == "grey" else 0.03
    assert np.abs(middle - image).max() < tolerance
    assert np.abs(padded).max() <= 1


@pytest.mark.parametrize("interpolation", ["fourier", "spline"])
def test_padding_widens_the_window(salt, interpolation):
    """The margin holds the crystal as it goes on."""
    settings = one_slice(interpolation=interpolation)
    padded = density_image(salt, settings, pad=12)
    wide = ImageSettings(
        size=72,
        channels=(Channel(kind="difference", window=12.0),),
        colour="grey",
        interpolation=interpolation,
    )
    assert np.abs(padded - density_image(salt, wide)).max() < 1e-6
