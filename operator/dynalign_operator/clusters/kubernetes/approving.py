"""A person's decision about a run of a cluster: an annotation of the run, sent with the person's own rights."""

from dynalign_operator.api.approvals import APPROVAL_ANNOTATION
from dynalign_operator.clusters.errors import ClusterError
from dynalign_operator.clusters.kubernetes.api import RefusedError
from dynalign_operator.clusters.kubernetes.change_run import merge_run
from dynalign_operator.clusters.kubernetes.paths import SELF_SUBJECT_REVIEWS, collection_path
from dynalign_operator.clusters.kubernetes.user_access import UserAccess, explain_refusal


async def read_user_name(access: UserAccess) -> str:
    """The name by which the API server knows the user. Raises ClusterError."""
    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {}}
    try:
        answer = await access.api.create(collection_path(SELF_SUBJECT_REVIEWS, None), review)
    except RefusedError as error:
        raise explain_refusal(error, access, "ask by which name the API server knows you") from error
    name = ((answer or {}).get("status") or {}).get("userInfo", {}).get("username")
    if not name:
        raise ClusterError("the API server does not say by which name it knows you, so nothing can be approved.")
    return str(name)


async def annotate_decision(access: UserAccess, run: str, text: str) -> None:
    """Set the annotation with a decision. Raises ClusterError, NotAllowedError among them."""
    await merge_run(access, run, {"metadata": {"annotations": {APPROVAL_ANNOTATION: text}}}, "approve")
