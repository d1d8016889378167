"""The export as an OCI artifact: its manifest is stored last, so that a tag names what has been read back."""

from dynalign_trainer.export.model_pack import build_pack
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.stores.registry import Repository


def push_to_registry(repository: Repository, tag: str, export: Export, push: Push) -> tuple[str, bool]:
    """Upload what the repository does not hold yet, read everything back, and set the tag.

    Returns the digest of the artifact, and whether anything was pushed: not if the tag names this artifact already.
    """
    pack, files = build_pack(export), export.manifest.files
    if repository.find_manifest(tag) == pack.manifest:
        push.advance(2 * sum(file.bytes for file in files))
        return pack.digest, False
    for file in files:
        digest = f"sha256:{file.sha256}"
        if repository.has_blob(digest):
            push.advance(file.bytes)
        else:
            repository.put_file(digest, export.folder / file.name, push.advance)
    for file in files:
        push.read_back(file, repository.read_blob(f"sha256:{file.sha256}"), repository.place)
    repository.put_bytes(pack.config)
    repository.put_manifest(tag, pack.manifest)
    if repository.find_manifest(pack.digest) != pack.manifest:
        raise repository.place.unreachable("the manifest was read back with other contents")
    return pack.digest, True
