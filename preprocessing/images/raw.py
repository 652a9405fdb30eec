# SPDX-License-Identifier: Apache-2.0
"""Images of any family for an engine that has the processor itself, as TensorRT-LLM's LLM API has: decoded, no more.

The chat template places them, and must take parts: its text of one image is what the family's processor looks for.
"""

from collections.abc import Sequence

import numpy as np

from common.chat.content_form import MARKS, fill_marks
from common.chat.messages import join_texts
from common.chat.parts import Content, MediaPart, MediaRequest, Placed
from common.errors import RequestError
from common.raw_pictures import Pixels, pack
from common.tokenizer import ChatTokenizer
from preprocessing.images.decode import decode_image, media_error
from preprocessing.images.family import Encode, MediaOptions, MediaPrompt, check_tokens
from preprocessing.images.marked import MarkedImages, shrink_to_low_detail

_QUESTION = "question_text"


class RawImages(MarkedImages):
    """Images as they are. Their tokens are the engine's, so that only it knows the length of the prompt."""

    def __init__(self, tokenizer: ChatTokenizer, options: MediaOptions) -> None:
        """Find the text of an image; raises ValueError if the chat template has none."""
        super().__init__(options)
        self._written = _text_of_an_image(tokenizer)
        added = (token.content for token in tokenizer.backend.get_added_tokens_decoder().values())
        self.tokens = self.spelled = tuple(token for token in added if token in self._written)

    def place_spelled(self, content: Content, where: str) -> Placed:
        text = join_texts(content)
        return Placed(text, (MediaPart(),) * text.count(self._written))

    def build(
        self,
        prompt: str,
        files: Sequence[bytes],
        parts: Sequence[MediaPart],
        max_tokens: int,
        encode: Encode,
        media_request: MediaRequest,
    ) -> MediaPrompt:
        self._check(files, parts, media_request)
        if any(part.kind == "video" for part in parts):
            raise media_error("the engine behind this server takes no videos")
        if any(media_request.flat_options(part) for part in parts):
            problem = "the engine behind this server takes no options of images"
            raise RequestError(problem, param="mm_processor_kwargs")
        check_tokens(len(files), max_tokens)
        pictures: list[Pixels] = []
        left = self.options.limits.max_pixels
        for data, part in zip(files, parts, strict=True):
            pictures.append(self._pixels(data, part))
            left -= pictures[-1].size // 3
            if left < 0:
                most = self.options.limits.max_pixels
                raise media_error(f"the images of a request have more than {most} pixels together (image_max_pixels)")
        # A prompt of text has marks, those of a chat have become the template's text.
        return MediaPrompt(encode(fill_marks(prompt, lambda kind, number: self._written)), features=pack(pictures))

    def _pixels(self, data: bytes, part: MediaPart) -> Pixels:
        image = decode_image(data, self.options.limits)
        if part.detail == "low":
            shrink_to_low_detail(image)
        return np.asarray(image)


def _text_of_an_image(tokenizer: ChatTokenizer) -> str:
    """What the chat template writes for an image; raises ValueError if it does not take images as parts."""
    try:
        heads = [
            tokenizer.render([{"role": "user", "content": content}]).partition(_QUESTION)[0]
            for content in (_QUESTION, f"{MARKS['image']}{_QUESTION}")
        ]
    except RequestError as error:
        raise ValueError(f"the chat template does not render an image: {error.message}") from error
    written = heads[1].removeprefix(heads[0])
    if not written or written == heads[1] or MARKS["image"] in written:
        raise ValueError("the chat template has no text for an image, which the engine's processor needs")
    return written
