"""The export as a repository of a model hub: one commit with what the branch does not hold yet."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from dynalign_contract.manifest import ArtifactFile
from dynalign_contract.pod_paths import Variable
from dynalign_contract.settings import HubTarget, PublishContent
from dynalign_trainer.export.hub_card import CARD, build_hub_card
from dynalign_trainer.export.pushing import Export, Push
from dynalign_trainer.stores.place import StorePlace

_MAIN: Final = "main"
_BLOCK: Final = 1 << 20
_PASSING: Final = frozenset({408, 425, 429})


@dataclass(frozen=True)
class _Branch:
    """A branch of a repository, and the export that is to be there, with a card of its own."""

    api: Any
    target: HubTarget
    token: str
    export: Export
    card: bytes

    @property
    def kind(self) -> str:
        """How the library calls the repository's type."""
        return "dataset" if self.export.content is PublishContent.DATA else "model"

    @property
    def files(self) -> tuple[ArtifactFile, ...]:
        """What the branch is to hold."""
        digest = hashlib.sha256(self.card).hexdigest()
        card = ArtifactFile(name=CARD, bytes=len(self.card), sha256=digest)
        return tuple(card if file.name == CARD else file for file in self.export.manifest.files)

    def path(self, file: ArtifactFile) -> Path:
        """Where a file of the export lies."""
        return self.export.folder / file.name

    def missing(self) -> list[ArtifactFile]:
        """Files that the branch does not hold, or holds in another version."""
        from huggingface_hub.hf_api import RepoFile

        tree = self.api.list_repo_tree(
            self.target.repository, revision=self.target.revision, recursive=True, repo_type=self.kind
        )
        held = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
        return [file for file in self.files if not self._is(file, held.get(file.name))]

    def _is(self, file: ArtifactFile, entry: Any) -> bool:
        if entry is None or entry.size != file.bytes:
            return False
        if entry.lfs is not None:
            return bool(entry.lfs.sha256 == file.sha256)
        data = self.card if file.name == CARD else self.path(file).read_bytes()
        git = hashlib.sha1(b"blob %d\0%s" % (len(data), data), usedforsecurity=False)
        return bool(entry.blob_id == git.hexdigest())

    def commit(self, files: list[ArtifactFile], advance: Callable[[int], None]) -> str:
        """Upload files, the large ones by themselves first, and commit them; returns the commit."""
        from huggingface_hub import CommitOperationAdd

        name, revision = self.target.repository, self.target.revision
        added = []
        with ExitStack() as stack:
            for file in files:
                # An open file goes by LFS, whose uploads are plain HTTP; the library's other way needs Xet's servers.
                contents = self.card if file.name == CARD else stack.enter_context(self.path(file).open("rb"))
                added.append(CommitOperationAdd(path_in_repo=file.name, path_or_fileobj=contents))
                self.api.preupload_lfs_files(name, added[-1:], revision=revision, repo_type=self.kind)
                advance(file.bytes)
            message = f"{self.export.run}: {self.export.manifest.digest}"
            made = self.api.create_commit(name, added, commit_message=message, revision=revision, repo_type=self.kind)
            return str(made.oid)

    def read(self, commit: str, name: str) -> Iterator[bytes]:
        """The bytes of a file at a commit, from wherever the hub sends for them."""
        import httpx
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(self.target.repository, name, revision=commit, endpoint=self.api.endpoint, repo_type=self.kind)
        headers = {"Authorization": f"Bearer {self.token}"}
        with httpx.stream("GET", url, headers=headers, follow_redirects=True, timeout=60) as response:
            response.raise_for_status()
            yield from response.iter_bytes(_BLOCK)


def push_to_hub(target: HubTarget, token: str, export: Export, push: Push, place: StorePlace) -> tuple[str, bool]:
    """Make the repository and the branch, commit the files that they lack, and read everything back.

    Returns the commit, and whether one was made: not if the branch holds this very export already.
    """
    from huggingface_hub import HfApi

    api = HfApi(endpoint=place.server, token=token)
    branch = _Branch(api, target, token, export, build_hub_card(export, target.license))
    with _explained(place):
        api.create_repo(target.repository, private=target.private, exist_ok=True, repo_type=branch.kind)
        if target.revision != _MAIN:
            api.create_branch(target.repository, branch=target.revision, exist_ok=True, repo_type=branch.kind)
        missing = branch.missing()
        if not missing:
            push.advance(2 * sum(file.bytes for file in branch.files))
            found = api.repo_info(target.repository, revision=target.revision, repo_type=branch.kind)
            return str(found.sha), False
        push.advance(sum(file.bytes for file in branch.files) - sum(file.bytes for file in missing))
        commit = branch.commit(missing, push.advance)
        for file in branch.files:
            push.read_back(file, branch.read(commit, file.name), place)
    return commit, True


def hub_server() -> str:
    """URL of the hub: the site's mirror, or the public one."""
    from huggingface_hub.constants import ENDPOINT

    return (os.environ.get(Variable.HUB_ENDPOINT) or ENDPOINT).rstrip("/")


@contextmanager
def _explained(place: StorePlace) -> Iterator[None]:
    import httpx
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise place.rejected(str(error)[:200]) from error
    except (httpx.HTTPError, ConnectionError, TimeoutError) as error:
        said = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        status = getattr(getattr(error, "response", None), "status_code", None)
        if "CERTIFICATE_VERIFY_FAILED" in said:
            raise place.untrusted(said) from error
        if status in (401, 403, 404):  # a token without rights sees no private repository
            raise place.refused(said) from error
        if status is not None and 400 <= status < 500 and status not in _PASSING:
            raise place.rejected(said) from error
        raise place.unreachable(said) from error
