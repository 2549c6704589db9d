"""Image super-resolution with SRCNN: a PyTorch Lightning and Hydra research template."""

__version__ = "0.1.0"
