"""A decoded image together with the size of the image in its file."""

from typing import NamedTuple

from PIL import Image


class SizedImage(NamedTuple):
    """Upright RGB image, which may be a smaller copy of the image in a file."""

    image: Image.Image
    full_size: tuple[int, int]
    """Upright width and height of the image in the file, px. Boxes are in px of this size."""

    @classmethod
    def of(cls, image: Image.Image) -> "SizedImage":
        """Return an image that is no smaller copy."""
        return cls(image, image.size)

    @property
    def scale(self) -> tuple[float, float]:
        """Factors from px of the full size to px of the image, for x and y."""
        return self.image.width / self.full_size[0], self.image.height / self.full_size[1]
