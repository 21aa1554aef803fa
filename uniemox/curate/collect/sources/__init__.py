"""Where pictures come from, a module each."""
