"""The Hugging Face Hub: pull a snapshot of a model repo, verify it, publish it, and deploy the app as a Space.

The only package that imports huggingface_hub.
"""

from pneumonet.hub.opened import Snapshot
from pneumonet.hub.publishing import check_publishable, publish, publish_member
from pneumonet.hub.pulling import open_snapshot, pull
from pneumonet.hub.space import Space, check_deployable, deploy_space

__all__ = [
    "Snapshot",
    "Space",
    "check_deployable",
    "check_publishable",
    "deploy_space",
    "open_snapshot",
    "publish",
    "publish_member",
    "pull",
]
