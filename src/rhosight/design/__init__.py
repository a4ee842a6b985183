"""Design: from wanted properties to crystals.

>>> found = rhosight.design({"bulk_modulus_vrh": (200, 250)}, count=20, out="stiff")
>>> found.proposals  # ranked by the probability that all wishes hold

- :mod:`.search`: the function ``rhosight.design``
- :mod:`.wishes`: ranges of properties, probabilities that predictions lie in them
- :mod:`.prototypes`, :mod:`.own_types`: structure types of known crystals, and of a user's own
- :mod:`.elements`, :mod:`.space`: elements that are alike; candidates
- :mod:`.geometry`, :mod:`.volume`: features of occupied structure types; their volume
- :mod:`.screening`, :mod:`.ledger`: predictions of candidates; what was tried
- :mod:`.processes`: predictions by several processes, or Dask's workers
- :mod:`.evolution`: candidates by an evolutionary algorithm
- :mod:`.hull`, :mod:`.selection`: energies above the hull; the choice of proposals
- :mod:`.result`, :mod:`.report`: results, their files and their report
- :mod:`.loop`: search, compute the proposals by DFT, learn, and search again
- :mod:`.calculations`, :mod:`.equation_of_state`, :mod:`.references`: what GPAW computes
- :mod:`.correction`, :mod:`.verification`: what it differs on known crystals; proposals computed
- :mod:`.retraining`, :mod:`.verification_report`: models that learn from it; the report
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .result import Design as Design

__all__ = ["Design"]


def __getattr__(name: str) -> Any:
    if name != "Design":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module(".result", __name__).Design


class _CallableModule(ModuleType):
    """Package that can be called: ``rhosight.design(targets)``.

    Importing any submodule binds the name ``rhosight.design`` to the package, where users expect
    the function.
    """

    def __call__(self, targets: Any, **settings: Any) -> Any:
        """Search for crystals, see :func:`rhosight.design.search.design`."""
        from .search import design

        return design(targets, **settings)


sys.modules[__name__].__class__ = _CallableModule
