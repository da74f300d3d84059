"""What a config.json says of heads and their labels, read and written as Hugging Face does.

architectures   ["BertForTokenClassification"]     which heads the files hold
id2label        {"0": "O", "1": "B-PER", …}        their labels, in the order of the outputs
problem_type    "multi_label_classification" | "regression" | "single_label_classification"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hanlin.errors import BundleError, problem
from hanlin.models.contract import Decodes, Json, Model, ModelConfig

SOUND = "preprocessor_config.json"  # how sound becomes frames
TWO = ("span", "next_sentence")  # heads whose outputs are always two: begin and end, follows or not
TASKS = {"sequence": "classify", "token": "tag", "span": "answer"}  # by head
LABELLED = ("sequence", "token")
PROBLEMS = ("single_label_classification", "multi_label_classification", "regression")


def carried(config: ModelConfig) -> dict[str, int]:
    """Return the heads, name -> outputs, that the files beside a config.json hold; none for a class unknown to us."""
    listed = config.extra.get("architectures")
    name = listed[0] if isinstance(listed, list | tuple) and listed else None
    heads = config.tables.task_heads
    found = config.tables.joint.get(str(name), tuple(each for each in heads if heads[each].architecture == name))
    return {each: config.vocab if each == "masked" else 2 if each in TWO else outputs(config) for each in found}


def task(model: Model[Any], *, pooled: bool) -> str:
    """Return the task that a model's heads, pooling or abilities are for, "" for an encoder that carries none."""
    found = [TASKS[name] for name in model.heads if name in TASKS]
    if found:
        return found[0]
    if SOUND in model.config.tables.beside:
        return "transcribe"
    return "similar" if pooled else "generate" if isinstance(model, Decodes) else ""


def outputs(config: ModelConfig) -> int:
    """Return how many labels a config.json counts; two where it says nothing, as Hugging Face takes it."""
    given = config.extra.get("num_labels")
    return len(labels(config)) or (given if isinstance(given, int) and given > 0 else 2)


def labels(config: ModelConfig) -> tuple[str, ...]:
    """Return the labels in the order of the outputs, () where there are none; BundleError when the order has gaps."""
    named = config.extra.get("id2label")
    if not isinstance(named, Mapping) or not named:
        return ()
    found = {str(key): str(label) for key, label in named.items()}
    missing = [str(place) for place in range(len(found)) if str(place) not in found]
    if missing:
        given = f"{len(found)} labels, none of them for {missing[0]}"
        raise BundleError(problem("config.json: id2label", given, "numbers from 0, without gaps"))
    return tuple(found[str(place)] for place in range(len(found)))


def described(
    config: ModelConfig, heads: Mapping[str, int], given: Sequence[str] | None, problem_type: str | None
) -> Json:
    """Return the keys of config.json that say what a model's heads are for; BundleError for labels that do not fit.

    Labels left out are those that the model was opened with, as long as there are as many as outputs.
    """
    tables = config.tables
    joint = [name for name, together in tables.joint.items() if {*together} == {*heads}]
    single = [tables.task_heads[name].architecture for name in heads]
    bare = config.architecture if tables is type(config) else tables.architecture
    said: Json = {"architectures": [*joint, *single, bare][:1]}
    head = next((name for name in heads if name in LABELLED), None)
    if problem_type is not None and problem_type not in PROBLEMS:
        raise BundleError(problem("problem_type", f"'{problem_type}'", f"one of {', '.join(PROBLEMS)}"))
    if head is None:
        if given:
            raise BundleError(problem("labels", f"{len(given)} labels", "the model has no head that they belong to"))
        return said
    old = labels(config) if outputs(config) == heads[head] else ()
    names = tuple(given) if given is not None else old or tuple(f"LABEL_{at}" for at in range(heads[head]))
    if len(names) != heads[head] or len({*names}) != len(names):
        raise BundleError(problem("labels", f"{len({*names})} different ones", f"head '{head}' has {heads[head]}"))
    said["id2label"] = {str(place): name for place, name in enumerate(names)}
    said["label2id"] = {name: place for place, name in enumerate(names)}
    return {**said, "num_labels": len(names), **({"problem_type": problem_type} if problem_type else {})}
