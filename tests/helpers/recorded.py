"""A stand-in for a CUDA graph that runs on a CPU: operations are recorded once and run again on the same memory.

As with a graph, nothing of Python runs again: what is no tensor at a fixed address stays as it was when recorded, and
results land in the tensors that the recording returned.
"""

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def tensors_of(value):
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def shares(one, others):
    return any(one.untyped_storage().data_ptr() == other.untyped_storage().data_ptr() for other in others)


class Recorder(TorchDispatchMode):
    """Notes every operation with its arguments and results."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        results = func(*args, **kwargs)
        self.operations.append((func, args, kwargs, results))
        return results


def replay(operations):
    for func, args, kwargs, results in operations:
        given, found = tensors_of((args, kwargs)), tensors_of(results)
        if func._schema.is_mutable:
            func(*args, **kwargs)
        elif not any(shares(result, given) for result in found):  # a view shows what its base has become
            for result, again in zip(found, tensors_of(func(*args, **kwargs)), strict=True):
                result.copy_(again)


def record(body, tensors=()):
    """Takes the place of engine.generation.steps.trace."""
    with Recorder() as recorder:
        found = body()

    def run():
        replay(recorder.operations)
        return found

    return run
