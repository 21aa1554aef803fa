"""Settings of the questions: endpoint, models, images, pace and prices."""

from dataclasses import dataclass

from uniemox.bounds import check_numbers
from uniemox.errors import ConfigError
from uniemox.plurals import counted
from uniemox_ask.address import chat_url
from uniemox_ask.forms import Form, QuestionSet


@dataclass(frozen=True, kw_only=True, slots=True)
class AskConfig:
    """Settings of `uniemox ask`. The API key is not a setting, so no file or message can contain it."""

    endpoint: str
    """Address of an OpenAI-compatible service: https://api.openai.com/v1, or http://127.0.0.1:11434/v1 on this
    machine."""
    models: tuple[str, ...]
    """Model name at that service. Repeat the option for several models; all models get the same images."""
    images: int = 100
    """Number of images per model, at least 1, drawn from each class in proportion to its size."""
    seed: int = 0
    """Random seed for the selection. With the same seed, a larger selection contains the smaller one."""
    form: Form = "list"
    """Form of the question. list: the paper's question, with all labels. letters: the labels are options A, B, C and so
    on, whose probabilities are read where the endpoint gives log-probabilities. statements: for each label, whether it
    is evoked."""
    prompts: int = 1
    """Number of prompts per image, at least 1. Each has another wording or another order of the options, so that
    answers can be compared."""
    max_questions: int = 200
    """Maximum accepted number of questions per model. Raise it to send more; each question costs money."""
    rate_per_minute: float | None = None
    """Maximum number of requests per minute, retries included, above 0. None: no limit."""
    concurrency: int = 4
    """Number of parallel requests, 1 to 64."""
    timeout_s: float = 120.0
    """Time limit for one request in seconds, above 0. Raise it for slow reasoning models."""
    attempts: int = 6
    """Maximum number of attempts per question before it counts as failed."""
    first_wait_s: float = 1.0
    """Seconds before the second attempt, above 0. Each further wait is twice as long."""
    price_in: float | None = None
    """Price per million input tokens, in any currency; needs price_out."""
    price_out: float | None = None
    """Price per million output tokens, in the same currency; needs price_in."""
    allow_http: bool = False
    """Allow plain HTTP to another machine; images and key are then sent unencrypted."""

    def __post_init__(self) -> None:
        chat_url(self.endpoint, allow_http=self.allow_http)
        if not self.models or not all(model.strip() and model.isprintable() for model in self.models):
            raise ConfigError(f"models must be names such as gpt-4o, got {self.models}; give --model NAME")
        if len(set(self.models)) < len(self.models):
            raise ConfigError(f"models lists a model twice: {', '.join(self.models)}")
        counts = ("images", "prompts", "max_questions", "concurrency", "attempts")
        prices = ("price_in", "price_out")
        times = ("rate_per_minute", "timeout_s", "first_wait_s")
        check_numbers(
            self,
            at_least=dict.fromkeys(counts, 1) | dict.fromkeys(prices, 0),
            above=dict.fromkeys(times, 0),
            at_most={"concurrency": 64} | dict.fromkeys((*times, *prices), 1_000_000),
        )
        if (self.price_in is None) != (self.price_out is None):
            raise ConfigError("price_in and price_out go together; give both, or none")

    def check_size(self, images: int, questions: QuestionSet) -> None:
        """Refuse more questions per model than allowed, before any is sent.

        Args:
            images: Number of images.
            questions: The questions about each image.

        Raises:
            ConfigError: With the numbers of questions and tokens.
        """
        per_model = images * len(questions.questions)
        if per_model <= self.max_questions:
            return
        total = per_model * len(self.models)
        raise ConfigError(
            f"{questions.describe(images)} x {counted(len(self.models), 'model')}: {counted(total, 'question')}, "
            f"{describe_tokens(total)}; the limit is {counted(self.max_questions, 'question')} per model. To send them "
            f"all, give --max-questions {per_model}"
        )

    @property
    def url(self) -> str:
        """Address that questions are sent to."""
        return chat_url(self.endpoint, allow_http=self.allow_http)

    def cost(self, tokens_in: int, tokens_out: int) -> float | None:
        """Return the price of a number of tokens; None if no prices are set."""
        if self.price_in is None or self.price_out is None:
            return None
        return (tokens_in * self.price_in + tokens_out * self.price_out) / 1e6


# Estimates for one question with its follow-up. Input: the image (1,024 px) and the question, sent twice, and the first
# answer. Output: a word and a paragraph.
TOKENS_IN = 2250
TOKENS_OUT = 255


def describe_tokens(questions: int) -> str:
    """Describe the maximum number of tokens of questions and follow-ups, without a model's hidden reasoning."""
    return f"at most about {questions * TOKENS_IN:,} tokens in and {questions * TOKENS_OUT:,} out"
