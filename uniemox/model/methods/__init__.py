"""Methods that relate regions of an image, one per module; `uniemox.model.config.REGION_METHODS` lists them."""
