"""Rules that hold between fields, each said twice: in CEL for the API server, in Python for `dynalign validate`.

One list feeds both, and tests put every rule's sentence before `dynalign validate` and before a real API server. What
holds in a cluster only is said in CEL alone.
"""

from typing import Final

from dynalign_operator.api.rules.cluster import PATH_RULES
from dynalign_operator.api.rules.endpoints import ENDPOINT_CLUSTER_RULES, ENDPOINT_RULES
from dynalign_operator.api.rules.evaluation import EVALUATION_RULES
from dynalign_operator.api.rules.generation import GENERATION_RULES
from dynalign_operator.api.rules.judges import JUDGES_RULES
from dynalign_operator.api.rules.judging import JUDGING_RULES
from dynalign_operator.api.rules.model import MODEL_RULES
from dynalign_operator.api.rules.notify import NOTIFY_CLUSTER_RULES, NOTIFY_RULES
from dynalign_operator.api.rules.pods import POD_RULES
from dynalign_operator.api.rules.policy import POLICY_RULES
from dynalign_operator.api.rules.prompts import PROMPT_RULES
from dynalign_operator.api.rules.publish import PUBLISH_CLUSTER_RULES, PUBLISH_RULES
from dynalign_operator.api.rules.rewards import REWARD_RULES
from dynalign_operator.api.rules.rollout import ROLLOUT_RULES
from dynalign_operator.api.rules.rule import ClusterRule, Rule
from dynalign_operator.api.rules.storage import STORAGE_RULES
from dynalign_operator.api.rules.tracking import TRACKING_RULES
from dynalign_operator.api.rules.training import TRAINING_RULES
from dynalign_operator.api.rules.transitions import TRANSITIONS

CLUSTER_RULES: Final[tuple[ClusterRule, ...]] = (
    *PATH_RULES,
    *ENDPOINT_CLUSTER_RULES,
    *NOTIFY_CLUSTER_RULES,
    *PUBLISH_CLUSTER_RULES,
)
RULES: Final[tuple[Rule, ...]] = (
    *MODEL_RULES,
    *GENERATION_RULES,
    *PROMPT_RULES,
    *JUDGING_RULES,
    *JUDGES_RULES,
    *REWARD_RULES,
    *TRAINING_RULES,
    *EVALUATION_RULES,
    *ENDPOINT_RULES,
    *PUBLISH_RULES,
    *STORAGE_RULES,
    *ROLLOUT_RULES,
    *POD_RULES,
    *POLICY_RULES,
    *NOTIFY_RULES,
    *TRACKING_RULES,
)

__all__ = ["CLUSTER_RULES", "RULES", "TRANSITIONS"]
