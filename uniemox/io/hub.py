"""Files from the Hugging Face hub, by name, with a check of their hash."""

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from uniemox.errors import HubError, MissingPackageError

PREFIX = "hub:"
_SHA256 = re.compile("[0-9a-f]{64}")
_NAME = re.compile(r"hub:([\w.-]+/[\w.-]+)/([^@#]+)(?:@([\w./-]+))?(?:#sha256=([0-9a-f]{64}))?")


def fetch(name: str) -> Path:
    """Return the file of a name `hub:owner/repository/path/in/it`, downloaded once to the hub's own cache.

    Append `@revision` for a tag, branch or commit, and `#sha256=...` to require this content. Without a hash, the hub's
    own hash of large files is checked; a file without one is refused.

    Args:
        name: The name.

    Raises:
        HubError: If the name has another form, the file can't be downloaded, or its hash differs or is not known.
        MissingPackageError: If huggingface_hub is not installed.
    """
    match = _NAME.fullmatch(name)
    if match is None:
        raise HubError(
            f"{name!r}: expected hub:owner/repository/file, then @revision and #sha256=<64 digits> if wanted"
        )
    try:
        import huggingface_hub as hub  # noqa: PLC0415 - an extra
    except ImportError:
        raise MissingPackageError(f"{name} needs huggingface_hub; run: pip install 'uniemox[hub]'") from None
    _check_answers()
    repository, file, revision, expected_hash = match.groups()
    try:
        path = Path(hub.hf_hub_download(repository, file, revision=revision))
        # The cache names large files by the hub's sha256, except on systems without links.
        hub_hash = path.resolve().name
        if expected_hash is None and not _SHA256.fullmatch(hub_hash):
            hub_hash = hub.get_hf_file_metadata(hub.hf_hub_url(repository, file, revision=revision)).etag or ""
    except (OSError, ValueError) as error:  # includes all errors of the hub
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HubError(f"{name} can't be downloaded: {reason}") from error
    expected_hash = expected_hash or hub_hash
    if not _SHA256.fullmatch(expected_hash):
        raise HubError(f"{name}: the hub gives no sha256 of this file; add #sha256=<its hash> to the name")
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    if digest != expected_hash:
        raise HubError(
            f"{name}: its sha256 is {digest}, not {expected_hash}; remove {path} and try again, or don't trust it"
        )
    return path


@cache
def _check_answers() -> None:
    """Let huggingface_hub refuse answers without a hash: version 2.4 uses the server's ETag and commit as paths."""
    from huggingface_hub import errors, file_download  # noqa: PLC0415 - an extra

    ask = file_download.get_hf_file_metadata

    def ask_and_check(*args: Any, **options: Any) -> Any:
        try:
            answer = ask(*args, **options)
        except errors.HfHubHTTPError as error:
            # huggingface_hub would create an empty file of this name.
            error.response.headers.pop("X-Repo-Commit", None)
            raise
        if answer.etag is not None and not re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", answer.etag):
            raise ValueError(f"the ETag {answer.etag!r} is not a hash; don't trust this server")
        return answer

    file_download.get_hf_file_metadata = ask_and_check
