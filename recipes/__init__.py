"""How the models that ship were built: python -m recipes.NAME."""
