"""uniemox: what people feel in pictures of whole scenes, and what pictures make people feel.

After UniEmoX (arXiv 2409.18877). Importing the package imports neither torch nor any other large library.
"""

__version__ = "0.1.0"
