"""Files that are no density: for the tests of what visitors upload, and for the benchmark."""

from __future__ import annotations

import bz2
import gzip

import numpy as np

HEADER = "{}\n1.0\n3 0 0\n0 3 0\n0 0 3\n{}\n{}\nDirect\n0 0 0\n\n"
SI = HEADER.format("Si", "Si", "1").encode()
CUBE = "a\nb\n{} 0 0 0\n{} 1 0 0\n4 0 1 0\n4 0 0 1\n14 0 0 0 0\n"
XSF = (
    "CRYSTAL\nPRIMVEC\n3 0 0\n0 3 0\n0 0 3\nPRIMCOORD\n{} 1\nSi 0 0 0\nBEGIN_BLOCK_DATAGRID_3D\n"
    "x\nBEGIN_DATAGRID_3D\n{}\n0 0 0\n3 0 0\n0 3 0\n0 0 3\n1 2 3\n"
)
CIF = (
    "data_x\n_cell_length_a 3\n_cell_length_b 3\n_cell_length_c 3\n_cell_angle_alpha 90\n"
    "_cell_angle_beta 90\n_cell_angle_gamma {}\n_symmetry_space_group_name_H-M 'P 1'\nloop_\n"
    "_atom_site_label\n_atom_site_fract_x\n_atom_site_fract_y\n_atom_site_fract_z\n"
)


def noise(seed: int) -> bytes:
    return np.random.default_rng(seed).bytes(10**5)


HOSTILE = {
    "empty": ("CHGCAR", b"", "is empty"),
    "text": ("CHGCAR", b"hello", "CHGCAR"),
    "noise": ("CHGCAR", noise(0), ""),
    "noise as a cube": ("a.cube", noise(1), "found binary data"),
    "noise as HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n" + noise(2), "a.h5"),
    "noise as xz": ("CHGCAR.xz", b"\xfd7zXZ\x00" + noise(3), "CHGCAR.xz"),
    "cut": ("CHGCAR", SI + b" 9 9 9\n1 2 3\n", "truncated"),
    "cut number": ("CHGCAR", SI + b" 2 2 2\n1 2 3 4 5 6 7 1.0E", "CHGCAR"),
    "huge grid": ("CHGCAR", SI + b" 99999 99999 99999\n1 2 3\n", "truncated"),
    "large grid": ("CHGCAR", SI + b" 80 80 80\n" + b"1 " * 80**3, "at most 400,000"),
    "many atoms": ("CHGCAR", HEADER.format("Si", "Si", "999999999").encode(), "CHGCAR"),
    "NaN": ("CHGCAR", SI + b" 2 2 2\n" + b"nan " * 8, "NaN"),
    "gzip bomb": ("CHGCAR.gz", gzip.compress(SI + b" 9 9 9\n" + b"1.0\n" * 10**7), "CHGCAR.gz"),
    "bzip2 bomb": ("CHGCAR.bz2", bz2.compress(b"\n" * 10**8), "CHGCAR.bz2"),
    "no element": ("CHGCAR", SI.replace(b"Si", b"Xx") + b" 2 2 2\n" + b"1 " * 8, ""),
    "no atoms": ("CHGCAR", HEADER.format("Si", "Si", "0").encode() + b" 2 2 2\n", "no atoms"),
    "flat cell": ("CHGCAR", SI.replace(b"0 0 3", b"3 0 0") + b" 2 2 2\n" + b"1 " * 8, "volume"),
    "cube of no atoms": ("a.cube", CUBE.format(0, 4).encode(), "no atoms"),
    "cube of many atoms": ("a.cube", CUBE.format(999999999, 4).encode(), "should hold an atom"),
    "cube of a huge grid": ("a.cube", CUBE.format(1, 10**6).encode() + b"1 ", "truncated"),
    "XSF of many atoms": ("a.xsf", XSF.format(99999999, "4 4 4").encode(), "should hold an atom"),
    "XSF of a huge grid": ("a.xsf", XSF.format(1, "99999 99999 99999").encode(), "truncated"),
    "CIF": ("a.cif", b"data_x\n_cell_length_a 1\n", "not a readable CIF"),
    "CIF loop": ("a.cif", b"data_\nloop_\n_atom_site_label\n" + b"A\n" * 10**5, "100000 atoms"),
    "CIF without volume": ("a.cif", CIF.format(0).encode() + b"Si 0 0 0\n", "a.cif"),
    "CIF of many atoms": (
        "a.cif",
        CIF.format(90).encode() + b"".join(b"Si 0 0 %.5f\n" % (i / 10**4) for i in range(10**4)),
        "10000 atoms",
    ),
    "HDF5": ("a.h5", b"\x89HDF\r\n\x1a\n" + b"\0" * 100, "does not read HDF5"),
    "pickle": ("a.pkl", b"\x80\x04\x95cos\nsystem\n", "XSF file (plain, .gz, .bz2, .xz), or a CIF"),
    "zip": ("a.zip", b"PK\x03\x04" + noise(4), "not a file of a known format"),
    "page": ("a.html", b"<script>alert(1)</script>" * 100, "not a file of a known format"),
    "name": ("<img src=x onerror=alert(1)>.cube", b"1\n", "img"),
    "traversal": ("..%2f..%2fetc%2fpasswd", b"root:x:0:0\n", "not a file of a known format"),
}
"""What it is → name of the file, content, and what the answer says of it."""

