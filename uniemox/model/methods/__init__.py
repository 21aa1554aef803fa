"""Methods that relate regions of an image, a module each; `uniemox.model.config.REGION_METHODS` lists them."""
