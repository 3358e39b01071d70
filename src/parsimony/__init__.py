"""Small convnets under a parameter and epoch budget."""

__version__ = "0.1.0"
