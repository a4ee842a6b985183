"""Provide the open-data bucket: moto's S3 server behind a proxy with faults."""

from __future__ import annotations

import gzip
import http.client
import json

import boto3
import numpy as np
from monty.json import MontyEncoder
from moto.server import ThreadedMotoServer
from pymatgen.io.vasp.outputs import Chgcar

from rhosight import ChargeDensity

from .faulty import FaultyServer, Reply, Request

BUCKET = "materialsproject-parsed"


class OpenData(FaultyServer):
    """Forward requests to moto."""

    def __enter__(self) -> OpenData:
        self._moto = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
        self._moto.start()
        self._backend = self._moto.get_host_and_port()
        self._client = boto3.client(
            "s3",
            endpoint_url="http://{}:{}".format(*self._backend),
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )
        self._client.create_bucket(Bucket=BUCKET, ACL="public-read")
        super().__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._moto.stop()

    def put(self, task_id: str, body: bytes) -> None:
        """Store an object where mp-api looks for the density of a calculation."""
        self._client.put_object(Bucket=BUCKET, Key=key(task_id), Body=body, ACL="public-read")

    def answer(self, request: Request) -> Reply:
        connection = http.client.HTTPConnection(*self._backend, timeout=10)
        connection.request(request.method, request.target, headers=request.headers)
        response = connection.getresponse()
        body = response.read()
        skipped = ("connection", "transfer-encoding", "content-length", "date", "server")
        headers = {k: v for k, v in response.getheaders() if k.lower() not in skipped}
        length = response.getheader("Content-Length")
        connection.close()
        return Reply(response.status, body, headers, None if length is None else int(length))


def key(task_id: str) -> str:
    """Return the key of an object in the bucket."""
    return f"chgcars/{task_id}.json.gz"


def chgcar_object(density: ChargeDensity, task_id: str) -> bytes:
    """Return a density in the format of the bucket.

    It is compressed JSON of a Chgcar, with values multiplied by the volume.
    """
    volume = density.structure.volume
    blocks = {"total": np.asarray(density.grid("total"), dtype=float) * volume}
    if "spin" in density.kinds:
        blocks["diff"] = np.asarray(density.grid("spin"), dtype=float) * volume
    chgcar = Chgcar(density.structure.copy(), blocks)
    document = {"fs_id": "5f2b", "task_id": task_id, "data": chgcar.as_dict()}
    return gzip.compress(json.dumps(document, cls=MontyEncoder).encode())
