"""The page that shows predictions: its files, and a form of it that needs no server."""
