"""Pauses that servers ask for."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from uniemox.io.http_client import retry_after


@pytest.mark.parametrize("value", [None, "", "soon", "inf", "nan", "\xb2", "9" * 5000])
def test_missing_and_invalid_pauses(value: str | None) -> None:
    assert retry_after(value) is None


@pytest.mark.parametrize(("value", "seconds"), [("5", 5.0), ("0.5", 0.5), ("-3", 0.0)])
def test_pauses_in_seconds(value: str, seconds: float) -> None:
    assert retry_after(value) == seconds


@pytest.mark.parametrize(("zone", "is_utc"), [("GMT", True), ("-0000", False)])
def test_pauses_until_a_date(zone: str, is_utc: bool) -> None:
    """A date without a zone is in UTC."""
    moment = datetime.now(UTC) + timedelta(seconds=30)
    text = format_datetime(moment if is_utc else moment.replace(tzinfo=None), usegmt=is_utc)
    assert text.endswith(zone)
    assert 27 < (retry_after(text) or 0) <= 30
    assert retry_after(f"Wed, 21 Oct 2015 07:28:00 {zone}") == 0
