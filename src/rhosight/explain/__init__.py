"""Why a model predicts what it does: modalities, places on the slice, words, descriptors.

Use it through a model:

>>> model = rhosight.load_model("best")
>>> why = model.explain(rhosight.ChargeDensity.from_file("CHGCAR"))
>>> why.modalities  # Shapley values: with why.base they sum to why.prediction
>>> why.save("why")  # tables, figures and JSON

- :mod:`.shapley`: what each modality adds, exactly
- :mod:`.gradients`: integrated gradients, with a check of what they leave over
- :mod:`.networks`, :mod:`.processes`: both, for the two kinds of model
- :mod:`.words`: from tokens to words
- :mod:`.explanation`, :mod:`.drawing`: what comes out, its files and figures
- :mod:`.chemistry`: classes of compounds, for summaries
- :mod:`.deletion`: whether what is said to matter does
"""

from __future__ import annotations

from .explanation import Explanation, Explanations, SliceMap

__all__ = ["Explanation", "Explanations", "SliceMap"]
