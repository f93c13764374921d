"""A state tree in one file, without pickle: tensors as safetensors, everything else as JSON in its header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from handful.files import write_atomic
from handful.randomness import digest
from handful.types import HandfulError

FORMAT = "handful-checkpoint-1"


def write(path: Path, tree: dict[str, Any]) -> None:
    """Save a tree of dictionaries, lists, tensors, numbers, strings and None; atomic.

    Raises:
        HandfulError: the file cannot be written (disk full); an older checkpoint stays.
        TypeError: the tree holds something else.
    """
    tensors: dict[str, torch.Tensor] = {}
    skeleton = json.dumps(_take_tensors(tree, "", tensors))
    header = {"format": FORMAT, "tree": skeleton, "digest": _checksum(skeleton, tensors)}
    # one entry, as safetensors writes several in any order: equal trees make equal files
    write_atomic(path, save(tensors, metadata={"handful": json.dumps(header)}))


def read(path: Path) -> dict[str, Any]:
    """The tree that ``write`` saved.

    Raises:
        HandfulError: missing, not a checkpoint of this format, or damaged (a checksum tells).
    """
    fix = "remove it and start again"
    try:
        content = path.read_bytes()
        tensors = load(content)
        length = int.from_bytes(content[:8], "little")
        header = json.loads(json.loads(content[8 : 8 + length]).get("__metadata__", {}).get("handful", "{}"))
    except (OSError, SafetensorError, ValueError) as error:
        raise HandfulError(f"is not a readable checkpoint ({error})", file=path, fix=fix) from error
    if header.get("format") != FORMAT:
        raise HandfulError("is not a checkpoint of this version", file=path, fix=fix)
    if header.get("digest") != _checksum(header.get("tree", ""), tensors):
        raise HandfulError("is damaged: its checksum does not fit", file=path, fix=fix)
    tree = _put_tensors(json.loads(header["tree"]), tensors)
    assert isinstance(tree, dict)
    return tree


def _checksum(skeleton: str, tensors: dict[str, torch.Tensor]) -> str:
    """Over everything that the tree holds."""
    heads = {name: f"{name} {tensor.dtype} {list(tensor.shape)}" for name, tensor in tensors.items()}
    return digest(
        skeleton, *(part for name in sorted(tensors) for part in (heads[name], tensors[name])), size=16
    )


def _take_tensors(node: Any, name: str, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, torch.Tensor):
        name = f"{len(tensors)}{name}"  # the number keeps {"a/b": x} and {"a": {"b": y}} apart
        tensors[name] = node.detach().cpu().contiguous().clone()
        return {"__tensor__": name}
    if isinstance(node, dict):
        return {str(k): _take_tensors(v, f"{name}/{k}", tensors) for k, v in node.items()}
    if isinstance(node, list | tuple):
        return [_take_tensors(v, f"{name}/{i}", tensors) for i, v in enumerate(node)]
    if node is None or isinstance(node, bool | int | float | str):
        return node
    raise TypeError(f"a checkpoint cannot hold {type(node).__name__} ({name})")


def _put_tensors(node: Any, tensors: dict[str, torch.Tensor]) -> Any:
    if isinstance(node, dict):
        if "__tensor__" in node:
            return tensors[node["__tensor__"]]
        return {k: _put_tensors(v, tensors) for k, v in node.items()}
    if isinstance(node, list):
        return [_put_tensors(v, tensors) for v in node]
    return node
