r"""Conversations are the ids that transformers gives, and the masks, for templates in the styles in use.

    ChatML        <|im_start|>user\n…<|im_end|>\n
    headers       <|start_header_id|>user<|end_header_id|>\n\n…<|eot_id|>      Llama 3
    instructions  <s>[INST] <<SYS>>…<</SYS>> … [/INST] … </s>                  Llama 2
    turns         <start_of_turn>user\n…<end_of_turn>\n                        Gemma

The templates are our own. Tokenizers: byte-level BPE, a token a byte, characters with bytes behind, and pieces that
begin with a space, in a vocabulary that holds its control tokens.
"""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a folder is all that is ever opened here

import pytest
import tokenizers
from tokenizers import decoders, models, normalizers, processors
from transformers import PreTrainedTokenizerFast

from hanlin.text.chat import Chat, Message
from hanlin.text.tokenizer import Special, Tokenizer, byte_level, characters, train_bpe

pytestmark = pytest.mark.parity

CHATML = """{{- bos_token }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' }}
    {%- if message.role == 'assistant' %}
        {%- generation %}{{- message.content + '<|im_end|>' }}{%- endgeneration %}
    {%- else %}
        {{- message.content + '<|im_end|>' }}
    {%- endif %}
    {{- '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"""

HEADERS = """{%- macro header(role) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro %}
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = '26 Jul 2024' %}{%- endif %}
{%- if messages[0].role == 'system' %}
    {%- set system = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system = '' %}
{%- endif %}
{{- header('system') + 'Today: ' + date_string + '\n\n' + system + '<|eot_id|>' }}
{%- for message in messages %}
    {{- header(message['role']) }}
    {%- if message['role'] == 'assistant' %}
{% generation %}{{ message['content'] | trim }}<|eot_id|>{% endgeneration %}
    {%- else %}
        {{- message['content'] | trim ~ '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- header('assistant') }}{%- endif %}"""

INSTRUCTIONS = """{% set ns = namespace(system='') %}
{% if messages[0]['role'] == 'system' %}
{% set ns.system = '<<SYS>>\n' + messages[0]['content'].strip() + '\n<</SYS>>\n\n' %}
{% set messages = messages[1:] %}
{% endif %}
{% for message in messages %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Roles must alternate: user, assistant, user') }}
{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + (ns.system if loop.first else '') + message['content'].strip() + ' [/INST]' -}}
{% else %}
{% generation %}{{ ' ' ~ message['content'] | trim ~ ' ' ~ eos_token }}{% endgeneration %}
{% endif %}
{% endfor %}"""

