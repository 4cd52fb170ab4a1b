"""What a role or a kind of task needs from the device and from the credential."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from meshagent.sdk.errors import DeclarationError


@dataclass(frozen=True, slots=True)
class Requires:
    """Checked before any hook of the role is asked; what is missing is named in the refusal."""

    capabilities: Collection[str] = ()
    """Words of the device's own list, `flight`, `contact-probe`."""
    permissions: Collection[str] = ()
    """Of the credential, `enter:pump-room`."""
    memory_mib: int = 0
    """Held while a contract runs."""
    cores: float = 0.0
    """Held while a contract runs."""

    def __post_init__(self) -> None:
        for name in ("capabilities", "permissions"):
            words = getattr(self, name)
            if isinstance(words, str):  # a lone string would be taken for its letters
                raise DeclarationError(
                    f"Requires({name}={words!r}) is one string", next_step=f"Requires({name}={{{words!r}}})"
                )
            object.__setattr__(self, name, frozenset(words))
        if self.memory_mib < 0 or self.cores < 0:
            raise DeclarationError("Requires asks for less than nothing", next_step="give numbers of at least 0")

    def __or__(self, other: Requires) -> Requires:
        """Both: all words of either, the larger of each amount."""
        return Requires(
            frozenset(self.capabilities) | frozenset(other.capabilities),
            frozenset(self.permissions) | frozenset(other.permissions),
            max(self.memory_mib, other.memory_mib),
            max(self.cores, other.cores),
        )
