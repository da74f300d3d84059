"""A transcript as OpenAI's clients ask for it: json, text, verbose_json, and the subtitles srt and vtt."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from hanlin.serve.tasks.protocol import Transcription
from hanlin.tasks.transcribe import Prediction


def response(asked: Transcription, said: Prediction, seconds: float) -> Response:
    """Return the answer; `seconds` is the length of the sound. A segment tells what is known of it, and no more."""
    form = asked.response_format or "json"
    usage = {"type": "duration", "seconds": round(seconds)}
    if form == "json":
        return JSONResponse({"text": said.text, "usage": usage})
    if form == "verbose_json":
        segments: list[dict[str, Any]] = [
            {"id": at, "start": each.start, "end": each.end, "text": each.text, "temperature": 0.0}
            for at, each in enumerate(said.segments)
        ]
        known = {"task": "transcribe", "language": asked.language or "unknown", "duration": seconds}
        return JSONResponse({**known, "text": said.text, "segments": segments, "usage": usage})
    if form == "text":
        return PlainTextResponse(said.text + "\n")
    return PlainTextResponse(srt(said) if form == "srt" else vtt(said), media_type=f"text/{form}")


def srt(said: Prediction) -> str:
    """Return the segments as SubRip.

    >>> from hanlin.tasks.transcribe import Segment
    >>> print(srt(Prediction(text="hi", segments=(Segment(start=0.5, end=3661.25, text="hi"),))))
    1
    00:00:00,500 --> 01:01:01,250
    hi
    <BLANKLINE>
    """
    cues = [
        f"{at}\n{_clock(each.start, ',')} --> {_clock(each.end, ',')}\n{_line(each.text)}\n"
        for at, each in enumerate(said.segments, 1)
    ]
    return "\n".join(cues)


def vtt(said: Prediction) -> str:
    """Return the segments as WebVTT, in which text is no markup."""
    cues = [
        f"{_clock(each.start, '.')} --> {_clock(each.end, '.')}\n{_plain(_line(each.text))}\n" for each in said.segments
    ]
    return "\n".join(["WEBVTT\n", *cues])


def _clock(seconds: float, point: str) -> str:
    """Return hours, minutes, seconds and thousandths."""
    thousandths = round(seconds * 1000)
    whole, rest = divmod(thousandths, 1000)
    return f"{whole // 3600:02d}:{whole // 60 % 60:02d}:{whole % 60:02d}{point}{rest:03d}"


def _line(text: str) -> str:
    """Return a text on one line: an empty one would end its cue."""
    return " ".join(text.split())


def _plain(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
