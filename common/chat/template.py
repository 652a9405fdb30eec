# SPDX-License-Identifier: Apache-2.0
"""A chat template that an operator gives instead of the checkpoint's: a file, or the Jinja text itself."""

from pathlib import Path

import jinja2

# Characters that Jinja text has and a file's name has not, as in vLLM.
_TEXT = "{}\n"


def is_text(given: str) -> bool:
    """Whether this is the template itself, not a file's name."""
    return any(character in given for character in _TEXT)


def load_template(given: str) -> str:
    """The text of a template; raises ValueError naming what is given if it is no file or no Jinja."""
    if is_text(given):
        name, text = "the text given", given
    else:
        name = f"'{given}'"
        try:
            text = Path(given).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            raise ValueError(f"chat template: cannot read {name}: {reason}") from error
    _check(text, name)
    return text


def _check(text: str, name: str) -> None:
    # Imported here because few servers have a template of their own, and it takes a second.
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        # What it makes of this conversation does not matter: it is compiled first.
        render_jinja_template([[{"role": "user", "content": "?"}]], chat_template=text)
    except jinja2.TemplateSyntaxError as error:
        raise ValueError(f"chat template: {name} is not valid Jinja: line {error.lineno}: {error.message}") from error
    except Exception:  # nosec B110 # the template's own refusal of that conversation
        pass
