"""The model repo on the Hugging Face Hub: pull a snapshot at a revision, verify it, publish it.

The only package that imports huggingface_hub.
"""

from pneumonet.hub.publishing import check_publishable, publish, publish_member
from pneumonet.hub.pulling import Snapshot, open_snapshot, pull

__all__ = ["Snapshot", "check_publishable", "open_snapshot", "publish", "publish_member", "pull"]
