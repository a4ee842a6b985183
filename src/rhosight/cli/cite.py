"""``rhosight cite``: what to cite, as BibTeX."""

from __future__ import annotations

from ..version import __version__

BIBTEX = """@software{{rhosight,
  author = {{{{The rhosight developers}}}},
  title = {{rhosight: properties of crystals from their electron charge densities}},
  version = {{{version}}},
  license = {{MIT}}
}}

@article{{massa2024transfer,
  author = {{Massa, Dario and Kaszuba, Grzegorz and Papanikolaou, Stefanos and Sankowski, Piotr}},
  title = {{Transfer Learning in Materials Informatics: structure-property relationships through
    minimal but highly informative multimodal input}},
  year = {{2024}},
  eprint = {{2401.09301}},
  archivePrefix = {{arXiv}}
}}

@article{{jain2013commentary,
  author = {{Jain, Anubhav and others}},
  title = {{Commentary: The Materials Project: A materials genome approach to accelerating
    materials innovation}},
  journal = {{APL Materials}},
  volume = {{1}},
  pages = {{011002}},
  year = {{2013}},
  doi = {{10.1063/1.4812323}}
}}

@article{{enkovaara2010electronic,
  author = {{Enkovaara, J. and others}},
  title = {{Electronic structure calculations with GPAW: a real-space implementation of the
    projector augmented-wave method}},
  journal = {{Journal of Physics: Condensed Matter}},
  volume = {{22}},
  pages = {{253202}},
  year = {{2010}},
  doi = {{10.1088/0953-8984/22/25/253202}}
}}"""


def cite() -> None:
    """Print BibTeX entries of rhosight, the paper, and the data of the bundled models."""
    print(BIBTEX.format(version=__version__))
