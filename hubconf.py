"""torch.hub.load("OWNER/REPOSITORY", "srcnn", weights="srcnn_x3"): a network in eval mode, its weights included."""

dependencies = ["torch", "numpy", "PIL", "safetensors"]


def srcnn(weights: str | None = None, scale: int | None = None):
    """The network of weights that are in the repository (compact_x2, _x3, _x4, srcnn_x2 and so on), or of a file."""
    from srcnn import load

    return load(weights, scale)
