"""Differentiable operations with compiled CPU and CUDA kernels.

Each module holds one operation: the function to call, its definition in
jax.numpy (specification, oracle and fallback) and its derivatives.
"""
