"""`Float`, `Int` and `Bool` say dtype and shape of arrays: `Float[np.ndarray, "atoms 3"]`.

They are jaxtyping's for type checkers and wherever it is loaded, as in the tests, which check shapes at run time. Elsewhere
nobody looks, and stand-ins spare every start of the command line an import as long as numpy's.
"""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool as Bool
    from jaxtyping import Float as Float
    from jaxtyping import Int as Int
else:

    class Float:
        """The array type itself, whatever its dtype and shape."""

        def __class_getitem__(cls, annotation: tuple[Any, str]) -> Any:
            return annotation[0]

    Int = Bool = Float
