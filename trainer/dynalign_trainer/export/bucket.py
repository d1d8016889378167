"""The export as a folder of a bucket, its manifest written last: where that is, every file has been read back."""

from dynalign_contract.layout import MANIFEST
from dynalign_contract.manifest import ArtifactFile
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.stores.place import PublishMismatchError
from dynalign_trainer.stores.s3 import S3Folder


def push_to_bucket(folder: S3Folder, export: Export, push: Push) -> bool:
    """Upload what the folder does not hold yet, and read everything back; False where it holds all of it already.

    A file is there when its object has the size, and in its metadata the digest, of the manifest.
    """
    text, files = (export.folder / MANIFEST).read_bytes(), export.manifest.files
    missing = [file for file in files if not _holds(folder, file)]
    if not missing and folder.find(MANIFEST) is not None and b"".join(folder.read(MANIFEST)) == text:
        push.advance(2 * sum(file.bytes for file in files))
        return False
    folder.delete(MANIFEST)
    for file in files:
        if file in missing:
            folder.put_file(file.name, export.folder / file.name, file.sha256, push.advance)
        else:
            push.advance(file.bytes)
    for file in files:
        _read_back(folder, file, push)
    folder.put_bytes(MANIFEST, text)
    return True


def _read_back(folder: S3Folder, file: ArtifactFile, push: Push) -> None:
    """Compare an object with its file; a damaged one is removed, so that the next attempt uploads it again."""
    try:
        push.read_back(file, folder.read(file.name), folder.place)
    except PublishMismatchError:
        folder.delete(file.name)
        raise


def _holds(folder: S3Folder, file: ArtifactFile) -> bool:
    found = folder.find(file.name)
    return found is not None and (found.size, found.sha256) == (file.bytes, file.sha256)
