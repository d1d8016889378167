"""A folder of a bucket: listing, uploads that go on where they were cut off, and streams to read back."""

import base64
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.errors import StageError
from dynalign_contract.files import open_plain
from dynalign_contract.stores import Credentials, S3Server
from dynalign_trainer.stores.place import StorePlace

SHA256: Final = "sha256"
"""Metadata of an object: hexadecimal digest of its contents."""
PART_BYTES: Final = 64 << 20
"""Size of the parts in which larger files are uploaded."""
_MOST_PARTS: Final = 10_000
_BLOCK: Final = 1 << 20
_REFUSALS: Final = frozenset({401, 403})
_REFUSED_CODES: Final = frozenset({"AccessDenied", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch"})
"""Not every server has the status of AWS for them."""
_REGION_CODES: Final = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed"})
_MISSING_CODES: Final = frozenset({"NoSuchBucket", "NoSuchKey", "404"})
_PASSING: Final = frozenset({408, 409, 425, 429})

Advance = Callable[[int], None]
"""Called with the number of bytes that have been dealt with since the last call; may raise to stop."""


@dataclass(frozen=True)
class StoredObject:
    """An object of a bucket."""

    size: int
    etag: str
    sha256: str | None = None
    """Digest in its metadata; None where there is none, or it was not asked for."""


@dataclass(frozen=True)
class S3Folder:
    """The objects of a bucket below a prefix, by their names relative to it. Every method raises StageError."""

    client: Any
    place: StorePlace
    bucket: str
    prefix: str
    part_bytes: int = PART_BYTES

    def objects(self) -> dict[str, StoredObject]:
        """All objects of the folder."""
        with self._explained():
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._key(""))
            return {
                entry["Key"].removeprefix(self._key("")): StoredObject(entry["Size"], entry["ETag"])
                for page in pages
                for entry in page.get("Contents", ())
            }

    def find(self, name: str) -> StoredObject | None:
        """An object with the digest in its metadata; None where there is no such object."""
        with self._explained():
            try:
                found = self.client.head_object(Bucket=self.bucket, Key=self._key(name))
            except self.client.exceptions.ClientError as error:
                if _status(error) == 404 and _code(error) != "NoSuchBucket":
                    return None
                raise
            return StoredObject(found["ContentLength"], found["ETag"], found.get("Metadata", {}).get(SHA256))

    def read(self, name: str, start: int = 0, etag: str | None = None) -> Iterator[bytes]:
        """The object's bytes from `start` on, of the version `etag` where that is given."""
        wanted = {} if etag is None else {"IfMatch": etag}
        if start:
            wanted["Range"] = f"bytes={start}-"
        with self._explained():
            body = self.client.get_object(Bucket=self.bucket, Key=self._key(name), **wanted)["Body"]
            yield from body.iter_chunks(_BLOCK)

    def delete(self, name: str) -> None:
        """Remove an object; one that does not exist is no error."""
        with self._explained():
            self.client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def put_bytes(self, name: str, data: bytes) -> None:
        """Write a small object."""
        digest = hashlib.sha256(data)
        with self._explained():
            self.client.put_object(
                Bucket=self.bucket,
                Key=self._key(name),
                Body=data,
                ChecksumSHA256=_base64(digest.digest()),
                Metadata={SHA256: digest.hexdigest()},
            )

    def put_file(self, name: str, path: Path, sha256: str, advance: Advance) -> None:
        """Upload a file with this digest; parts that an earlier attempt has uploaded are kept."""
        size = path.stat().st_size
        with self._explained():
            if size <= self.part_bytes:
                self.put_bytes(name, path.read_bytes())
                advance(size)
                return
            self._put_parts(name, path, sha256, advance)
            found = self.find(name)
            if found is None or found.sha256 != sha256:
                # the parts that were there belonged to another version, whose digest came with them
                self._put_parts(name, path, sha256, lambda _: advance(0))

    def _put_parts(self, name: str, path: Path, sha256: str, advance: Advance) -> None:
        where = {"Bucket": self.bucket, "Key": self._key(name)}
        part_bytes = max(self.part_bytes, -(-path.stat().st_size // _MOST_PARTS))
        upload, held = self._begin(where, sha256)
        parts = []
        with open_plain(path) as file:
            for number, block in enumerate(iter(lambda: file.read(part_bytes), b""), start=1):
                checksum = _base64(hashlib.sha256(block).digest())
                earlier = held.get(number, {})
                etag = earlier.get("ETag")
                if earlier.get("ChecksumSHA256") != checksum:
                    etag = self.client.upload_part(
                        **where, UploadId=upload, PartNumber=number, Body=block, ChecksumSHA256=checksum
                    )["ETag"]
                parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum})
                advance(len(block))
        self.client.complete_multipart_upload(**where, UploadId=upload, MultipartUpload={"Parts": parts})

    def _begin(self, where: dict[str, str], sha256: str) -> tuple[str, dict[int, Any]]:
        """ID of the upload that was cut off, with its parts by number, or of a new one."""
        for upload in self._unfinished(where):
            pages = self.client.get_paginator("list_parts").paginate(**where, UploadId=upload)
            return upload, {part["PartNumber"]: part for page in pages for part in page.get("Parts", ())}
        begun = self.client.create_multipart_upload(**where, ChecksumAlgorithm="SHA256", Metadata={SHA256: sha256})
        return begun["UploadId"], {}

    def _unfinished(self, where: dict[str, str]) -> list[str]:
        """IDs of uploads of this object that were cut off; none where the keys may not list them."""
        try:
            found = self.client.list_multipart_uploads(Bucket=where["Bucket"], Prefix=where["Key"])
        except self.client.exceptions.ClientError as error:
            if _status(error) in _REFUSALS or _code(error) == "NotImplemented":
                return []
            raise
        return [upload["UploadId"] for upload in found.get("Uploads", ()) if upload["Key"] == where["Key"]]

    def _key(self, name: str) -> str:
        return f"{self.prefix}/{name}"

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (BotoCoreError, ClientError) as error:
            raise explain(error, self.place) from error


def open_folder(server: S3Server, bucket: str, prefix: str, place: StorePlace, keys: Credentials | None) -> S3Folder:
    """A folder of a bucket. Without keys its requests are not signed; configuration of this machine plays no part."""
    import boto3
    import botocore.session
    from botocore import UNSIGNED
    from botocore.config import Config

    core = botocore.session.Session()
    for file in ("config_file", "credentials_file"):
        core.set_config_variable(file, os.devnull)
    config = Config(
        signature_version=UNSIGNED if keys is None else "s3v4",
        s3={"addressing_style": "path" if server.uses_paths else "virtual"},
        retries={"mode": "standard", "max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        ignore_configured_endpoint_urls=True,
        # Many servers do not know the checksums that boto3 adds by itself; ours are given with each request.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    client = boto3.session.Session(botocore_session=core).client(
        "s3",
        endpoint_url=server.endpoint,
        region_name=server.region,
        aws_access_key_id=None if keys is None else keys.username,
        aws_secret_access_key=None if keys is None else keys.password,
        config=config,
    )
    return S3Folder(client, place, bucket, prefix)


def explain(error: Exception, place: StorePlace) -> StageError:
    """What a failed request means for the run."""
    from botocore.exceptions import ClientError, SSLError

    if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return place.untrusted(" ".join(str(error).split())[:200])
    if not isinstance(error, ClientError):
        return place.unreachable(" ".join(f"{type(error).__name__}: {error}".split())[:300])
    return _explain_answer(error, place)


def _explain_answer(error: Any, place: StorePlace) -> StageError:
    code, status = _code(error), _status(error)
    said = " ".join(f"{code}: {error.response.get('Error', {}).get('Message', '')}".split())[:300]
    if code in _REFUSED_CODES or (status in _REFUSALS and code not in _REGION_CODES):
        return place.refused(said)
    if code in _MISSING_CODES:
        return place.missing(f"there is no such bucket or object ({said})", "Create the bucket, or correct the address")
    if code in _REGION_CODES or status == 301:
        return place.missing(f"the bucket is in another region ({said})", f"Set region in {place.field}")
    if code == "PreconditionFailed" or status == 412:
        return place.unreachable("an object was replaced while it was read")
    return place.rejected(said) if 400 <= status < 500 and status not in _PASSING else place.unreachable(said)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
