"""Calibrating transformers models with text, without any network."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from momos_rs.errors import InvalidArgumentError

__all__ = ["calibrate_folder", "passages"]

SHORTEST = 20
"""Passages of fewer characters tell little."""

BATCH = 16


def passages(files: Sequence[Path], *, most: int | None = None) -> list[str]:
    """The paragraphs of text files; of more than ``most``, evenly spread ones.

    Args:
        files: Text files in UTF-8; blank lines divide paragraphs.
        most: Number to take; all by default.

    Raises:
        OSError: If a file cannot be read.
        InvalidArgumentError: If there is no text in them.
    """
    found = []
    for path in files:
        text = path.read_text(encoding="utf-8", errors="replace")
        found += [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]
    found = [each for each in dict.fromkeys(found) if len(each) >= SHORTEST]
    if not found:
        raise InvalidArgumentError(
            f"{', '.join(map(str, files))}: no paragraph of at least {SHORTEST} characters; give "
            "plain text like what the model will read"
        )
    if most is not None and len(found) > most:
        found = [found[index * len(found) // most] for index in range(most)]
    return found


def calibrate_folder(
    folder: Path,
    files: Sequence[Path],
    *,
    samples: int,
    length: int,
    **options: Any,
) -> Any:
    """Calibrates a transformers model in a folder with the text of files.

    Args:
        folder: Holds a configuration, weights and a tokenizer.
        files: Text files.
        samples: Most passages to use.
        length: Most tokens of a passage.
        **options: As for :func:`~momos_rs.calibration.calibrate`.

    Returns:
        The :class:`~momos_rs.calibration.Calibration`.

    Raises:
        OSError: If a file cannot be read.
        InvalidArgumentError: If transformers is not installed, the folder holds no model that it
            knows, or the files no text.
    """
    from .collect import calibrate

    texts = sorted(passages(files, most=samples), key=len)
    model, tokenizer = _load(folder)

    class Batches:
        """Passages of about one length at a time, so that little is padded."""

        def __len__(self) -> int:
            return -(-len(texts) // BATCH)

        def __iter__(self) -> Iterator[dict[str, Any]]:
            # Long ones are no likelier to come first, as gradients are taken of the first.
            order = sorted(range(len(self)), key=lambda number: (number * 5) % max(len(self), 1))
            for number in order:
                some = texts[number * BATCH : (number + 1) * BATCH]
                yield dict(
                    tokenizer(
                        some, return_tensors="pt", padding=True, truncation=True, max_length=length
                    )
                )

    return calibrate(model, Batches(), **options)


def _load(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise InvalidArgumentError(
            f"{folder} is not the folder of a transformers model: it has no config.json"
        )
    try:
        import transformers
    except ImportError:
        raise InvalidArgumentError(
            "calibrating with text needs transformers: pip install transformers; other models are "
            "calibrated from Python, momos_rs.calibrate(model, batches)"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        names = config.architectures or []
        kind = getattr(transformers, names[0], None) if names else None
        model = (kind or transformers.AutoModel).from_pretrained(folder, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise InvalidArgumentError(
            f"{folder}: transformers cannot load it: {' '.join(str(error).split())}"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return model, tokenizer
