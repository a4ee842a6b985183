"""Send requests through mp-api: retry temporary failures, and explain refusals."""

from __future__ import annotations

import json
import os
import re
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.util import Retry

from ....errors import RhosightError, first_line
from ....version import __version__

if TYPE_CHECKING:
    from mp_api.client import MPRester
    from pymatgen.io.vasp.outputs import Chgcar

DASHBOARD = "https://next-gen.materialsproject.org/api"
"""Address at which users find their key."""


class _Missing(RhosightError):
    """Report that the server answered 404."""


@dataclass(frozen=True)
class Patience:
    """Set the number of retries, their delay and their longest delay (seconds)."""

    retries: int
    backoff: float
    max_wait: float

    def wait(self, attempt: int, asked: float | None = None) -> None:
        """Sleep after a failed attempt, counted from 0; not after the last one."""
        if attempt < self.retries:
            time.sleep(min(self.backoff * 2**attempt if asked is None else asked, self.max_wait))


class Client:
    """Access the API and the open-data bucket through mp-api.

    It knows the key: never pickle it.

    Raises
    ------
    RhosightError
        If mp-api is not installed, or the API does not answer.
    """

    def __init__(self, endpoint: str | None, patience: Patience) -> None:
        self._patience = patience
        self.api = self._connect(endpoint)

    def _connect(self, endpoint: str | None) -> MPRester:
        try:
            from mp_api.client import MPRester
            from mp_api.client.core.exceptions import MPRestError
        except ImportError as error:
            raise RhosightError(
                "the Materials Project needs mp-api; pip install 'rhosight[mp]'"
            ) from error
        for attempt in range(self._patience.retries + 1):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # densities need no key, so ignore its warning
                    api = MPRester(
                        endpoint=endpoint,
                        session=_Session(self._patience),
                        use_document_model=False,
                        mute_progress_bars=True,
                    )
                    api.materials.tasks  # noqa: B018, created on first use, with the same warning
                    return api
            except MPRestError as error:  # an invalid key
                raise RhosightError(
                    f"Materials Project: {first_line(error)} The key comes from "
                    f"{_describe_key_origin()}; correct it"
                ) from None
            # mp-api sends its heartbeat without the session, and fails on malformed answers
            except (requests.RequestException, ValueError, KeyError, TypeError) as error:
                problem = first_line(error)
            self._patience.wait(attempt)
        where = endpoint or "https://api.materialsproject.org/"
        raise RhosightError(f"{where}heartbeat: no answer ({problem}); run again later")

    def require_key(self) -> None:
        """Check that there is a key.

        Raises
        ------
        RhosightError
            If there is none.
        """
        if not self.api.api_key:
            raise RhosightError(
                f"no key for the Materials Project's API; get one at {DASHBOARD} and set the "
                "environment variable MP_API_KEY"
            )

    def ask(
        self, search: Callable[..., list[dict[str, Any]]], **criteria: Any
    ) -> list[dict[str, Any]]:
        """Call one of the API's searches; return an empty list if nothing matches.

        Raises
        ------
        RhosightError
            If the server refuses, or all attempts fail.
        """
        try:
            return search(**criteria)
        except _Missing:
            if "material_ids" in criteria or "task_ids" in criteria:
                return []
            raise
        except RhosightError:
            raise
        except Exception as error:  # mp-api's own, and failures on malformed answers
            text = " ".join(str(error).split()) or type(error).__name__
            if self.api.api_key:  # before the text is cut, or half of the key could remain
                text = text.replace(self.api.api_key, "<key>")
            # not `from error`: a server's answer may repeat what it was sent
            raise RhosightError(f"Materials Project: {text[:800]}") from None

    def density(self, task_id: str) -> Chgcar | None:
        """Return a calculation's density from the open-data bucket; None without any.

        Raises
        ------
        RhosightError
            If it cannot be read or is damaged.
        """
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError
        from mp_api.client.core.exceptions import MPRestError
        from pymatgen.io.vasp.outputs import Chgcar
        from s3transfer.exceptions import RetriesExceededError

        for attempt in range(self._patience.retries + 1):
            try:
                chgcar = self.api.get_charge_density_from_task_id(task_id)
                if isinstance(chgcar, Chgcar) and "total" in chgcar.data:
                    return chgcar
                problem = f"the file in the bucket for {task_id} is not a charge density"
                break
            except MPRestError as error:
                refusal, is_temporary = self._explain_missing(str(error))
                if refusal is None:
                    return None
                problem = refusal
                if not is_temporary:
                    break
            except (Boto3Error, BotoCoreError, RetriesExceededError) as error:
                problem = first_line(error)
                break  # boto3 has tried again already
            except Exception as error:  # from gzip, JSON or pymatgen: a truncated file
                problem = f"the density of {task_id} is truncated or damaged ({first_line(error)})"
            self._patience.wait(attempt)
        raise RhosightError(f"{problem}; run again later, or remove the material")

    def _explain_missing(self, message: str) -> tuple[str | None, bool]:
        """Return why an object cannot be read, and whether that is temporary.

        The reason is None if the object does not exist. mp-api reports "No object found: s3://..."
        for every answer of S3, so this method asks S3 itself.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        named = re.search(r"s3://([^/\s]+)/(\S+)", message)
        if named is None:
            return message, False
        bucket, key = named.groups()
        try:
            self.api.materials.tasks.s3_client.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            problem = None if status == 404 else f"s3://{bucket}/{key}: HTTP {status}"
            return problem, status == 429 or status >= 500
        except BotoCoreError as error:
            return first_line(error), False
        return f"s3://{bucket}/{key} could not be read", True


class _Session(requests.Session):
    """Repeat a request while the server is busy, and explain refusals.

    mp-api's own session tries three times within a second, does not retry after a 500 or a
    truncated body, and waits for as long as a server asks.
    """

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience
        self.headers["user-agent"] = f"rhosight/{__version__} (mp-api)"

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        address = urlsplit(str(request.url))
        where = f"{address.scheme}://{address.netloc}{address.path}"
        attempts = self._patience.retries + 1
        for attempt in range(attempts):
            asked = None
            try:
                response = super().send(request, **kwargs)
            except requests.RequestException as error:
                problem = first_line(error)
            else:
                _check_refusal(response, where)
                failure = _find_temporary_failure(response)
                if failure is None:
                    return response
                problem = failure
                asked = _retry_after(response)
                if asked is not None and asked > self._patience.max_wait:
                    raise RhosightError(
                        f"{where}: {problem}, retry in {asked:.0f} s; run again then, or raise "
                        "max_wait"
                    )
            self._patience.wait(attempt, asked)
        raise RhosightError(f"{where}: {problem}, {attempts} times in a row; run again later")

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Keep the key from another host; requests only knows its own headers."""
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(str(response.request.url), str(prepared_request.url)):
            prepared_request.headers.pop("x-api-key", None)


def _check_refusal(response: requests.Response, where: str) -> None:
    if response.status_code in (401, 403):
        raise RhosightError(
            f"{where}: access refused (HTTP {response.status_code}); the key comes from "
            f"{_describe_key_origin()}; compare it with the one at {DASHBOARD}"
        )
    if response.status_code == 404:
        raise _Missing(f"{where}: not found (HTTP 404); correct the endpoint")


def _find_temporary_failure(response: requests.Response) -> str | None:
    """Return a failure that a retry may cure, or None."""
    if response.status_code == 429 or response.status_code >= 500:
        return f"HTTP {response.status_code}"
    if response.status_code == 200:
        try:
            json.loads(response.content)
        except ValueError:
            return "the answer is truncated"
    return None


def _retry_after(response: requests.Response) -> float | None:
    """Return the seconds that the server asks to wait."""
    value = response.headers.get("Retry-After")
    try:
        return None if value is None else float(Retry().parse_retry_after(value))
    except Exception:  # urllib3's own error: neither seconds nor a date
        return None


def _describe_key_origin() -> str:
    if os.environ.get("MP_API_KEY"):
        return "the environment variable MP_API_KEY"
    return "PMG_MAPI_KEY (environment, or pymatgen's settings file)"
