"""Lines that a web page says to its visitor: turn on JavaScript, accept cookies, all rights reserved, 备案号.

After C4 (arXiv:1910.10683 §2.2), which drops every line with the word JavaScript, every page with a curly bracket or
"lorem ipsum", and lines about terms, privacy and cookies. Here a line must be short and say what such notices say: an
article about JavaScript, or a story in which someone eats cookies, stays. C4's own rules are options.
"""

from __future__ import annotations

import re

from pydantic import Field

from hanlin.config import Config as Frozen
from hanlin.data.clean.contract import Dropped, Step, rewritten
from hanlin.data.tally import Document

# What a notice says -> the words one of which stands in it, lower-case: words are found a hundred times faster.
NOTICES = {
    r"(enable|activate|turn(ing)? on|requires?|without|disabled?|support) (your )?javascript"
    r"|javascript (is|must|to be|and)": "javascript",
    r"(use|uses|using|accept|allow|enable|disable|manage|reject|all|our|about) (of )?cookies"
    r"|cookie (policy|notice|settings|preferences|consent)": "cookie",
    r"(privacy|return|refund) (policy|notice|statement)\b.{0,80}|terms (of|and) (use|service|conditions)": (
        "privacy|terms of|terms and|refund policy|return policy"
    ),
    r"all rights reserved|^\W*(copyright\b.{0,20}|©\s*)(19|20)\d\d|copyright ©": "rights reserved|copyright|©",
    r"^\W*(sign (up|in)|log ?in|subscribe|register)\b.{0,60}(newsletter|account|to (continue|comment|read|view)|$)": (
        "sign up|sign in|log in|login|subscribe|register"
    ),
    r"^\W*(share|tweet|follow us|like us|pin it|email this)\b.{0,30}(facebook|twitter|linkedin|pinterest|whatsapp)": (
        "facebook|twitter|linkedin|pinterest|whatsapp"
    ),
    r"^\W*(click here|read more|continue reading|load more|show more|back to top|skip to (main )?content)\b.{0,20}$": (
        "click here|read more|continue reading|load more|show more|back to top|skip to"
    ),
    r"^\W*(powered by|advertisement|sponsored)\b.{0,30}$": "powered by|advertisement|sponsored",
    r"版权所有|版權所有|保留所有权利|保留一切权利|未经.{0,12}(授权|许可|允许).{0,12}(转载|使用|复制)": (
        "版权所有|版權所有|保留所有权利|保留一切权利|未经"
    ),
    r"[\u4e00-\u9fff]\s?(icp|公网安)\s?[备证備]|备案号|增值电信业务|网络文化经营许可证|互联网(药品|新闻)信息服务": (
        "icp|公网安|备案号|增值电信|许可证|信息服务"
    ),
    r"点击.{0,8}(查看|阅读|加载|下载|展开|进入|关注|这里|此处)|(查看|阅读|加载)更多\W*$|(阅读|展开)全文\W*$": (
        "点击|更多|全文"
    ),
    r"(扫描?|长按|识别).{0,12}二维码|关注.{0,12}公众号|分享到.{0,8}(微信|微博|朋友圈)|微信扫一扫": (
        "二维码|公众号|分享到|扫一扫"
    ),
    r"(责任编辑|责编|编辑)[：:].{0,20}$|^\W*(来源|作者)[：:].{0,20}$"
    r"|^\W*(上一篇|下一篇|上一页|下一页|返回首页|返回顶部|免责声明)(\W.{0,40})?$": (
        "编辑|来源|作者|上一篇|下一篇|上一页|下一页|返回|免责声明"
    ),
}
LOREM = "lorem ipsum"
ENDS = tuple(".!?\"'”’)。！？…；：」』）")


class Config(Frozen):
    """Which lines are notices."""

    longest: int = Field(200, gt=0, description="Characters of a line beyond which it is text, whatever it mentions.")
    phrases: tuple[str, ...] = Field((), description="Your own: a short line that holds one of these is removed.")
    lorem_ipsum: bool = Field(True, description="Drop a document that is filler text (C4).")
    any_javascript: bool = Field(False, description="Remove every line that mentions JavaScript (C4).")
    curly_brackets: bool = Field(False, description="Drop a document with a curly bracket (C4): most are code.")
    sentences_only: bool = Field(False, description="Keep only lines that end as sentences do (C4): no verse survives.")


def build(config: Config) -> Step:
    """Return the step."""
    marks = [(word, re.compile(pattern)) for pattern, words in NOTICES.items() for word in words.split("|")]
    marks += [(phrase.lower(), re.compile(re.escape(phrase.lower()))) for phrase in config.phrases]
    ascii_marks = [(word, pattern) for word, pattern in marks if word.isascii()]

    def step(document: Document) -> Document | Dropped:
        lower = document.text.lower()
        if config.lorem_ipsum and LOREM in lower:
            return Dropped("filler text")
        if config.curly_brackets and "{" in lower:
            return Dropped("curly bracket")
        met = [pattern for word, pattern in (ascii_marks if lower.isascii() else marks) if word in lower]
        strict = config.sentences_only or (config.any_javascript and "javascript" in lower)
        if not met and not strict:
            return document
        kept = [line for line in document.text.split("\n") if not _is_notice(line, met, config)]
        return rewritten(document, "\n".join(kept))

    return step


def _is_notice(line: str, patterns: list[re.Pattern[str]], config: Config) -> bool:
    """Return whether a line is to go."""
    if not line.strip():
        return False
    lower = line.lower()
    if config.sentences_only and not line.rstrip().endswith(ENDS):
        return True
    if config.any_javascript and "javascript" in lower:
        return True
    return len(line) <= config.longest and any(pattern.search(lower) for pattern in dict.fromkeys(patterns))