PLANE = {"h": 1, "k": 1, "l": 0, "offset": 0.0, "window": 8.0}

SEARCH = {
    "targets": ["bulk_modulus_vrh=200.."],
    "elements": [],
    "exclude": [],
    "candidates": 20,
    "count": 1,
    "max_atoms": 2,
    "known": False,
}

HOSTILE_ARGUMENTS = {
    "letter": ("/slice", {**PLANE, "h": "a"}, "h: give a whole number from -12 to 12, not 'a'"),
    "no index": ("/slice", {**PLANE, "k": None}, "k: give a whole number from -12 to 12"),
    "empty index": ("/slice", {**PLANE, "k": ""}, "k: give a whole number from -12 to 12"),
    "broken index": ("/slice", {**PLANE, "l": 0.5}, "l: give a whole number from -12 to 12"),
    "large index": ("/slice", {**PLANE, "h": 10**400}, "h: give a whole number from -12 to 12"),
    "truth": ("/slice", {**PLANE, "h": True}, "h: give a whole number from -12 to 12"),
    "list": ("/slice", {**PLANE, "l": [1, 2, 3]}, "l: give a whole number from -12 to 12"),
    "far away": ("/slice", {**PLANE, "offset": 1e300}, "interplanar spacings from -10 to 10"),
    "no offset": ("/slice", {**PLANE, "offset": None}, "offset: give a number of"),
    "wide": ("/slice", {**PLANE, "window": 1e6}, "window: give a side from 1 to 40 Å"),
    "backwards": ("/slice", {**PLANE, "window": -5}, "window: give a side from 1 to 40 Å"),
    "no width": ("/slice", {**PLANE, "window": {"a": 1}}, "window: give a side from 1 to 40 Å"),
    "kind of a surface": ("/block", {"kind": "<b>"}, "kind: give total, difference, spin or none"),
    "list of kinds": ("/block", {"kind": ["total"]}, "kind: give total, difference, spin or none"),
    "key": ("/slice", {"key": ["a"], **PLANE}, "no longer available"),
    "key of a guess": ("/explain", {"key": "A" * 22}, "no longer available"),
    "number of a material": ("/predict", {"material": 7, "kind": "total"}, "material: give the id"),
    "unknown material": ("/predict", {"material": "x", "kind": "total"}, "material: give the id"),
    "list of materials": ("/predict", {"material": ["mp-149"], "kind": "total"}, "material: give"),
    "unit": ("/predict", {"material": "mp-149", "kind": "total", "unit": "eV"}, "not 'eV'"),
    "wish": ("/design", {**SEARCH, "targets": ["hardness"]}, "target 'hardness': not a range"),
    "no wish": ("/design", {**SEARCH, "targets": []}, "at least one wish"),
    "wishes": ("/design", {**SEARCH, "targets": [{"a": 1}]}, "targets: give a list of texts"),
    "long search": ("/design", {**SEARCH, "candidates": 10**9}, "candidates: give a whole number"),
    "large cells": ("/design", {**SEARCH, "max_atoms": "a"}, "max_atoms: give a whole number"),
    "kind of a file": ("/predict", {"material": "mp-149", "kind": 1}, "or certainly total, not 1"),
}
"""What it is → endpoint, arguments, and what the answer says of them."""
