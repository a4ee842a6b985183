"""Check that weights of a model hub are on this machine or can be fetched."""

from __future__ import annotations

import urllib.error
import urllib.request

from ..errors import RhosightError


def require_hub(name: str, hub_id: str | None, modality: str, bundled: str) -> None:
    """Raise RhosightError at once if weights are neither cached nor reachable.

    Without this check, libraries retry for a minute.
    """
    if (hub_id and is_cached(hub_id)) or hub_answers():
        return
    raise RhosightError(
        f"the weights of {modality} backbone {name!r} are not on this machine and the model hub "
        f"cannot be reached: on a machine with network run `hf download {hub_id or name}` and copy "
        f"its cache (HF_HOME) here, or give a local folder, or use the bundled {bundled!r}"
    )


def is_cached(hub_id: str) -> bool:
    """Return whether the cache of the model hub has weights under this id."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(hub_id, file), str) for file in files)


def hub_answers() -> bool:
    """Return whether weights can be fetched: the user allows it and the hub answers."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and _is_reachable(constants.ENDPOINT)


def hub_error(name: str, modality: str, bundled: str, error: Exception) -> RhosightError:
    """Return the error for a backbone that cannot be loaded: reason and alternative."""
    reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else repr(error)
    return RhosightError(
        f"{modality} backbone {name!r} could not be loaded ({reason}); check the name, or use the "
        f"bundled {bundled!r}"
    )


def _is_reachable(url: str, seconds: float = 5.0) -> bool:
    try:
        request = urllib.request.Request(url, method="HEAD")
        with urllib.request.urlopen(request, timeout=seconds):
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False
