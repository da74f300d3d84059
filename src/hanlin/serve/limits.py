"""How much one request may ask for, and how long a client may take."""

from __future__ import annotations

from pydantic import Field

from hanlin.config import Config


class Limits(Config):
    """Bounds of a server; the comment says what happens past one."""

    connections: int = Field(256, ge=1, description="Open connections.")  # 429, closed
    header_bytes: int = Field(16_384, ge=1024, description="Bytes of a request line and its headers.")  # 431, closed
    header_s: float = Field(10.0, gt=0, description="Seconds for a request's headers to arrive.")  # 408, closed
    body_bytes: int = Field(2_000_000, ge=1024, description="Bytes of a request's body.")  # 413
    body_s: float = Field(30.0, gt=0, description="Seconds for a request's body to arrive.")  # 408
    upload_bytes: int = Field(25_000_000, ge=1024, description="Bytes of a recording with its form.")  # 413
    upload_s: float = Field(120.0, gt=0, description="Seconds for a recording to arrive.")  # 408
    uploads: int = Field(8, ge=1, description="Recordings in the server's hands at the same time.")  # 429
    idle_s: int = Field(30, ge=1, description="Seconds that a connection may wait for its next request.")  # closed
    stall_s: float = Field(60.0, gt=0, description="Seconds that a client may leave an answer unread.")  # closed
    request_s: float = Field(600.0, gt=0, description="Seconds for the whole answer.")  # 504, or an error event
    n: int = Field(16, ge=1, le=128, description="Answers to one prompt.")  # 400, as is what follows
    prompts: int = Field(32, ge=1, description="Prompts in one request.")
    inputs: int = Field(2_048, ge=1, description="Inputs of one request to a task or for vectors.")
    audio_s: float = Field(600.0, gt=0, description="Seconds of sound in one recording.")
    messages: int = Field(2_000, ge=1, description="Messages of one chat.")
    stop_characters: int = Field(256, ge=1, description="Length of a stop string.")
