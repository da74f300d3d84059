"""Recordings in, transcripts out: few at a time, for each is large and costs a moment to decode.

form ─ 8 in memory ─ 1 being decoded ─> windows ─ worker ─> texts ─> json text verbose_json srt vtt
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import Response

from hanlin.errors import problem
from hanlin.serve import answer, guard
from hanlin.serve.limits import Limits
from hanlin.serve.protocol import checked
from hanlin.serve.refusal import unready
from hanlin.serve.scheduler import Full
from hanlin.serve.tasks import inputs, protocol, transcripts, whole
from hanlin.serve.tasks.form import read_form

AUDIO = "transcribe"  # the task

T = TypeVar("T")


class Hearing:
    """The route of recordings: a few in memory at a time, one of them being decoded."""

    def __init__(self, limits: Limits) -> None:
        """Begin with nothing in memory."""
        self.uploads = asyncio.Semaphore(limits.uploads)
        self.one = asyncio.Semaphore(1)

    async def transcriptions(self, request: Request) -> Response:
        """Return what is said in a recording."""
        here = answer.desk(request)
        if not here.worker.ready:
            raise unready()
        if self.uploads.locked():
            raise Full(problem("queue", "full", f"{here.limits.uploads} recordings at a time", do="try again"))
        async with self.uploads:
            data = await guard.body(request, here.limits, form=True)
            form = await asyncio.to_thread(read_form, data, request.headers["content-type"])
            asked = checked(protocol.Transcription, form.fields)
            served = answer.model_of(request, asked.model)
            predictor = whole.predictor(served, AUDIO)
            async with self.one:
                given, seconds = await _aside(lambda: inputs.heard(predictor, form.file, here.limits.audio_s))
            outputs = await whole.outputs(request, served, "predict", given.rows, given.tokens)
            (said,) = await asyncio.to_thread(predictor.decode, [given.examples[0]], given.rows, outputs)
            return transcripts.response(asked, said, seconds)


async def _aside(work: Callable[[], T]) -> T:
    """Return what `work` returns in a thread that ends: one that lived on would keep a team of torch's threads."""
    with ThreadPoolExecutor(1) as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, work)
