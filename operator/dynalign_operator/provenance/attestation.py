"""An in-toto attestation of a run: a Statement v1 with a SLSA provenance predicate, in a signed DSSE envelope.

https://github.com/in-toto/attestation, https://slsa.dev/spec/v1.0/provenance and https://github.com/secure-systems-lab/dsse.
"""

import base64
import hashlib
import json
from collections.abc import Callable
from typing import Any, Final, Protocol

from dynalign_operator.api.v1alpha1 import AlignmentRun
from dynalign_operator.provenance.lineage import Lineage

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "https://dynalign.io/alignment-run/v1alpha1"
BUILDER: Final = "https://dynalign.io/dynalign"


IsSigned = Callable[[bytes, bytes], bool]
"""(message, signature) -> whether the one has been signed by the other."""


class Signer(Protocol):
    """A private key."""

    @property
    def key_id(self) -> str:
        """Hexadecimal SHA-256 of the public key, in DER."""
        ...

    def sign(self, message: bytes) -> bytes:
        """The signature of a message."""
        ...


class AttestationError(ValueError):
    """A key or an envelope cannot be used, or a signature does not fit; the message says which, and why."""


def build_statement(run: AlignmentRun, lineage: Lineage, index: bytes, version: str) -> dict[str, Any]:
    """What is attested: the exported files and the bundle's index, made by this run from these artifacts."""
    export = lineage.export
    files = {} if export is None else {file.name: file.sha256 for m in export.manifests for file in m.files}
    subjects = {f"export/{name}": digest for name, digest in files.items()}
    subjects["dynalign.json"] = hashlib.sha256(index).hexdigest()
    status = run.status
    times = {"startedOn": status.start_time, "finishedOn": status.completion_time}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": {"sha256": subjects[name]}} for name in sorted(subjects)],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"spec": run.spec.model_dump(mode="json", by_alias=True, exclude_none=True)},
                "resolvedDependencies": [
                    {"name": link.artifact.path, "digest": {"dynalignArtifact": link.artifact.digest}}
                    for link in lineage.links
                    if link is not export
                ],
            },
            "runDetails": {
                "builder": {"id": BUILDER, "version": {"dynalign": version}},
                "metadata": {
                    "invocationId": run.metadata.uid or run.metadata.name,
                    **{name: time.isoformat() for name, time in times.items() if time is not None},
                },
            },
        },
    }


def build_envelope(statement: dict[str, Any], signer: Signer) -> bytes:
    """The DSSE envelope of a statement."""
    payload = json.dumps(statement, sort_keys=True).encode()
    signature = signer.sign(pre_authentication(payload))
    signed = {"keyid": signer.key_id, "sig": base64.b64encode(signature).decode()}
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": base64.b64encode(payload).decode(), "signatures": [signed]}
    return json.dumps(envelope, indent=2).encode()


def open_envelope(envelope: bytes, is_signed: IsSigned | None) -> dict[str, Any]:
    """The statement in an envelope. Raises AttestationError, also where `is_signed` accepts no signature of it."""
    try:
        read = json.loads(envelope)
        payload = base64.b64decode(read["payload"], validate=True)
        signatures = [base64.b64decode(entry["sig"], validate=True) for entry in read["signatures"]]
        statement = json.loads(payload)
        is_known = (read["payloadType"], statement["_type"]) == (PAYLOAD_TYPE, STATEMENT_TYPE)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise AttestationError(f"the attestation is no DSSE envelope ({type(error).__name__}: {error})") from error
    if not is_known or statement.get("predicateType") != PREDICATE_TYPE:
        raise AttestationError("the attestation is of another kind than those that dynalign writes")
    message = pre_authentication(payload)
    if is_signed is not None and not any(is_signed(message, signature) for signature in signatures):
        raise AttestationError("the attestation is not signed with this key, or was changed since")
    found: dict[str, Any] = statement
    return found


def pre_authentication(payload: bytes) -> bytes:
    """What is signed, by DSSE's protocol: type and payload with their lengths."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)
