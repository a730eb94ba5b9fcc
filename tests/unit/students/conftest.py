import pytest

pytest.register_assert_rewrite("student_conformance")
