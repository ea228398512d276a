"""Which electrons a Hubbard U acts on."""

from ase.data import atomic_numbers

_F_ELEMENTS = frozenset(range(57, 72)) | frozenset(range(89, 104))


def shell_of(symbol: str) -> str:
    """The letter of the shell: f for lanthanides and actinides, else d."""
    return "f" if atomic_numbers[symbol] in _F_ELEMENTS else "d"
