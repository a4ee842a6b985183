"""Tell from a file's name and comment whether it holds the charge density.

Codes write other fields in the formats of densities: potentials, orbitals, spin densities, the
density of one spin. Each is recognised by the names and comments that the code gives it:

- VASP and its tools: LOCPOT, ELFCAR, PARCHG, TAUCAR, CHGCAR_mag, CHGDIFF, SPIN, WFN_SQUARED
- CP2K (qs_scf_post_gpw.F, qs_sccs.F): v_hartree, ext_pot, SPIN_DENSITY, WFN, ELF, efield, and
  TOTAL_DENSITY (with the charge of the nuclei); its total densities are titled ELECTRON DENSITY or
  SUM OF ALPHA AND BETA DENSITY
- ABACUS (out_chg, out_pot, out_elf): pots, pot_es, SPIN1_POT, ElecStaticPot, elf, taus, pchg, wf,
  BAND..., LDOS, chg_ini; a number of the step follows in relaxations (chgs1g2)
- SIESTA (grid2cube, denchar, rho2xsf): VH, VT, VNA, DRHO, RHOINIT, RHOXC, TOCH, IOCH, BADER, LDOS,
  ELF, WF, RHO.UPminusDOWN; the name is the comment or the label of the grid, too
- Quantum ESPRESSO (postproc.f90 appends _K001_B001 to orbitals and 001 to the energies of a local
  density of states; all other names are the user's) and Octopus: v_h, v_bare, psi2, elf, rdg, dori,
  vks, wf-st0001
- ABINIT (m_hdr.F90, all_abifiles): POT, VHA, VXC, VHXC, VPSP, VCLMB, and these with the number of a
  perturbation; DEN1, DEN2... (first order), POSITRON, WFK, KSS, PAWAVES, STM, ELF, KDEN, GDEN1,
  LDEN, PAWDEN, ATMDEN_CORE, ATMDEN_VAL, ATMDEN_FULL, N_TILDE, N_ONE, NT_ONE
- FHI-aims (setup_cube_defaults.f90): spin_density, delta_density, delta_v, eigenstate, ion_dens,
  hartree_potential, xc_potential, long_range_potential, dielec_func
- OpenMX (OutData.c): sden, dden, pden, v0, v1, vhart, vna, vxc0, homo, lumo, NHO, NBO, mlwf
- Gaussian, ORCA, Psi4: MO coefficients, spin SCF density, electrostatic potential
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .charge_density import StoredKind


@dataclass(frozen=True)
class Content:
    """A field that is not the total charge density.

    Attributes
    ----------
    name
        With its article, for messages: ``a spin density``.
    kind
        The kind of density as which it can be read, if any.
    """

    name: str
    kind: StoredKind | None = None


POTENTIAL = Content("a potential")
SPIN = Content("a spin density", "spin")
DIFFERENCE = Content("a density difference", "difference")
ORBITAL = Content("an orbital, or the density of one")
PARTIAL = Content("the density of some bands")
LOCALISATION = Content("a localisation function")
KINETIC = Content("a kinetic-energy density")
DERIVATIVE = Content("a derivative of the density")
ATOMS = Content("the superposed atoms that a calculation starts from")
PAW = Content("the density with that in the PAW spheres, or a part of it")
NUCLEI = Content("the charge of electrons and nuclei")
CURRENT = Content("a current or a field")
RESPONSE = Content("a dielectric function or a constraint")
FIRST_ORDER = Content("the response of the density to a perturbation")
ERROR_MAP = Content("a map of errors of a predicted density")
OTHER = Content("another field than the electron density")

# Names, in lower case and without the suffix of the format; `#` stands for a number. A word is
# enclosed by anything but letters and digits.
_NAMES: tuple[tuple[str, Content], ...] = (
    # the whole name or its end: too short to be recognised anywhere
    (
        r".[._-](v[01]|vh|vt|vna|vha|vxc|vhxc|vhart|dvhart|vks|vpsp|vclmb|vloc|vtot|vltot|"
        r"veff|vbare|vxc[01]|delta_v|esp|poten)$",
        POTENTIAL,
    ),
    (r"^(v_?(h|ks|xc|tot|bare|eff|loc|hartree)|v[kx][sc]|esp|vcl3d|vxc3d|vltot)$", POTENTIAL),
    (
        r".[._-](sden|spinden|spindens|upminusdown|ncsden|nco?)$|.\.spin$|"
        r"^(spin|spol|mag|ds|mag3d|cf2)$",
        SPIN,
    ),
    (r".[._-]pden[01]?$", PARTIAL),
    (r".[._-](ioch|chrg)$|-(total|polari[sz]ation)_(charge_)?density-\d", NUCLEI),
    (r".[._-](eps|ion_dens)$", RESPONSE),
    (r"._den[1-9]\d*$", FIRST_ORDER),
    (r".[._-](rhoxc|energy_density|positron|entropy)$", OTHER),
    (r"._(pot|vha|vpsp|vxc|vhxc)[1-9]\d*$|._vhpsp$|.[._-](edir|sawtooth)$", POTENTIAL),
    (r".[._-](bxc[._-]?[xyz]?)$", SPIN),
    (r"._(n_tilde|n_one|nt_one)$", PAW),
    (r"._atmden_(core|val|full)$", ATOMS),
    (r".[._-]dden$", DIFFERENCE),
    # words
    (
        r"\b(locpot|el(ec)?stat(ic)?pot(ential)?|\w*potential|pots?#?(g#)?(_?(es|ini|total))?)\b",
        POTENTIAL,
    ),
    (
        r"\b(spin#_pot\w*|pot_(es|ini|total|hartree)|v_?hartree\w*|hartree|v_?xc|v_?ext\w*|"
        r"v_?coul\w*)\b",
        POTENTIAL,
    ),
    (
        r"\b(spin_?dens(ity)?|spin_?pol(arization)?|magneti[sz]ation|mag_?[xyz]?|mag(den|nd)|magmom|"
        r"sdens)\b",
        SPIN,
    ),
    (r"\b(total_)?spin_(density|moment)\b", SPIN),
    (
        r"\b(delta_?(density|rho|rho_r)|drho|chg_?diff|rho_?diff|den_?diff|diff(erence)?|"
        r"deform(ation)?|abs2diff|ddens?|dden)\b",
        DIFFERENCE,
    ),
    (
        r"\b(wfn?#?|wfc#?|wf(i#)?s#(k#)?(re|im|ri)?|wave_?functions?|psi#?|orb(ital)?s?#?|"
        r"mo#[ab]?|homo#?|lumo#?)\b",
        ORBITAL,
    ),
    (
        r"\b(eigenstate(_density)?|eigstate|wannier#?|nto#?|nho#?|nbo-[ab]#?|mlwf#?|iao#?|"
        r"kss?_?orb\w*|st#|wfk|kss|pawaves|k#_b#(_[a-z]+)?|wf3d|wfn_squared\w*|unk#|phi#?|"
        r"eigenvec\w*|state#|b#k#)\b|_wf[ck]?_|^wp-\d",
        ORBITAL,
    ),
    (
        r"\b(parchg|pchgi?#?(s#)?(k#)?|band#|partial(_?(charge|density))?|i?ldos#?|pdos|"
        r"stm\w*|energy_window#?)\b|^band#",
        PARTIAL,
    ),
    (r"\b(elf(car|3d|tot|_rs)?#?(g#)?|elf_?(spin|s|up|down|dn)#?(g#)?|lol)\b", LOCALISATION),
    (r"\b(taucar|taus?#?(g#)?|kden|ked|kin(etic)?_?(energy)?(_?density)?|spin#_tau)\b", KINETIC),
    (r"\b(gden#?|lden|laplacian|grad(ient)?|rdg|dori|sign_?lambda2\w*)\b", DERIVATIVE),
    (r"\b(chgs?#?(g#)?_ini|spin#_chg_ini|rho_?init|superposition)\b", ATOMS),
    (r"\b(qp_)?pawden\b", PAW),
    (r"\b(toch|bader)\b", NUCLEI),
    (
        r"\b(efield(_[xyz])?|electric_field|\w*curden\w*|current|jresp|nablavks\w*|stress|"
        r"local_(energy|stress))\b",
        CURRENT,
    ),
    (
        r"\b(dielec(tric)?_?(func|constant)?|dirichlet_cstr\w*|becke_cavity|cavity|hw_rho\w*)\b",
        RESPONSE,
    ),
    (r"\b(spin|chgs)[34](g#)?(_chg)?\b", SPIN),
)

# Comments and headers, as sentences
_COMMENTS: tuple[tuple[str, Content], ...] = (
    (r"^error map\b", ERROR_MAP),  # rhosight density --error-map
    (
        r"(?<!full[ -])(?<!full)(?<!pseudo[ -])(?<!model[ -])\bpotential\b|\blocpot\b|\besp\b|"
        r"\bv_?hartree\b",
        POTENTIAL,
    ),
    (
        r"\bspin[ _-]*(scf[ _-]*)?(density|polari[sz]ation density|moment)\b|"
        r"\bmagneti[sz]ation\b",
        SPIN,
    ),
    (
        r"\b((spin|mag)[ _]?)?m(agnetic)? moment density\b|\bup ?minus ?d(ow)?n\b|"
        r"\b(rho|n)[ _]?up ?- ?(rho|"
        r"n)[ _]?d(ow)?n\b",
        SPIN,
    ),
    (
        r"\b((density|charge) difference|difference density|deformation density|"
        r"delta[ _](density|rho)|fukui)\b",
        DIFFERENCE,
    ),
    (
        r"\bwave ?functions?\b|\borbitals?\b(?!-free)|\bmo coefficients?\b|\beigen(state|"
        r"function)\b|\b(homo|lumo)\b|\bwannier90\b|\b(kohn-sham|ks) state\b|\bwfc\b|\bpsi\b",
        ORBITAL,
    ),
    (
        r"\bpartial (charge|density)\b|\bband[ -]decomposed\b|\bband ?[#=:]? ?\d+\b|\bi?ldos\b|"
        r"\blocal density of states\b|\bstm\b|\bparchg\b",
        PARTIAL,
    ),
    (r"\belf\b|\belectron locali[sz]ation\b|\belfcar\b", LOCALISATION),
    (r"\bkinetic[ -]energy density\b", KINETIC),
    (r"\brdg\b|\blaplacian\b|\bdensity gradient\b|\bgradient of\b", DERIVATIVE),
    (r"\bsuperposition of atom|\bsuperposed atom|\bpromolecul|\bindependent atom", ATOMS),
    (r"\belectric field\b|\bcurrent density\b|\bcharge density of (the )?nuclei\b", CURRENT),
)

_SUFFIX = re.compile(r"(\.(cube|cub|a?xsf|vasp|h5|hdf5|chgcar|chg|gz|bz2|xz))+$", re.IGNORECASE)
_ORBITAL_NUMBER = re.compile(r"\b(MO|mo) ?[#=:] ?\d")  # not molybdenum, as in "Mo:1 S:2"
_CP2K_TOTAL = re.compile(r"electron density|alpha and beta density")
_NSPIN = re.compile(r"\b(\d) \(nspin\)|\bnspin *[=:]? *(\d)\b", re.IGNORECASE)


def _compile(pattern: str) -> re.Pattern[str]:
    start, end = r"(?<![a-z0-9])", r"(?![a-z0-9])"
    parts = pattern.replace("#", r"(?:[_-]?\d+)").split(r"\b")
    # `\b` opens and closes in turn
    joined = parts[0]
    for number, part in enumerate(parts[1:]):
        joined += (end if number % 2 else start) + part
    return re.compile(joined)


_NAME_PATTERNS = [(_compile(pattern), content) for pattern, content in _NAMES]
_COMMENT_PATTERNS = [(re.compile(pattern), content) for pattern, content in _COMMENTS]


def strip_suffix(name: str) -> str:
    """Return the name of a file without the suffixes of formats and compression."""
    return _SUFFIX.sub("", name)


def identify_name(name: str) -> Content | None:
    """Return the content that a file's name states, unless it may be the total."""
    stem = strip_suffix(name).lower()
    return next((content for known, content in _NAME_PATTERNS if known.search(stem)), None)


def identify_comment(comment: str) -> Content | None:
    """Return the content that a comment states, unless it may be the total density.

    SIESTA's tools write the name of the file, which somebody may have changed since.
    """
    text = " ".join(comment.lower().split())
    if "quickstep" in text and "total density" in text:
        return NUCLEI
    found = next((content for known, content in _COMMENT_PATTERNS if known.search(text)), None)
    if found is None and _ORBITAL_NUMBER.search(comment):
        found = ORBITAL
    names = (identify_name(word) for word in text.split() if _SUFFIX.search(word))
    found = found or next(filter(None, names), None)
    if found is None and "quickstep" in text and not _CP2K_TOTAL.search(text):
        return OTHER
    return found


def identify_label(label: str) -> Content | None:
    """Return the content that a grid's label states, such as ``VH:spin_1``."""
    words = re.split(r"[:\s]+", label.lower())
    return next(filter(None, (identify_name(f"grid.{word}") for word in words)), None)


def read_spin_count(comment: str) -> int | None:
    """Return the number of spin components of the calculation, if a comment states it."""
    match = _NSPIN.search(comment)
    return int(match[1] or match[2]) if match else None
