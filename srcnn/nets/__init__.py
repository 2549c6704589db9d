"""The networks: one file each, plain PyTorch. A file put into this folder is found by itself."""

import pkgutil
from importlib import import_module

from srcnn.nets.base import Network
from srcnn.nets.compact import Compact
from srcnn.nets.edsr import EDSR
from srcnn.nets.espcn import ESPCN
from srcnn.nets.fsrcnn import FSRCNN
from srcnn.nets.srcnn import SRCNN
from srcnn.nets.vdsr import VDSR

__all__ = ["EDSR", "ESPCN", "FSRCNN", "NETWORKS", "SRCNN", "VDSR", "Compact", "Network"]

NETWORKS: dict[str, type[Network]] = {}  # by class name: what a weights file may name
for _module in pkgutil.iter_modules(__path__, f"{__name__}."):
    for _object in vars(import_module(_module.name)).values():
        defined_here = isinstance(_object, type) and _object.__module__ == _module.name != Network.__module__
        if defined_here and issubclass(_object, Network):
            NETWORKS[_object.__name__] = _object
