"""Recipes: find, merge, override, validate, write."""

from noumena.config.compose import Config, compose
from noumena.config.recipes import Recipe, find_recipe, recipes

__all__ = ["Config", "Recipe", "compose", "find_recipe", "recipes"]
