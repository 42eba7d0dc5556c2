"""An exported program without additions of zeros, and without what is then for nothing."""

from torch import fx, ops
from torch._ops import OpOverload
from torch.export import ExportedProgram

_ATEN = ops.aten
_SUMS = (_ATEN.add.Tensor, _ATEN.add_.Tensor)
_RELUS = (_ATEN.relu.default, _ATEN.relu_.default)
_KEEP_ZEROS = (
    *_RELUS,
    _ATEN.mul.Tensor,
    _ATEN.mul_.Tensor,
    _ATEN.dropout.default,
    _ATEN.dropout_.default,
    _ATEN.permute.default,
    _ATEN.transpose.int,
    _ATEN.reshape.default,
    _ATEN.view.default,
    _ATEN.flatten.using_ints,
)
_FRESH = (
    _ATEN.new_zeros.default,
    _ATEN.conv2d.default,
    _ATEN.batch_norm.default,
    _ATEN.linear.default,
    _ATEN.add.Tensor,
    _ATEN.mul.Tensor,
)  # they give memory of their own


def fold_zeros(program: ExportedProgram) -> None:
    """Let x stand for x + 0 and for relu(x) of an x that comes from a relu, in place.

    Emptied layers give zeros to sums, and all that a branch computes before goes with them. A copy
    of x takes the place of the sum, since what comes after may write into it.
    """
    graph = program.graph
    for node in list(graph.nodes):
        x = _beside_zeros(node)
        if x is None:
            continue
        with graph.inserting_before(node):
            copy = graph.call_function(_ATEN.clone.default, (x,))
        copy.meta = dict(node.meta)
        node.replace_all_uses_with(copy)
        graph.erase_node(node)
        for user in list(copy.users) if _is_positive(x) else ():
            if user.target in _RELUS:
                user.replace_all_uses_with(copy)
                graph.erase_node(user)
    graph.eliminate_dead_code(is_impure_node=_is_seen)
    program.graph_module.recompile()


def _beside_zeros(node: fx.Node) -> fx.Node | None:
    """Return what a node adds zeros to, None if it does something else."""
    if node.target not in _SUMS or node.kwargs:
        return None
    for zeros, x in (node.args, node.args[::-1]):
        both = isinstance(zeros, fx.Node) and isinstance(x, fx.Node)
        if both and _is_zero(zeros) and _kind(x) == _kind(node):
            return x
    return None


def _kind(node: fx.Node) -> tuple[object, ...]:
    value = node.meta["val"]
    return tuple(value.shape), value.dtype


def _is_zero(node: fx.Node) -> bool:
    """True for zeros that nothing but the next operation reads, or writes into."""
    if len(node.users) != 1:
        return False
    if node.target == _ATEN.new_zeros.default:
        return True
    sources = [arg for arg in node.args if isinstance(arg, fx.Node)]
    return node.target in _KEEP_ZEROS and any(map(_is_zero, sources))


def _is_positive(node: fx.Node) -> bool:
    """True for what a relu gave, and nothing wrote into since."""
    while node.target == _ATEN.clone.default and len(node.users) == 1:
        (node,) = node.all_input_nodes
    return node.target in _RELUS and not any(user.is_impure() for user in node.users)


def _is_seen(node: fx.Node) -> bool:
    """True for what has to stay though nothing reads it: what it writes into, something may."""
    return node.is_impure() and not (_writes_first(node) and _is_own(node.args[0]))


def _writes_first(node: fx.Node) -> bool:
    """True for an operation that writes into what it is given first, and gives that out."""
    return isinstance(node.target, OpOverload) and node.target._schema.name.endswith("_")


def _is_own(node: object) -> bool:
    """True for memory of its own that a single operation reads, or writes into."""
    if not isinstance(node, fx.Node) or len(node.users) != 1:
        return False
    return node.target in _FRESH or (_writes_first(node) and _is_own(node.args[0]))
