"""Explain predictions by modalities, places on the slice, words and descriptors.

>>> model = rhosight.load_model("best")
>>> why = rhosight.explain(model, rhosight.read_density("CHGCAR"))
>>> why.modalities  # Shapley values; with why.base they sum to why.prediction
>>> rhosight.explain.save(why, "why")  # tables, figures and JSON

- :mod:`.explain`: the function ``rhosight.explain``
- :mod:`.explainers`: choose the explainer for a kind of model
- :mod:`.network_explainer`, :mod:`.process_explainer`: one for each kind of model
- :mod:`.pieces`: their interface
- :mod:`.networks`, :mod:`.processes`: attributions of networks and of Gaussian processes
- :mod:`.shapley`, :mod:`.gradients`: Shapley values and integrated gradients
- :mod:`.words`: assignment of tokens to words
- :mod:`.chemistry`: classes of compounds for summaries
- :mod:`.explanation`, :mod:`.maps`: results
- :mod:`.figures`, :mod:`.files`, :mod:`.notebook`: drawing, saving and showing results
- :mod:`.deletion`: test of attributions by deletion
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..errors import name_missing_extra

if TYPE_CHECKING:
    from .explanation import Explanation as Explanation
    from .explanation import Explanations as Explanations
    from .figures import draw_explanation as draw_explanation
    from .figures import draw_maps as draw_maps
    from .figures import draw_summary as draw_summary
    from .files import save as save
    from .maps import SliceMap as SliceMap

_PUBLIC = {
    "Explanation": "explanation",
    "Explanations": "explanation",
    "SliceMap": "maps",
    "draw_explanation": "figures",
    "draw_maps": "figures",
    "draw_summary": "figures",
    "save": "files",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_PUBLIC[name]}", __name__), name)


class _CallableModule(ModuleType):
    """Package that can be called: ``rhosight.explain(model, materials)``.

    Importing any submodule binds the name ``rhosight.explain`` to the package, where users expect
    the function.
    """

    def __call__(
        self,
        model: Any,
        materials: Any,
        details: bool = True,
        background: Any = None,
        progress: Any = None,
    ) -> Any:
        """Explain predictions, see :func:`rhosight.explain.explain.explain`."""
        with name_missing_extra():
            from .explain import explain

            return explain(model, materials, details, background, progress)


sys.modules[__name__].__class__ = _CallableModule
