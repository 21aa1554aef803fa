"""Release: a balanced split, class folders, metadata, takedowns."""
