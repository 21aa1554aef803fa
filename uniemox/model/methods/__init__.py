"""Methods that relate regions of an image, a module each; `building.py` lists them."""
