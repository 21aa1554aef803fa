"""robots.txt as RFC 9309 reads it."""

import pytest

from uniemox_curate.collect.robots import Rules

ALL = "User-agent: *\n"


@pytest.mark.parametrize(
    ("text", "path", "is_allowed"),
    [
        # The longest rule decides; of two equal ones, the one that allows.
        (ALL + "Allow: /\nDisallow: /private/", "/private/a.jpg", False),
        (ALL + "Disallow: /\nAllow: /pub/", "/pub/a.jpg", True),
        (ALL + "Disallow: /a\nAllow: /a", "/a.jpg", True),
        (ALL + "Disallow: /*.jpg$\nAllow: /p", "/p/a.jpg", False),
        # Wildcards.
        (ALL + "Disallow: /*.jpg$", "/a.jpg", False),
        (ALL + "Disallow: /*.jpg$", "/a.jpg.png", True),
        (ALL + "Disallow: /*.jpg$", "/a.jpg?b.jpg", False),
        (ALL + "Disallow: /*/private/", "/x/private/a.jpg", False),
        (ALL + "Disallow: /*/private/", "/private/a.jpg", True),
        (ALL + "Disallow: /a*a$", "/a", True),
        (ALL + "Disallow: /a$", "/ab", True),
        (ALL + "Disallow: /a$", "/a", False),
        (ALL + "Disallow: /$", "/", False),
        (ALL + "Disallow: *.gif", "/x/a.gif", False),
        # Forms of the file.
        ("\ufeff" + ALL + "Disallow: /", "/a.jpg", False),
        (ALL + "\nDisallow: /", "/a.jpg", False),
        ("user-AGENT : *\r\ndisAllow : / # all\r\n", "/a.jpg", False),
        (ALL.replace("\n", "\r") + "Disallow: /\r", "/a.jpg", False),
        (ALL + "Crawl-delay: 2\nSitemap: http://x/ä\nDisallow: /b", "/a.jpg", True),
        (ALL + "Crawl-delay: ²", "/a.jpg", False),
        (ALL + "Disallow: //[", "/a.jpg", False),
        ("Disallow: /", "/a.jpg", True),
        (ALL + "Disallow:", "/a.jpg", True),
        ("<html>x</html>", "/a.jpg", True),
        ("", "/a.jpg", True),
        # Groups: of all that name this program, else of all for everybody.
        ("User-agent: uniemox-curate\nDisallow: /a\n\nUser-agent: Uniemox-Curate/1.0\nDisallow: /b", "/b/a.jpg", False),
        ("User-agent: uniemox-curate\nDisallow: /a\n" + ALL + "Disallow: /", "/b.jpg", True),
        ("User-agent: other\n" + ALL + "Disallow: /b", "/b.jpg", False),
        (ALL + "Disallow: /\n\nUser-agent: u\nDisallow:", "/a.jpg", False),
        ("User-agent: uniemox-curate\nDisallow:\n" + ALL + "Disallow: /", "/a.jpg", True),
        # Characters and their codes.
        (ALL + "Disallow: /a%2Fb", "/a/b.jpg", True),
        (ALL + "Disallow: /%7Eann", "/~ann/a.jpg", False),
        (ALL + "Disallow: /ä", "/%c3%a4.jpg", False),
        (ALL + "Disallow: /a.jpg?x=", "/a.jpg?x=1", False),
        (ALL + "Disallow: /", "/robots.txt", True),
    ],
)
def test_rules_are_those_of_the_standard(text: str, path: str, is_allowed: bool) -> None:
    rules = Rules.parse(text.encode(), "uniemox-curate")
    assert rules.allow(f"http://pictures.example{path}") == is_allowed


def test_a_file_that_is_no_text_forbids_everything() -> None:
    rules = Rules.parse((ALL + "Disallow:").encode("utf-16"), "uniemox-curate")
    assert not rules.allow("http://pictures.example/a.jpg")


def test_wildcards_take_time_by_the_length() -> None:
    """A pattern of an expression would be tried in all ways."""
    rules = Rules.parse(f"{ALL}Disallow: /{'a*' * 20_000}b$".encode(), "uniemox-curate")
    assert rules.allow(f"http://pictures.example/{'a' * 20_000}")
