"""Faults that are inserted into a module: which there are, and that each changes one place."""

import ast

import pytest

from tools.faults import find_faults


def faulty_forms(code: str) -> set[str]:
    """Return all faulty forms of a line of code, without the parentheses around the change."""
    source = code.encode()
    return {ast.unparse(ast.parse(fault.put_into(source))) for fault in find_faults(source)}


@pytest.mark.parametrize(
    ("code", "forms"),
    [
        ("a < b <= c", {"a <= b <= c", "a < b < c"}),
        ("a in b", {"a not in b"}),
        ("a is None", {"a is not None"}),
        ("a - b", {"a + b"}),
        ("a // b", {"a / b"}),
        ("a and (b or c)", {"a or (b or c)", "a and (b and c)"}),
        ("not a", {"a"}),
        ("-a", {"a"}),
        ("a[2]", {"a[3]", "a[1]"}),
        ("a = 1e-09", {"a = 1.000000001", "a = 0.0"}),
        ("a = True", {"a = False"}),
        ("a = any(b)", {"a = all(b)"}),
        ("a = np.minimum(b, c)", {"a = np.maximum(b, c)"}),
        ("a = b.argmin()", {"a = b.argmax()"}),
        ("a = f(b, c, d)", {"a = f(c, b, d)"}),
        ("a = sorted(b)", {"a = sorted(b)[::-1]"}),
        ("a += b", {"a -= b", "pass"}),
        ("a.b = c", {"pass"}),
        ("f()", {"pass"}),
        ("raise Error(1 < 2, f(a, b))", {"pass"}),
        ("a = b if c else d", {"a = b if not c else d"}),
        ("[a for a in b if c]", {"[a for a in b if not c]"}),
        ("a = f(b, b)", set()),
        ("a = sum(b)", set()),
        ("a: Field[1] = b", set()),
        ("a = f'{b < c} text', 'text'", set()),
        ("zip(a, b, strict=True)", {"zip(b, a, strict=True)", "pass"}),
    ],
)
def test_faults_of_a_line(code: str, forms: set[str]) -> None:
    assert faulty_forms(code) == {ast.unparse(ast.parse(form)) for form in forms}


def test_fault_changes_only_its_own_text() -> None:
    """Comments, blank lines and multi-byte letters around it stay."""
    source = 'x = "α β"; y = λ + (  # why\n    μ *\n    ν\n)\n\n\ndef f(a: int = 1) -> int:  # 1\n    "Not 1."\n'
    faults = find_faults(source.encode())
    changed = {fault.put_into(source.encode()).decode() for fault in faults}
    assert source.replace("μ *\n    ν", "(μ / ν)") in changed
    assert source.replace("= 1)", "= (2))") in changed
    assert len(faults) == len(changed) == 4
    assert [fault.line for fault in faults] == [1, 2, 7, 7]
