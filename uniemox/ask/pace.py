"""How fast an endpoint is asked: a rate, pauses that it asks for, growing waits after failures."""

import random
import threading
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT_S = 60.0  # between two attempts, unless the endpoint says how long


class Pace:
    """Shared by all threads that ask one endpoint.

    rate_per_minute: None for no limit.  stop: set when waiting is of no use any more.
    """

    def __init__(self, rate_per_minute: float | None, stop: threading.Event) -> None:
        self.interval_s = 0.0 if rate_per_minute is None else 60 / rate_per_minute
        self.stop = stop
        self.lock = threading.Lock()
        self.next_s = 0.0

    def wait_turn(self) -> bool:
        """Wait until a request may be sent; False if there is to be no more."""
        while not self.stop.is_set():
            with self.lock:
                left_s = self.next_s - time.monotonic()
                if left_s <= 0:
                    self.next_s = time.monotonic() + self.interval_s
                    return True
            self.stop.wait(left_s)  # somebody else may have gone first, or the pause have grown
        return False

    def hold(self, seconds: float) -> None:
        """No request of any thread before so many seconds have passed."""
        with self.lock:
            self.next_s = max(self.next_s, time.monotonic() + seconds)


def back_off(attempt: int, first_wait_s: float) -> float:
    """Seconds to wait after so many failed attempts: doubled each time, and between half of it and all by chance."""
    longest = min(first_wait_s * 2 ** (attempt - 1), MAX_WAIT_S)
    return longest * random.uniform(0.5, 1)


def retry_after(value: str | None) -> float | None:
    """Seconds that a header Retry-After asks for, given as seconds or as a date; None without, or if it is neither.

    >>> retry_after("7")
    7.0
    """
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if seconds < float("inf") else None
