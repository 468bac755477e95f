"""Text-to-3D by score distillation in JAX."""

__version__ = "0.1.0"
