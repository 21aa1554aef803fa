"""Settings of the questions: endpoint, models, images, pace and prices."""

from dataclasses import dataclass

from uniemox.ask.client import chat_url
from uniemox.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class AskConfig:
    """Settings of `uniemox ask`. The key is none of them, so that no file or message can hold it."""

    endpoint: str
    """Address of an OpenAI-compatible service: https://api.openai.com/v1, or http://127.0.0.1:11434/v1 here."""
    models: tuple[str, ...]
    """A model's name there; give it again for more models, which get the same images."""
    images: int = 100
    """Number of images per model, at least 1, drawn from each class in proportion to its size."""
    seed: int = 0
    """Random seed for the selection; more images with the same seed include those of a smaller selection."""
    max_images: int = 200
    """Largest number of images that is accepted; raise it to ask about more, since each image costs money."""
    rate_per_minute: float | None = None
    """Maximum number of requests per minute, retries included, above 0; None: as fast as they are answered."""
    concurrency: int = 4
    """Number of parallel requests, 1 to 64."""
    timeout_s: float = 120.0
    """Seconds until one request is given up, above 0; models that think take their time."""
    attempts: int = 6
    """Maximum number of attempts per question before it counts as failed."""
    first_wait_s: float = 1.0
    """Seconds before the second attempt; doubles with each further one."""
    price_in: float | None = None
    """Price of a million input tokens, in any currency; needs price_out."""
    price_out: float | None = None
    """Price of a million output tokens, in the same currency; needs price_in."""
    allow_http: bool = False
    """Send images and key without encryption to another machine."""

    def __post_init__(self) -> None:
        chat_url(self.endpoint, allow_http=self.allow_http)
        if not self.models or not all(model.strip() and model.isprintable() for model in self.models):
            raise ConfigError(f"models must be names such as gpt-4o, got {self.models}; give --model NAME")
        if len(set(self.models)) < len(self.models):
            raise ConfigError(f"models names one twice: {', '.join(self.models)}")
        for name in ("images", "max_images", "concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.concurrency > 64:
            raise ConfigError(f"concurrency must be at most 64, got {self.concurrency}")
        for name in ("rate_per_minute", "timeout_s", "first_wait_s"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ConfigError(f"{name} must be above 0, got {value}")
        prices = (self.price_in, self.price_out)
        if (self.price_in is None) != (self.price_out is None):
            raise ConfigError("price_in and price_out go together; give both, or none")
        if any(price is not None and not 0 <= price < 1e6 for price in prices):
            raise ConfigError(f"price_in and price_out must be 0 or more a million tokens, got {prices}")
        if self.images > self.max_images:
            requests = self.images * len(self.models)
            raise ConfigError(
                f"{self.images} images x {len(self.models)} models are {requests:,} questions, {tokens(requests)}; "
                f"images may be {self.max_images}. If that is meant, give --max-images {self.images}"
            )

    @property
    def url(self) -> str:
        """Address that questions are sent to."""
        return chat_url(self.endpoint, allow_http=self.allow_http)

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """The price of a number of tokens; None without prices."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


# An image of 1,024 px and the question, twice, with the answer between; a paragraph of explanation and a word.
TOKENS_IN, TOKENS_OUT = 2250, 255


def tokens(requests: int) -> str:
    """Describe the number of tokens of questions and follow-ups; hidden reasoning of a model is extra."""
    return f"at most about {requests * TOKENS_IN:,} tokens in and {requests * TOKENS_OUT:,} out"
