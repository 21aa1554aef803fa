"""Numbers before nouns, in messages and on pages."""


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """Return a number with its noun, and with the verb that depends on it if the words contain one.

    Args:
        count: The number.
        singular: Words after the number 1.
        plural: Words after any other number; None: the singular with an s.

    >>> counted(1, "image"), counted(2000, "image")
    ('1 image', '2,000 images')
    >>> counted(1, "image was", "images were"), counted(0, "person", "people")
    ('1 image was', '0 people')
    """
    if count == 1:
        return f"1 {singular}"
    words = f"{singular}s" if plural is None else plural
    return f"{count:,} {words}"