TURNS = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}
{% set first = messages[0]['content'] + '\n\n' %}{% set loop_messages = messages[1:] %}
{% else %}{% set first = '' %}{% set loop_messages = messages %}{% endif %}
{% for message in loop_messages %}
{% set role = {'assistant': 'model'}.get(message['role'], message['role']) %}
{{ '<start_of_turn>' + role + '\n' }}{% if loop.first %}{{ first }}{% endif %}
{% if role == 'model' %}{% generation %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endgeneration %}
{% else %}{{ message['content'] | trim + '<end_of_turn>\n' }}{% endif %}
{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

STYLES = {"chatml": CHATML, "headers": HEADERS, "instructions": INSTRUCTIONS, "turns": TURNS}
CONTROL = ["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
CONTROL += ["<start_of_turn>", "<end_of_turn>"]
TEXTS = [
    "You are a poet of the Tang. 你是翰林學士。",
    "  写一首诗 about the moon 🌙, {{ 7*7 }} and 👩‍👩‍👧‍👦!\n",
    "床前明月光，\n疑是地上霜。 <think>café</think>",
    "안녕 العربية\ttabs  and  spaces <b>",
    "舉頭望明月🌕",
]


def pieces():
    """Return Llama 2's kind: control tokens in the vocabulary, each piece of text after a space, bytes behind."""
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnop", "ab", "▁a"]
    vocab = {name: id for id, name in enumerate(names)}
    raw = tokenizers.Tokenizer(
        models.BPE(vocab=vocab, merges=[("a", "b"), ("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    raw.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    raw.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw.add_special_tokens(names[:3])
    raw.encode_special_tokens = True
    return Tokenizer(raw, Special(bos=1, eos=2, unk=0), {})


MAKE = {
    "bpe": lambda: train_bpe([*TEXTS, *STYLES.values()], 600),
    "bytes": byte_level,
    "characters": lambda: characters(TEXTS[:2]),
    "pieces": pieces,
}


@pytest.fixture(params=MAKE)
def ours(request):
    """Return a tokenizer with the control tokens of all four styles, one of which takes the space before it."""
    made = MAKE[request.param]()
    made.raw.add_special_tokens(CONTROL[:-1])
    made.raw.add_special_tokens([tokenizers.AddedToken(CONTROL[-1], special=True, normalized=False, lstrip=True)])
    made.raw.add_tokens(["<think>"])
    return made


def theirs(ours, folder, template):
    """Return transformers' tokenizer for the same files."""
    ours.settings["chat_template"] = template
    ours.save(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def dicts(messages):
    return [{"role": each.role, "content": each.content} for each in messages]


TALK = [Message(role, text) for role, text in zip(("system", *["user", "assistant"] * 2), TEXTS, strict=True)]


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("talk", [TALK[:2], TALK[1:2], TALK[:4], TALK[3:4] + TALK[2:3] + TALK[1:2]])
def test_prompts(ours, style, talk, tmp_path):
    """The same template must not mean other ids in another program: that is a worse model, and nobody knows why."""
    them = theirs(ours, tmp_path, STYLES[style])
    prompt = {"add_generation_prompt": True}
    expected = them.apply_chat_template(dicts(talk), return_dict=False, **prompt)
    chat = Chat.read(tmp_path, Tokenizer.load(tmp_path))
    assert chat.prompt(talk) == expected
    assert chat.text(talk, begin=True) == them.apply_chat_template(dicts(talk), tokenize=False, **prompt)
    assert expected.count(ours.special.bos) == expected.count(them.bos_token_id) <= (len(talk) + 1) // 2  # not doubled


@pytest.mark.parametrize("style", STYLES)
def test_masks(ours, style, tmp_path):
    """Generation blocks mean the same tokens, the white space before and the control token after included."""
    them = theirs(ours, tmp_path, STYLES[style])
    expected = them.apply_chat_template(dicts(TALK), return_dict=True, return_assistant_tokens_mask=True)
    turns = Chat.of(STYLES[style], ours).training(TALK)
    assert list(turns.ids) == expected["input_ids"]
    masks = zip(turns.ids, turns.mask, map(bool, expected["assistant_masks"]), strict=True)
    differ = [(ours.token(id), mask) for id, mask, their in masks if mask != their]
    # Where several tokens are one character, and it is the last, transformers counts only the first of them.
    split = style == "turns" and ours.id("▁a") is not None  # a line end is "▁" and "<0x0A>"
    assert differ == [("<0x0A>", True)] * (2 if split else 0)
    assert turns.stops == (style != "turns")  # Gemma's style has a line end in the block, after the control token


@pytest.mark.parametrize("style", STYLES)
def test_rendering_finds_what_the_blocks_say(ours, style):
    """Without its blocks, the same template gives the same mask, less the line end after the last control token."""
    blocks = Chat.of(STYLES[style], ours).training(TALK)
    bare = STYLES[style]
    for dash in ("{%- ", "{% "):
        bare = bare.replace(f"{dash}generation %}}", f"{dash}if true %}}")
        bare = bare.replace(f"{dash}endgeneration %}}", f"{dash}endif %}}")
    rendered = Chat.of(bare, ours).training(TALK)
    assert rendered.ids == blocks.ids
    assert rendered.stops
    differ = {ours.decode([id]) for id, *masks in zip(rendered.ids, rendered.mask, blocks.mask) if masks[0] != masks[1]}
    assert not "".join(differ).strip()
    assert bool(differ) == (style == "turns")


@pytest.mark.parametrize("style", STYLES)
def test_options(ours, style, tmp_path):
    """Options reach the template under their own names."""
    them = theirs(ours, tmp_path, STYLES[style] + "{{ tools|tojson }}{{ date_string }}")
    tools = [{"type": "function", "function": {"name": "月", "parameters": {"a": [1, 2.5, None, True]}}}]
    expected = them.apply_chat_template(dicts(TALK[:2]), tools=tools, date_string="<1999>", tokenize=False)
    options = {"tools": tools, "date_string": "<1999>"}
    assert Chat.read(tmp_path, ours).text(TALK[:2], options=options) == expected
