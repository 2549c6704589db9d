"""The networks: one file each, plain PyTorch. A file put into this folder is found by itself."""

import pkgutil
from importlib import import_module

from srcnn.nets.base import NETWORKS, Network
from srcnn.nets.compact import Compact
from srcnn.nets.edsr import EDSR
from srcnn.nets.espcn import ESPCN
from srcnn.nets.fsrcnn import FSRCNN
from srcnn.nets.srcnn import SRCNN
from srcnn.nets.vdsr import VDSR

__all__ = ["EDSR", "ESPCN", "FSRCNN", "NETWORKS", "SRCNN", "VDSR", "Compact", "Network"]

for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    import_module(_module.name)
