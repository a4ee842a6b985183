"""Serve a web page that reads a density, draws it and predicts its properties.

``rhosight serve`` starts it. A request passes :mod:`.middleware` (which requests are allowed),
:mod:`.site` (uploads and downloads), :mod:`.page` and :mod:`.endpoints` (controls and API, with
texts from :mod:`.fragments`), :mod:`.jobs` (arguments, :mod:`.checks`, and files, :mod:`.store`),
:mod:`.pool` (the queue) and :mod:`.worker` (a process that may be killed). The worker runs
:mod:`.tasks`, which use :mod:`.reading`, :mod:`.views` and :mod:`.figures`. The limits are in
:mod:`.limits`. Uploads are read in worker processes only and deleted once they are read.
"""
