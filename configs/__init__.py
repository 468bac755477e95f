"""Recipes: one file each, with a `get_config()` and its story."""
