"""Find the places of a Python module where one small change is a fault, and insert it.

Each fault replaces the text of one expression or statement; everything else stays byte for byte. Text, annotations,
decorators, and the arguments of `raise` are not changed.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    **{"any": "all", "all": "any", "min": "max", "max": "min", "sum": "mean", "mean": "sum"},
    **{"minimum": "maximum", "maximum": "minimum", "argmin": "argmax", "argmax": "argmin"},
    **{"floor": "ceil", "ceil": "floor"},
}
"""Functions and methods that are easily taken for each other; the built-in sum stays, there is no built-in mean."""
SYMMETRIC = ("min", "max", "minimum", "maximum", "isclose", "array_equal")
"""Functions whose first two arguments can be exchanged."""


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """One change of a module's text."""

    line: int
    start: int
    """First byte of the text that is replaced, in the UTF-8 source."""
    end: int
    """Byte after it."""
    before: str
    """Replaced code, on one line."""
    after: str
    """Code that takes its place."""

    def put_into(self, source: bytes) -> bytes:
        """Return the source with this fault."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def find_faults(source: bytes) -> list[Fault]:
    """Return every fault that can be put into a module, in the order of its text."""
    offsets = [0]
    for line in source.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    faults = set()
    for node, after in _changes(ast.parse(source)):
        start = offsets[node.lineno - 1] + node.col_offset
        end = offsets[(node.end_lineno or node.lineno) - 1] + (node.end_col_offset or 0)
        fault = Fault(node.lineno, start, end, before=ast.unparse(node), after=after)
        if _compiles(fault.put_into(source)):
            faults.add(fault)
    return sorted(faults)


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "<fault>", "exec")
    except SyntaxError:
        return False
    return True


def _changes(root: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """Return every node below a root that can be changed, with the code that takes its place."""
    for node in _nodes(root):
        if isinstance(node, ast.expr):
            for changed in (*_changed_operators(node), *_changed_values(node), *_changed_calls(node)):
                yield node, f"({ast.unparse(changed)})"
        elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            yield node, ast.unparse(ast.AugAssign(node.target, ARITHMETIC[type(node.op)](), node.value))
        for test in _plain_conditions(node):
            yield test, f"(not {ast.unparse(test)})"
        if isinstance(node, ast.stmt) and _can_be_dropped(node):
            yield node, "pass"


def _nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Walk a tree, without the parts that are left alone."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list") or isinstance(node, ast.Raise):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_left_alone(child):
                yield from _nodes(child)


def _is_left_alone(node: ast.AST) -> bool:
    """Return True if a node is text, or the `strict` of zip, which only guards against lists of other lengths."""
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.keyword) and node.arg == "strict")


def _changed_operators(node: ast.expr) -> Iterator[ast.expr]:
    """Yield another comparison, another arithmetic operator, `and` for `or`, no `not`, no minus."""
    match node:
        case ast.Compare():
            for i, operator in enumerate(node.ops):
                operators = [*node.ops]
                operators[i] = COMPARISONS[type(operator)]()
                yield ast.Compare(node.left, operators, node.comparators)
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            yield ast.BinOp(node.left, ARITHMETIC[type(node.op)](), node.right)
        case ast.BoolOp():
            yield ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            yield node.operand


def _changed_values(node: ast.expr) -> Iterator[ast.expr]:
    """Yield a number one larger or smaller, a fraction replaced by 0, a negated Boolean."""
    if isinstance(node, ast.Constant):
        match node.value:
            case bool():
                yield ast.Constant(not node.value)
            case int():
                yield ast.Constant(node.value + 1)
                yield ast.Constant(node.value - 1)
            case float():
                yield ast.Constant(node.value + 1)
                if node.value != 0:
                    yield ast.Constant(0.0)


def _changed_calls(node: ast.expr) -> Iterator[ast.expr]:
    """Yield the opposite function, the first two arguments exchanged, a sorted list reversed."""
    if not isinstance(node, ast.Call):
        return
    match node.func:
        case ast.Name(id=name) if name in NAMES and name != "sum":
            yield ast.Call(ast.Name(NAMES[name]), node.args, node.keywords)
        case ast.Attribute(attr=name, value=value) if name in NAMES:
            yield ast.Call(ast.Attribute(value, NAMES[name]), node.args, node.keywords)
        case ast.Name(id="sorted"):
            backwards = ast.Slice(step=ast.UnaryOp(ast.USub(), ast.Constant(1)))
            yield ast.Subscript(node, backwards, ast.Load())
    has_two = len(node.args) > 1 and not any(isinstance(argument, ast.Starred) for argument in node.args[:2])
    is_symmetric = ast.unparse(node.func).rpartition(".")[2] in SYMMETRIC
    if has_two and not is_symmetric and ast.dump(node.args[0]) != ast.dump(node.args[1]):
        yield ast.Call(node.func, [node.args[1], node.args[0], *node.args[2:]], node.keywords)


def _plain_conditions(node: ast.AST) -> Iterator[ast.expr]:
    """Yield conditions without an operator; those with one are changed at the operator."""
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        is_changed_elsewhere = isinstance(test, ast.Compare | ast.BoolOp | ast.UnaryOp | ast.JoinedStr)
        if not is_changed_elsewhere and ast.unparse(test) != "TYPE_CHECKING":
            yield test


def _can_be_dropped(node: ast.stmt) -> bool:
    """Return True if a statement has an effect, so that a test should notice if it is missing."""
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Delete() | ast.Continue() | ast.Break():
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript(), *_]):
            return True
    return False
