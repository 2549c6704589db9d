"""The networks: one file each, plain PyTorch."""

from srcnn.nets.base import Network
from srcnn.nets.espcn import ESPCN
from srcnn.nets.srcnn import SRCNN

__all__ = ["ESPCN", "SRCNN", "Network"]
