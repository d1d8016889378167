"""A notification on the wire: a CloudEvent 1.0 as structured JSON, with the headers of Standard Webhooks. Pure."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from dynalign_operator.api.v1alpha1 import API_VERSION, PLURAL, AlignmentRun
from dynalign_operator.planning.notifications import DueNotification

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"
_PREFIX: Final = "whsec_"
_SHORTEST_KEY: Final = 16
_LONGEST_MESSAGE: Final = 4096


class BadKeyError(Exception):
    """The Secret holds no key that can sign; the message says why, without the key."""


def build_body(run: AlignmentRun, due: DueNotification) -> bytes:
    """The CloudEvent. Its id is the notification's, so a receiver can tell one that comes twice."""
    metadata, status, occurrence = run.metadata, run.status, due.occurrence
    data: dict[str, Any] = {
        "namespace": metadata.namespace,
        "run": metadata.name,
        "uid": metadata.uid,
        "event": str(occurrence.event),
        "reason": occurrence.reason,
        "message": occurrence.message[:_LONGEST_MESSAGE],
        "iteration": occurrence.iteration,
        "phase": str(status.phase),
        "progress": status.progress,
        "reward": status.reward,
        "winRate": None if status.win_rate is None else status.win_rate.value,
    }
    event = {
        "specversion": "1.0",
        "id": due.id,
        "source": f"/apis/{API_VERSION}/namespaces/{metadata.namespace}/{PLURAL}/{metadata.name}",
        "type": f"io.dynalign.run.{str(occurrence.event).lower()}",
        "time": occurrence.time.isoformat(),
        "datacontenttype": "application/json",
        "data": {name: value for name, value in data.items() if value is not None},
    }
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")


def build_headers(due: DueNotification, body: bytes, key: str, now: datetime) -> Mapping[str, str]:
    """Headers with the signature. Raises BadKeyError."""
    seconds = int(now.timestamp())
    return {
        "content-type": CONTENT_TYPE,
        "user-agent": "dynalign",
        "webhook-id": due.id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": sign(key, due.id, seconds, body),
    }


def sign(key: str, message_id: str, seconds: int, body: bytes) -> str:
    """The signature `v1,...` of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body. Raises BadKeyError."""
    signed = f"{message_id}.{seconds}.".encode() + body
    return f"v1,{base64.b64encode(hmac.new(_key_bytes(key.strip()), signed, hashlib.sha256).digest()).decode()}"


def _key_bytes(key: str) -> bytes:
    try:
        found = base64.b64decode(key.removeprefix(_PREFIX), validate=True) if key.startswith(_PREFIX) else key.encode()
    except binascii.Error as error:
        raise BadKeyError(f"the key begins with {_PREFIX} and goes on with no base64") from error
    if len(found) < _SHORTEST_KEY:
        raise BadKeyError(f"the key has {len(found)} bytes; use at least {_SHORTEST_KEY}")
    return found
