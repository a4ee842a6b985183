"""mp-api with patience: what fails in passing is tried again, what is refused is said clearly."""

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
"""Where users find their key."""


class _Missing(RhosightError):
    """The server answered 404."""


@dataclass(frozen=True)
class Patience:
    """How often, after how long, and for how long at most (seconds) to try again."""

    retries: int
    backoff: float
    max_wait: float

    def wait(self, attempt: int, asked: float | None = None) -> None:
        """Sleep after an attempt that failed, counted from 0; not after the last one."""
        if attempt < self.retries:
            time.sleep(min(self.backoff * 2**attempt if asked is None else asked, self.max_wait))


class Client:
    """The API and the open-data bucket, through mp-api. Knows the key: never pickle one.

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
                "the Materials Project needs mp-api: pip install 'rhosight[mp]'"
            ) from error
        for attempt in range(self._patience.retries + 1):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # that there is no key: densities need none
                    api = MPRester(
                        endpoint=endpoint,
                        session=_Session(self._patience),
                        use_document_model=False,
                        mute_progress_bars=True,
                    )
                    api.materials.tasks  # noqa: B018, made on first use, with the same warning
                    return api
            except MPRestError as error:  # a key that cannot be one
                raise RhosightError(
                    f"Materials Project: {first_line(error)} The key comes from {_key_origin()}"
                ) from None
            # mp-api asks for its heartbeat without the session, and trips over odd answers
            except (requests.RequestException, ValueError, KeyError, TypeError) as error:
                problem = first_line(error)
            self._patience.wait(attempt)
        where = endpoint or "https://api.materialsproject.org/"
        raise RhosightError(f"{where}heartbeat: no answer ({problem}); run again later")

    def require_key(self) -> None:
        """Raise if no key was found."""
        if not self.api.api_key:
            raise RhosightError(
                f"no key of the Materials Project's API; get one at {DASHBOARD} and put it into "
                "the environment variable MP_API_KEY"
            )

    def ask(
        self, search: Callable[..., list[dict[str, Any]]], **criteria: Any
    ) -> list[dict[str, Any]]:
        """Call one of the API's searches; what it finds none of is an empty list.

        Raises
        ------
        RhosightError
            If the server refuses, or fails more often than patience allows.
        """
        try:
            return search(**criteria)
        except _Missing:
            if "material_ids" in criteria or "task_ids" in criteria:
                return []
            raise
        except RhosightError:
            raise
        except Exception as error:  # mp-api's own, and what it trips over in an odd answer
            text = " ".join(str(error).split()) or type(error).__name__
            if self.api.api_key:  # first, lest half of it stays at the end
                text = text.replace(self.api.api_key, "<key>")
            # not `from error`: a server's answer may repeat what it was sent
            raise RhosightError(f"Materials Project: {text[:800]}") from None

    def density(self, task_id: str) -> Chgcar | None:
        """The density of a calculation from the open-data bucket; None if that has none.

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
                problem = f"what the bucket holds for {task_id} is no charge density"
                break
            except MPRestError as error:
                problem, passing = self._why_not(str(error))
                if problem is None:
                    return None
                if not passing:
                    break
            except (Boto3Error, BotoCoreError, RetriesExceededError) as error:
                problem = first_line(error)
                break  # boto3 has tried again already
            except Exception as error:  # gzip's, JSON's or pymatgen's own: a file cut short
                problem = f"the density of {task_id} is cut short or damaged ({first_line(error)})"
            self._patience.wait(attempt)
        raise RhosightError(f"{problem}; run again later, or leave it out")

    def _why_not(self, message: str) -> tuple[str | None, bool]:
        """What keeps an object from being read (None: there is none), and whether that may pass.

        mp-api says "No object found: s3://..." whatever S3 answered; so S3 itself is asked.
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
    """Sends a request again while the server is only busy, and says clearly when it refuses.

    mp-api's own session tries three times within a second, not at all after a 500 or a body that
    was cut, and waits for as long as a server wishes.
    """

    def __init__(self, patience: Patience) -> None:
        super().__init__()
        self._patience = patience
        self.headers["user-agent"] = f"rhosight/{__version__} (mp-api)"

    def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:
        address = urlsplit(request.url)
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
                problem = _passing_problem(response)
                if problem is None:
                    return response
                asked = _retry_after(response)
                if asked is not None and asked > self._patience.max_wait:
                    raise RhosightError(
                        f"{where}: {problem}, come back in {asked:.0f} s; do so, or raise max_wait"
                    )
            self._patience.wait(attempt, asked)
        raise RhosightError(f"{where}: {problem}, {attempts} times in a row; run again later")

    def rebuild_auth(
        self, prepared_request: requests.PreparedRequest, response: requests.Response
    ) -> None:
        """Keep the key from another host; requests knows of its own headers only."""
        super().rebuild_auth(prepared_request, response)
        if self.should_strip_auth(response.request.url, prepared_request.url):
            prepared_request.headers.pop("x-api-key", None)


def _check_refusal(response: requests.Response, where: str) -> None:
    if response.status_code in (401, 403):
        raise RhosightError(
            f"{where}: access refused (HTTP {response.status_code}); the key comes from "
            f"{_key_origin()}, compare it with the one at {DASHBOARD}"
        )
    if response.status_code == 404:
        raise _Missing(f"{where}: not found (HTTP 404); correct the endpoint")


def _passing_problem(response: requests.Response) -> str | None:
    """What may be better in a moment."""
    if response.status_code == 429 or response.status_code >= 500:
        return f"HTTP {response.status_code}"
    if response.status_code == 200:
        try:
            json.loads(response.content)
        except ValueError:
            return "the answer is cut short"
    return None


def _retry_after(response: requests.Response) -> float | None:
    """Seconds that the server asks to wait."""
    value = response.headers.get("Retry-After")
    try:
        return None if value is None else float(Retry().parse_retry_after(value))
    except Exception:  # urllib3's own error: neither seconds nor a date
        return None


def _key_origin() -> str:
    if os.environ.get("MP_API_KEY"):
        return "the environment variable MP_API_KEY"
    return "PMG_MAPI_KEY (environment, or pymatgen's settings file)"
