"""A web page for those who want to look first: drop a density, see what there is, get a prediction.

``rhosight serve`` starts it. From the network to the numbers: :mod:`.door` (what may come in),
:mod:`.site` (uploads, downloads), :mod:`.page` (controls, :mod:`.cards`), :mod:`.pool` (whose turn
it is), :mod:`.worker` (a process that may die), :mod:`.tasks`, :mod:`.reading`, :mod:`.views`,
:mod:`.drawing`. Uploads are read in worker processes only, and nothing is kept.
"""
